//! Who may be sent now: a delivery passes every gate in front of it at once, or none, and is parked on the one that holds it
//! longest.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::{
    gate::{Gate, GateKey},
    policy::{InFlightMax, Policy},
};

/// What is in flight here behind one gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// How many sends.
    pub sends: u32,
    /// Whether one of them takes so long that whoever waits for their end should wait aside.
    pub is_slow: bool,
}

/// What becomes of a delivery before its gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Passes,
    /// It waits aside until this gate opens.
    Parked(GateKey),
    /// It stays where it is: enough are in flight here for the moment.
    Stays,
}

/// The gates of one turn, with what passes them.
#[derive(Debug)]
pub struct Admission<'a> {
    now: DateTime<Utc>,
    policy: &'a Policy,
    gates: BTreeMap<String, Gate>,
    /// Sends in flight here, by gate; and how many there may be.
    in_flight: HashMap<String, InFlight>,
    in_flight_max: InFlightMax,
    changed: BTreeMap<String, GateKey>,
}

impl<'a> Admission<'a> {
    /// With the gates that there is something to remember of.
    pub fn new(
        now: DateTime<Utc>,
        policy: &'a Policy,
        gates: BTreeMap<String, Gate>,
        in_flight: HashMap<String, InFlight>,
        in_flight_max: InFlightMax,
    ) -> Self {
        Self { now, policy, gates, in_flight, in_flight_max, changed: BTreeMap::new() }
    }

    /// Lets a delivery through, or says what holds it.
    pub fn admit(&mut self, keys: &[GateKey]) -> Verdict {
        let holds = |gates: &Self, key: &GateKey| {
            let is_slow = gates.in_flight.get(&key.name).is_some_and(|in_flight| in_flight.is_slow);
            gates.room_anywhere(key) == 0 || (is_slow && gates.room(key) == 0)
        };
        if let Some(held) = self.holding(keys, holds) {
            return Verdict::Parked(held);
        }
        if keys.iter().any(|key| self.room(key) == 0) {
            return Verdict::Stays;
        }
        for key in keys {
            self.pass(key);
        }
        Verdict::Passes
    }

    /// The gate that would hold a delivery whoever sent it, if one would; somebody waits for it from now on.
    pub fn hold(&mut self, keys: &[GateKey]) -> Option<GateKey> {
        self.holding(keys, |gates, key| gates.room_anywhere(key) == 0)
    }

    fn holding(&mut self, keys: &[GateKey], holds: impl Fn(&Self, &GateKey) -> bool) -> Option<GateKey> {
        let held = keys.iter().filter(|key| holds(self, key)).max_by_key(|key| self.open_time(key))?;
        let gate = self.gates.entry(held.name.clone()).or_default();
        if !gate.waiting {
            gate.waiting = true;
            self.changed.insert(held.name.clone(), held.clone());
        }
        Some(held.clone())
    }

    /// How many may pass a gate now, sent by anybody.
    fn room_anywhere(&self, key: &GateKey) -> u32 {
        match (self.gates.get(&key.name), self.policy.rate(key)) {
            (None, None) => u32::MAX,
            (None, rate) => Gate::default().room(self.now, rate),
            (Some(gate), rate) => gate.room(self.now, rate),
        }
    }

    /// How many may pass a gate now, sent from here.
    pub fn room(&self, key: &GateKey) -> u32 {
        let by_gate = self.room_anywhere(key);
        let is_failing = self.gates.get(&key.name).is_some_and(|gate| gate.failure_count > 0);
        let max = self.in_flight_max;
        let most = if is_failing { max.before_failing(key.scope) } else { max.before(key.scope) };
        let in_flight = self.in_flight.get(&key.name).copied().unwrap_or_default();
        by_gate.min(most.saturating_sub(in_flight.sends))
    }

    fn open_time(&self, key: &GateKey) -> DateTime<Utc> {
        self.gates.get(&key.name).map_or(self.now, |gate| gate.open_time(self.now, self.policy.rate(key)))
    }

    fn pass(&mut self, key: &GateKey) {
        let in_flight = self.in_flight.entry(key.name.clone()).or_default();
        in_flight.sends = in_flight.sends.saturating_add(1);
        let rate = self.policy.rate(key);
        let remembered = self.gates.contains_key(&key.name);
        if rate.is_none() && !remembered {
            return;
        }
        let gate = self.gates.entry(key.name.clone()).or_default();
        let before = gate.clone();
        gate.pass(self.now, rate);
        if *gate != before {
            self.changed.insert(key.name.clone(), key.clone());
        }
    }

    /// Whoever waits for this gate was looked at: the others that are open come before it next time.
    pub fn looked_at(&mut self, key: GateKey) {
        if self.gates.contains_key(&key.name) {
            self.changed.insert(key.name.clone(), key);
        }
    }

    /// The gates that are to be remembered differently now, with when each opens.
    pub fn changes(&self) -> impl Iterator<Item = (&str, &Gate, DateTime<Utc>)> {
        self.changed.values().filter_map(|key| {
            let gate = self.gates.get(&key.name)?;
            Some((key.name.as_str(), gate, gate.open_time(self.now, self.policy.rate(key))))
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        channel::Channel,
        gate::{Health, keys},
    };

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn at(ms: i64) -> DateTime<Utc> {
        NOW + TimeDelta::milliseconds(ms)
    }

    fn admission(policy: &Policy, now: DateTime<Utc>, gates: BTreeMap<String, Gate>) -> Admission<'_> {
        Admission::new(now, policy, gates, HashMap::new(), InFlightMax::same(4))
    }

    fn parked(verdict: Verdict) -> GateKey {
        match verdict {
            Verdict::Parked(key) => key,
            other => panic!("{other:?}"),
        }
    }

    fn roomy(policy: &Policy, now: DateTime<Utc>, gates: BTreeMap<String, Gate>) -> Admission<'_> {
        Admission::new(now, policy, gates, HashMap::new(), InFlightMax::same(1000))
    }

    #[test]
    fn nothing_is_remembered_where_there_is_no_limit() {
        let policy = Policy::builtin();
        let mut admission = admission(&policy, NOW, BTreeMap::new());
        assert_eq!(admission.admit(&keys(Channel::Log, "", "")), Verdict::Passes);
        assert_eq!(admission.admit(&keys(Channel::Webhook, "http://a/b", "d")), Verdict::Passes);
        assert_eq!(admission.changes().count(), 0);
    }

    #[test]
    fn asking_which_gate_holds_lets_nothing_through() {
        let policy = Policy::builtin();
        let mut admission = roomy(&policy, NOW, BTreeMap::new());
        let slack = keys(Channel::Slack, "http://slack/x", "d");
        (0..9).for_each(|_| assert_eq!(admission.hold(&slack), None));
        (0..5).for_each(|_| assert_eq!(admission.admit(&slack), Verdict::Passes));
        let held = admission.hold(&slack).expect("no room");
        assert_eq!((held.name.as_str(), admission.admit(&slack)), ("recipient/slack/d", Verdict::Parked(held.clone())));
        assert!(admission.changes().all(|(_, gate, _)| gate.waiting));
        // That this instance has enough for a domain is no reason to put more aside.
        let slow = keys(Channel::Webhook, "http://slow:80/x", "d");
        let mut admission = self::admission(&policy, NOW, BTreeMap::new());
        (0..4).for_each(|_| assert_eq!(admission.admit(&slow), Verdict::Passes));
        assert_eq!((admission.hold(&slow), admission.admit(&slow)), (None, Verdict::Stays));
    }

    #[test]
    fn a_domain_takes_only_its_share_of_the_workers() {
        let policy = Policy::builtin();
        let mut admission = admission(&policy, NOW, BTreeMap::new());
        let slow = keys(Channel::Webhook, "http://slow:80/x", "d");
        for _ in 0..4 {
            assert_eq!(admission.admit(&slow), Verdict::Passes);
        }
        assert_eq!(admission.admit(&slow), Verdict::Stays, "they may end soon");
        let slow_now = [("domain/webhook/slow:80".to_owned(), InFlight { sends: 4, is_slow: true })].into();
        let mut admission = Admission::new(NOW, &policy, BTreeMap::new(), slow_now, InFlightMax::same(4));
        let held = parked(admission.admit(&slow));
        assert_eq!(held.name, "domain/webhook/slow:80");
        assert_eq!(admission.admit(&keys(Channel::Webhook, "http://fast/x", "e")), Verdict::Passes, "the others pass");
        let (name, gate, open) = admission.changes().next().expect("a change");
        assert_eq!((name, gate.waiting, open), (held.name.as_str(), true, NOW));
    }

    #[test]
    fn a_provider_takes_only_its_share_too_and_less_while_it_fails() {
        let policy = Policy::builtin();
        let to = |number: i32| keys(Channel::Telegram, "1", &number.to_string());
        let passed = |gates| {
            let mut admission = admission(&policy, NOW, gates);
            (0..9).filter(|number| admission.admit(&to(*number)) == Verdict::Passes).count()
        };
        let mut failing = Gate::default();
        failing.heard(NOW, Health::Failing, "TIMEOUT", policy.breaker());
        assert_eq!(passed(BTreeMap::new()), 4);
        assert_eq!(passed([("provider/telegram".to_owned(), failing)].into()), 1);
    }

    #[test]
    fn whoever_is_held_takes_nothing_from_the_gates_that_would_let_it_through() {
        let policy = Policy::builtin();
        let mut admission = roomy(&policy, NOW, BTreeMap::new());
        let one = keys(Channel::Telegram, "1", "one");
        let passed = (0..20).filter(|_| admission.admit(&one) == Verdict::Passes).count();
        assert_eq!(passed, 5, "the recipient's burst");
        let others = (0..40)
            .filter(|number| admission.admit(&keys(Channel::Telegram, "x", &number.to_string())) == Verdict::Passes);
        assert_eq!(others.count(), 5, "the token's burst less those five");
    }

    #[test]
    fn a_paused_channel_holds_all_of_it_and_a_closed_provider_lets_one_probe_through() {
        let policy = Policy::builtin();
        let paused = Gate { closed_until: at(1_000_000), ..Gate::default() };
        let mut admission_paused = admission(&policy, NOW, [("channel/log".to_owned(), paused)].into());
        let held = parked(admission_paused.admit(&keys(Channel::Log, "", "")));
        assert_eq!(held.name, "channel/log");

        let mut tripped = Gate::default();
        tripped.heard(NOW, Health::Refusing, "TELEGRAM_TOKEN_REFUSED", policy.breaker());
        let gates = || [("provider/telegram".to_owned(), tripped.clone())].into();
        let to = |number: i32| keys(Channel::Telegram, "1", &number.to_string());
        assert!(admission(&policy, at(4_999), gates()).admit(&to(1)) != Verdict::Passes);
        let mut later = admission(&policy, at(5_000), gates());
        assert_eq!((later.admit(&to(1)) == Verdict::Passes, later.admit(&to(2)) == Verdict::Passes), (true, false));
    }

    proptest! {
        /// However arrivals fall, no window of any length sees more than its limit.
        #[test]
        fn a_limit_holds_in_every_window(gaps in prop::collection::vec(0_i64..700, 1..200)) {
            let policy = Policy::builtin();
            let to = keys(Channel::Telegram, "1", "one");
            let (mut gates, mut now, mut sent) = (BTreeMap::new(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                let mut admission = roomy(&policy, at(now), gates);
                if admission.admit(&to) == Verdict::Passes {
                    sent.push(now);
                }
                gates = admission.gates;
            }
            for (place, start) in sent.iter().enumerate() {
                for (count, end) in (1..).zip(&sent[place..]) {
                    prop_assert!(count <= 5 + (end - start) / 1000, "{count} from {start} to {end}");
                }
            }
        }

        /// A delivery that waits for the time that its gate names passes then.
        #[test]
        fn the_open_time_is_true(used in 1_usize..12) {
            let policy = Policy::builtin();
            let to = keys(Channel::Telegram, "1", "one");
            let mut first = roomy(&policy, NOW, BTreeMap::new());
            let passed = (0..used).filter(|_| first.admit(&to) == Verdict::Passes).count();
            prop_assert_eq!(passed, used.min(5));
            let recipient = to.last().expect("a key");
            let open = first.open_time(recipient);
            let mut then = roomy(&policy, open.max(NOW), first.gates.clone());
            prop_assert!(then.admit(&to) == Verdict::Passes);
            if used >= 5 {
                let mut before = roomy(&policy, open - TimeDelta::milliseconds(1), first.gates);
                prop_assert!(before.admit(&to) != Verdict::Passes);
            }
        }
    }
}
