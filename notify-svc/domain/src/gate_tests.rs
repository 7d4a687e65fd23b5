//! Gates by themselves: names, pauses, and what failures do.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;
const RATE: Rate = Rate { sends: 10, per_ms: 1000, burst: 5 };
const BREAKER: Breaker = Breaker { failures: 10, failing_ms: 10_000, pause_ms: 5_000, pause_max_ms: 60_000 };

fn at(ms: i64) -> DateTime<Utc> {
    NOW + TimeDelta::milliseconds(ms)
}

fn names(channel: Channel, address: &str) -> Vec<String> {
    keys(channel, address, "d").into_iter().map(|key| key.name).collect()
}

#[test]
fn each_channel_has_its_gates_and_their_names_parse_back() {
    assert_eq!(names(Channel::Log, ""), ["channel/log"]);
    assert_eq!(names(Channel::Telegram, "42"), ["channel/telegram", "provider/telegram", "recipient/telegram/d"]);
    assert_eq!(
        names(Channel::Email, "a@Example.ORG"),
        ["channel/email", "provider/email", "domain/email/example.org", "recipient/email/d"]
    );
    for (url, domain) in [
        ("https://u:p@Example.org:8443/a?b#c", "domain/webhook/example.org:8443"),
        ("http://[::1]:9/x", "domain/webhook/[::1]:9"),
        ("nonsense", "domain/webhook/nonsense"),
        ("http://", "domain/webhook/"),
    ] {
        assert_eq!(names(Channel::Webhook, url), ["channel/webhook", domain, "recipient/webhook/d"], "{url}");
    }
    for channel in Channel::ALL {
        for key in keys(*channel, "https://a.b/c@d", "d") {
            assert_eq!(GateKey::parse(&key.name), Some(key));
        }
    }
    assert_eq!(GateKey::parse("provider/pigeon"), None);
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let mut gate = Gate::default();
    assert_eq!(gate.room(NOW, Some(&RATE)), 5);
    (0..5).for_each(|_| gate.pass(NOW, Some(&RATE)));
    assert_eq!((gate.room(NOW, Some(&RATE)), gate.open_time(NOW, Some(&RATE))), (0, at(100)));
    assert_eq!(gate.room(at(99), Some(&RATE)), 0);
    assert_eq!(gate.room(at(250), Some(&RATE)), 2);
    assert_eq!(gate.room(at(10_000), Some(&RATE)), 5);
    assert_eq!(gate.full_time, at(500));
}

#[test]
fn a_pause_holds_and_a_shorter_one_changes_nothing() {
    let mut gate = Gate::default();
    gate.pause(NOW, Duration::from_secs(30), "FLOOD");
    gate.pause(at(1_000), Duration::from_secs(2), "SHORT");
    assert_eq!((gate.room(at(29_999), None), gate.reason.as_str()), (0, "FLOOD"));
    assert!(gate.room(at(30_000), None) > 1);
}

#[test]
fn failures_trip_a_gate_only_after_a_while_without_any_success() {
    let mut gate = Gate::default();
    (0..50).for_each(|_| gate.heard(NOW, Health::Failing, "HTTP_503", &BREAKER));
    assert!(!gate.tripped && gate.room(NOW, None) > 1, "the first retries come first");
    gate.heard(at(9_000), Health::Alive, "", &BREAKER);
    (0..9).for_each(|_| gate.heard(at(10_000), Health::Failing, "HTTP_503", &BREAKER));
    assert!(!gate.tripped);
    gate.heard(at(20_000), Health::Failing, "HTTP_503", &BREAKER);
    assert!(gate.tripped);
    assert_eq!((gate.room(at(24_999), None), gate.room(at(25_000), None)), (0, 1));
    gate.heard(at(20_001), Health::Unknown, "LEASE_LOST", &BREAKER);
    assert!(gate.tripped);
}

#[test]
fn a_tripped_gate_is_probed_one_by_one_ever_more_rarely_and_opens_at_the_first_success() {
    let mut gate = Gate::default();
    gate.heard(NOW, Health::Refusing, "TELEGRAM_TOKEN_REFUSED", &BREAKER);
    assert_eq!(gate.room(at(5_000), None), 1);
    gate.pass(at(5_000), None);
    assert_eq!(gate.room(at(5_001), None), 0, "one probe at a time");
    assert_eq!(gate.room(at(20_000), None), 1, "and another if that one never ended");
    gate.heard(at(40_000), Health::Failing, "TIMEOUT", &BREAKER);
    assert_eq!((gate.room(at(59_999), None), gate.room(at(60_000), None)), (0, 1), "half as long as it has failed");
    gate.heard(at(1_000_000), Health::Failing, "TIMEOUT", &BREAKER);
    assert_eq!((gate.room(at(1_059_999), None), gate.room(at(1_060_000), None)), (0, 1), "but never longer");
    gate.heard(at(1_060_100), Health::Alive, "", &BREAKER);
    assert!(gate.room(at(1_060_100), None) > 1 && gate.failure_count == 0);
}

#[test]
fn what_fails_together_shares_its_health() {
    let health = |channel, address| health_key(&keys(channel, address, "d")).map(|key| key.name.clone());
    assert_eq!(health(Channel::Log, ""), None);
    assert_eq!(health(Channel::Email, "a@b").as_deref(), Some("provider/email"));
    assert_eq!(health(Channel::Webhook, "https://a.b/c").as_deref(), Some("domain/webhook/a.b"));
}

proptest! {
    #[test]
    fn nothing_overflows(sends in 0_u32.., per_ms: u32, burst: u32, seconds: u64) {
        let rate = Rate { sends, per_ms, burst };
        let mut gate = Gate::default();
        gate.pause(DateTime::<Utc>::MAX_UTC, Duration::from_secs(seconds), "X");
        for now in [NOW, DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            gate.pass(now, Some(&rate));
            gate.heard(now, Health::Refusing, "X", &BREAKER);
            gate.room(now, Some(&rate));
            gate.open_time(now, Some(&rate));
        }
    }

    #[test]
    fn room_says_how_many_pass_exactly(sends in 1_u32..1000, per_ms in 1_u32..100_000, burst in 1_u32..100, waited in 0_i64..100_000) {
        let rate = Rate { sends, per_ms, burst };
        let mut gate = Gate::default();
        (0..burst).for_each(|_| gate.pass(NOW, Some(&rate)));
        let now = at(waited);
        let room = gate.room(now, Some(&rate));
        prop_assert_eq!(room == 0, gate.open_time(now, Some(&rate)) > now);
        (0..room).for_each(|_| gate.pass(now, Some(&rate)));
        prop_assert_eq!(gate.room(now, Some(&rate)), 0);
    }
}
