//! When to try again: exponential, with jitter upward only, bounded.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// A wait that a server asks for is believed up to here.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How a delivery is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The wait after the first try.
    pub first_delay: Duration,
    /// Each wait is this many times the one before.
    pub factor: u32,
    /// No wait is longer, jitter and a server's wish aside.
    pub delay_max: Duration,
    /// Up to this share of the wait is added, in thousandths.
    pub jitter_permille: u32,
    /// Tries on one channel before it gives up.
    pub tries_max: u32,
}

impl Default for RetryPolicy {
    /// 1 s, 4 s, 16 s, … 1 h, up to 30 % on top: the first retry within 2 s, the second within 10 s.
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            factor: 4,
            delay_max: Duration::from_secs(60 * 60),
            jitter_permille: 300,
            tries_max: 8,
        }
    }
}

impl RetryPolicy {
    /// The wait after try number `tries_used` (from 1), before jitter.
    fn delay(&self, tries_used: u32) -> Duration {
        let growth = self.factor.saturating_pow(tries_used.saturating_sub(1));
        self.first_delay.saturating_mul(growth).min(self.delay_max)
    }

    /// When to try again after try number `tries_used`, or `None` when the tries are used up. `floor` is what the server
    /// asked to wait; `jitter` is random, of 1000, and only ever adds.
    pub fn next(
        &self,
        now: DateTime<Utc>,
        tries_used: u32,
        floor: Option<Duration>,
        jitter: u32,
    ) -> Option<DateTime<Utc>> {
        (tries_used < self.tries_max).then(|| self.after(now, tries_used, floor, jitter))
    }

    /// The same, however many tries there were.
    pub fn after(&self, now: DateTime<Utc>, tries_used: u32, floor: Option<Duration>, jitter: u32) -> DateTime<Utc> {
        let base = self.delay(tries_used).max(floor.unwrap_or_default().min(RETRY_AFTER_MAX));
        let share = self.jitter_permille.saturating_mul(jitter.min(1000)).checked_div(1000).unwrap_or_default();
        let extra = base.saturating_mul(share).checked_div(1000).unwrap_or_default();
        let wait = TimeDelta::from_std(base.saturating_add(extra)).unwrap_or(TimeDelta::MAX);
        now.checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(tries_used: u32, floor: Option<Duration>, jitter: u32) -> Option<Duration> {
        let now = DateTime::UNIX_EPOCH;
        let at = RetryPolicy::default().next(now, tries_used, floor, jitter)?;
        (at - now).to_std().ok()
    }

    #[test]
    fn first_within_two_seconds_second_within_ten() {
        assert!(wait(1, None, 1000).expect("a retry") <= Duration::from_secs(2));
        assert!(wait(2, None, 1000).expect("a retry") <= Duration::from_secs(10));
    }

    #[test]
    fn tries_are_bounded() {
        let max = RetryPolicy::default().tries_max;
        assert!(wait(max - 1, None, 0).is_some());
        assert_eq!(wait(max, None, 0), None);
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_stays_in_bounds(tries in 1_u32..8, jitter in 0_u32..=1000) {
            let policy = RetryPolicy::default();
            let (plain, shaken) = (wait(tries, None, 0).expect("a retry"), wait(tries, None, jitter).expect("a retry"));
            prop_assert!(shaken >= plain);
            prop_assert!(shaken <= policy.delay_max * 13 / 10);
        }

        #[test]
        fn waits_never_shrink(tries in 1_u32..7, jitter in 0_u32..=1000) {
            prop_assert!(wait(tries, None, jitter) <= wait(tries + 1, None, jitter));
        }

        #[test]
        fn what_the_server_asks_is_a_floor(tries in 1_u32..8, seconds in 0_u64..100_000, jitter in 0_u32..=1000) {
            let floor = Duration::from_secs(seconds);
            prop_assert!(wait(tries, Some(floor), jitter).expect("a retry") >= floor.min(RETRY_AFTER_MAX));
        }

        #[test]
        fn nothing_overflows(tries in any::<u32>(), seconds in any::<u64>(), jitter in any::<u32>()) {
            let policy = RetryPolicy { tries_max: u32::MAX, factor: u32::MAX, delay_max: Duration::MAX, ..RetryPolicy::default() };
            let now = DateTime::UNIX_EPOCH;
            if let Some(at) = policy.next(now, tries, Some(Duration::from_secs(seconds)), jitter) {
                prop_assert!(at > now);
            }
        }
    }
}
