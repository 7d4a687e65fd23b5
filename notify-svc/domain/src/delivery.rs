//! The state machine of a delivery: what follows from a claim, and from an attempt's outcome.

use std::{borrow::Cow, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    channel::{self, Channels, Choice},
    event::Contact,
    retry::RetryPolicy,
    state::OutcomeClass,
};

/// Why a delivery failed whose tries are used up.
pub const RETRIES_EXHAUSTED: &str = "RETRIES_EXHAUSTED";
/// Why a delivery failed whose channel was switched off while it waited.
pub const CHANNEL_OFF: &str = "CHANNEL_OFF";
/// How an attempt ended whose worker let its lease run out.
pub const LEASE_LOST: &str = "LEASE_LOST";
/// How an attempt ended that the service itself cut short, to stop.
pub const STOPPED: &str = "STOPPED";
/// A wrong set-up is looked at by people: no hurry.
const CONFIGURATION_FLOOR: Duration = Duration::from_secs(60);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it means.
    pub class: OutcomeClass,
    /// A stable UPPER_SNAKE reason; empty when delivered.
    pub reason: Cow<'static, str>,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
    /// How long the server asked to send nothing at all, to anybody.
    pub pause: Option<Duration>,
    /// Where the address has moved.
    pub moved_to: Option<String>,
}

impl Outcome {
    /// The channel took it.
    pub const DELIVERED: Self = Self {
        class: OutcomeClass::Delivered,
        reason: Cow::Borrowed(""),
        retry_after: None,
        pause: None,
        moved_to: None,
    };

    /// Anything else.
    pub fn new(class: OutcomeClass, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { class, reason: reason.into(), ..Self::DELIVERED }
    }

    /// The same, with the wait that the server asked for.
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// Whether the try counts against the limit. Those that failed by this service alone don't: only expiry ends them.
    pub fn counts(&self) -> bool {
        self.class != OutcomeClass::Configuration && self.reason != STOPPED
    }
}

/// What a decision about a delivery needs to know of it.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Its place in the recipient's order.
    pub position: i32,
    /// Attempts over this channel, the running one included.
    pub attempts: u32,
    /// Those of them that count, the running one included.
    pub tries_used: u32,
    /// Whether anything was ever sent to the recipient on any channel.
    pub attempted: bool,
    /// The recipient's contacts.
    pub contacts: &'a [Contact],
    /// When the notification loses its worth.
    pub expire_time: DateTime<Utc>,
}

/// What becomes of a delivery that no worker holds any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delivered, and so is the notification.
    Delivered,
    /// Tried again then.
    Retry(DateTime<Utc>),
    /// Not sent any more, and the notification neither.
    Expired,
    /// The channel gave up; this one is tried next.
    Fallback(Cow<'static, str>, Choice),
    /// The channel gave up and was the last: dead letter.
    Dead(Cow<'static, str>),
}

/// Before a try: `None` means send. `tries_used` does not count the try that is about to begin.
pub fn before_try(
    now: DateTime<Utc>,
    standing: &Standing<'_>,
    policy: &RetryPolicy,
    channels: &Channels,
    is_on: bool,
) -> Option<Step> {
    if standing.expire_time <= now {
        return Some(Step::Expired);
    }
    if !is_on {
        return Some(give_up(Cow::Borrowed(CHANNEL_OFF), standing, channels));
    }
    (standing.tries_used >= policy.tries_max).then(|| give_up(Cow::Borrowed(RETRIES_EXHAUSTED), standing, channels))
}

/// After a try.
pub fn after_try(
    now: DateTime<Utc>,
    outcome: &Outcome,
    standing: &Standing<'_>,
    policy: &RetryPolicy,
    channels: &Channels,
    jitter: u32,
) -> Step {
    let next = match outcome.class {
        OutcomeClass::Delivered => return Step::Delivered,
        OutcomeClass::Address | OutcomeClass::Content => {
            return give_up(outcome.reason.clone(), standing, channels);
        }
        OutcomeClass::Ambiguous if outcome.reason == STOPPED => Some(now),
        OutcomeClass::Transient | OutcomeClass::Ambiguous => {
            policy.next(now, standing.tries_used, outcome.retry_after, jitter)
        }
        OutcomeClass::Configuration => {
            let floor = outcome.retry_after.unwrap_or_default().max(CONFIGURATION_FLOOR);
            Some(policy.after(now, standing.attempts, Some(floor), jitter))
        }
    };
    match next {
        // Not later than its expiry, so that it is settled as expired in time.
        Some(at) => Step::Retry(at.min(standing.expire_time.max(now))),
        None => give_up(Cow::Borrowed(RETRIES_EXHAUSTED), standing, channels),
    }
}

/// The next channel; `log` only for recipients to whom nothing could even be sent.
fn give_up(reason: Cow<'static, str>, standing: &Standing<'_>, channels: &Channels) -> Step {
    let next = channel::after(standing.contacts, standing.position, channels)
        .or_else(|| (!standing.attempted).then(|| channel::log(standing.contacts)));
    match next {
        Some(choice) => Step::Fallback(reason, choice),
        None => Step::Dead(reason),
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
