//! The state machine, transition by transition.

use std::sync::LazyLock;

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::*;
use crate::preference::{Mute, QuietHours};

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

static CONTACTS: LazyLock<Vec<Contact>> = LazyLock::new(|| {
    ["telegram", "webhook"].map(|channel| Contact { channel: channel.to_owned(), address: "a".to_owned() }).into()
});
static ON: LazyLock<Channels> = LazyLock::new(|| Channels::from_iter([Channel::Telegram, Channel::Webhook]));
static OFF: LazyLock<Channels> = LazyLock::new(Channels::default);
static ANYTHING: LazyLock<Preferences> = LazyLock::new(Preferences::default);
static RETRY: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);

fn standing(place: i32, tries_used: u32) -> Standing<'static> {
    Standing {
        kind: Some(Kind::LevelUp),
        channel: Some(if place == 1 { Channel::Telegram } else { Channel::Webhook }),
        place,
        tries_used,
        attempted: true,
        contacts: &CONTACTS,
        create_time: NOW - TimeDelta::days(1),
        expire_time: NOW + TimeDelta::days(7),
        preferences: &ANYTHING,
        channels: &ON,
        retry: &RETRY,
    }
}

fn after(class: OutcomeClass, place: i32, tries_used: u32) -> Step {
    after_try(NOW, &Outcome::new(class, "WHY"), &standing(place, tries_used), 0)
}

fn before(standing: &Standing<'_>) -> Option<Step> {
    before_try(NOW, standing, None)
}

fn muting(kind: Option<Kind>, channel: Option<Channel>) -> Preferences {
    Preferences { mutes: vec![Mute { kind, channel }], quiet_hours: None }
}

#[test]
fn delivered_is_delivered() {
    assert_eq!(after(OutcomeClass::Delivered, 1, 1), Step::Delivered);
}

#[test]
fn transient_and_ambiguous_are_tried_again() {
    for class in [OutcomeClass::Transient, OutcomeClass::Ambiguous] {
        assert_eq!(after(class, 1, 1), Step::Retry(NOW + TimeDelta::seconds(1)));
        assert_eq!(after(class, 1, 2), Step::Retry(NOW + TimeDelta::seconds(4)));
    }
}

#[test]
fn what_our_set_up_failed_at_waits_for_its_gate() {
    for tries_used in [1, 8] {
        assert_eq!(after(OutcomeClass::Configuration, 1, tries_used), Step::Retry(NOW + TimeDelta::seconds(1)));
    }
}

#[test]
fn what_this_service_alone_failed_at_ends_with_expiry_only() {
    for class in OutcomeClass::ALL {
        assert_eq!(Outcome::new(*class, "WHY").counts(), *class != OutcomeClass::Configuration);
    }
    for tries_used in [1, 8, 9, 1000] {
        assert!(matches!(after(OutcomeClass::Configuration, 1, tries_used), Step::Retry(_)));
        let stopped = Outcome::new(OutcomeClass::Ambiguous, STOPPED);
        assert!(!stopped.counts());
        assert_eq!(after_try(NOW, &stopped, &standing(1, tries_used), 0), Step::Retry(NOW));
    }
}

#[test]
fn address_and_content_go_to_the_next_channel_then_die() {
    for class in [OutcomeClass::Address, OutcomeClass::Content] {
        assert!(
            matches!(after(class, 1, 1), Step::Fallback(reason, choice) if reason == "WHY" && choice.channel == Channel::Webhook)
        );
        assert_eq!(after(class, 2, 1), Step::Dead("WHY".into()));
    }
}

#[test]
fn an_address_that_has_moved_is_tried_again_at_once_but_not_for_ever() {
    let moved = Outcome { moved_to: Some("-100".to_owned()), ..Outcome::new(OutcomeClass::Address, "MOVED") };
    assert_eq!(after_try(NOW, &moved, &standing(1, 1), 1000), Step::Retry(NOW));
    assert!(matches!(after_try(NOW, &moved, &standing(1, 8), 0), Step::Fallback(..)));
    assert!(!moved.marks_address());
}

#[test]
fn used_up_tries_go_to_the_next_channel_then_die() {
    assert!(matches!(after(OutcomeClass::Transient, 1, 8), Step::Fallback(reason, _) if reason == RETRIES_EXHAUSTED));
    assert_eq!(after(OutcomeClass::Transient, 2, 8), Step::Dead(RETRIES_EXHAUSTED.into()));
}

#[test]
fn a_retry_is_never_later_than_the_expiry() {
    let standing = Standing { expire_time: NOW + TimeDelta::seconds(3), ..standing(1, 5) };
    let outcome = Outcome::new(OutcomeClass::Transient, "WHY");
    assert_eq!(after_try(NOW, &outcome, &standing, 0), Step::Retry(standing.expire_time));
}

#[test]
fn before_a_try_expiry_comes_first() {
    let late = Standing { expire_time: NOW, channels: &OFF, preferences: &muting(None, None), ..standing(1, 8) };
    assert_eq!(before_try(NOW, &late, Some("MARKED")), Some(Step::Expired));
    assert_eq!(before(&standing(1, 7)), None);
    assert_eq!(before(&standing(2, 8)), Some(Step::Dead(RETRIES_EXHAUSTED.into())));
}

#[test]
fn a_channel_switched_off_meanwhile_is_passed_over() {
    let untried = Standing { attempted: false, channels: &OFF, ..standing(1, 0) };
    assert!(matches!(
        before(&untried),
        Some(Step::Fallback(reason, choice)) if reason == CHANNEL_OFF && choice.channel == Channel::Log
    ));
    assert_eq!(before(&Standing { attempted: true, ..untried }), Some(Step::Dead(CHANNEL_OFF.into())));
    let newer = Standing { channel: None, ..standing(1, 0) };
    assert!(matches!(before(&newer), Some(Step::Fallback(_, choice)) if choice.channel == Channel::Webhook));
}

#[test]
fn what_is_off_here_but_was_on_elsewhere_is_left_to_others_for_a_while() {
    let fresh = Standing { create_time: NOW - TimeDelta::seconds(119), channels: &OFF, ..standing(1, 0) };
    assert_eq!(before(&fresh), Some(Step::Retry(NOW + TimeDelta::seconds(2))));
    let older = Standing { create_time: NOW - TimeDelta::minutes(2), ..fresh };
    assert!(matches!(before(&older), Some(Step::Dead(_))));
    assert!(!Outcome::new(OutcomeClass::Transient, KIND_UNKNOWN).counts());
}

#[test]
fn log_is_no_way_out_for_whoever_has_a_channel_that_is_on() {
    let telegram = Channels::from_iter([Channel::Telegram]);
    let last = Standing { attempted: false, channels: &telegram, ..standing(2, 0) };
    assert_eq!(before(&last), Some(Step::Dead(CHANNEL_OFF.into())));
}

#[test]
fn a_marked_address_is_not_tried() {
    let untried = Standing { attempted: false, ..standing(1, 0) };
    assert!(
        matches!(before_try(NOW, &untried, Some("HTTP_410")), Some(Step::Fallback(reason, choice)) if reason == "HTTP_410" && choice.place == 2)
    );
    let last = Standing { attempted: false, ..standing(2, 0) };
    assert_eq!(before_try(NOW, &last, Some("HTTP_410")), Some(Step::Dead("HTTP_410".into())));
}

#[test]
fn what_is_not_wanted_is_not_sent() {
    let level_up = muting(Some(Kind::LevelUp), None);
    let untried = Standing { attempted: false, preferences: &level_up, ..standing(1, 0) };
    assert_eq!(before(&untried), Some(Step::Suppressed(MUTED)));
    assert_eq!(before(&Standing { kind: Some(Kind::ProWelcome), ..untried }), None);
    assert_eq!(before(&Standing { kind: None, ..untried }), None, "a kind of a newer version can't be muted by name");

    let telegram = muting(None, Some(Channel::Telegram));
    let untried = Standing { preferences: &telegram, ..untried };
    assert!(matches!(before(&untried), Some(Step::PassOver(MUTED, choice)) if choice.channel == Channel::Webhook));
    assert_eq!(before(&Standing { kind: Some(Kind::PayoutState), ..untried }), None, "money notices always come");

    let webhook = muting(None, Some(Channel::Webhook));
    let failed = Standing { preferences: &webhook, ..standing(1, 8) };
    assert_eq!(before(&failed), Some(Step::Dead(RETRIES_EXHAUSTED.into())), "no fallback to what is not wanted");
}

#[test]
fn quiet_hours_delay_what_is_not_about_money() {
    let quiet_hours = Some(QuietHours { start_minute: 0, end_minute: 60, time_zone: Tz::UTC });
    let preferences = Preferences { quiet_hours, ..Preferences::default() };
    let quiet = Standing { preferences: &preferences, ..standing(1, 0) };
    let end = NOW + TimeDelta::hours(1);
    assert_eq!(before(&quiet), Some(Step::Retry(end)));
    assert_eq!(before_try(end, &quiet, None), None);
    assert_eq!(before(&Standing { kind: Some(Kind::CommissionReceived), ..quiet }), None);
    assert_eq!(before(&Standing { channel: Some(Channel::Log), ..quiet }), None);
    let short = Standing { expire_time: NOW + TimeDelta::minutes(5), ..quiet };
    assert_eq!(before(&short), Some(Step::Retry(short.expire_time)));
}

#[test]
fn what_an_attempt_tells_of_provider_and_address() {
    use Health::{Alive, Failing, Refusing, Unknown};
    use OutcomeClass::{Address, Ambiguous, Configuration, Content, Delivered, Transient};
    for (class, reason, health, marks) in [
        (Delivered, "", Alive, false),
        (Transient, "HTTP_503", Failing, false),
        (Ambiguous, "TIMEOUT", Failing, false),
        (Ambiguous, LEASE_LOST, Unknown, false),
        (Transient, "TELEGRAM_FLOOD_CONTROL", Alive, false),
        (Configuration, "TELEGRAM_TOKEN_REFUSED", Refusing, false),
        (Content, "HTTP_400", Alive, false),
        (Address, "HTTP_410", Alive, true),
        (Address, "HTTP_404", Alive, false),
        (Address, "HTTP_301", Alive, false),
        (Address, "TARGET_PRIVATE", Alive, false),
        (Address, "TELEGRAM_BLOCKED", Alive, true),
    ] {
        let outcome = Outcome::new(class, reason);
        assert_eq!((outcome.health(), outcome.marks_address()), (health, marks), "{reason}");
    }
}
