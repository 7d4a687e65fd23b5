//! The state machine of a delivery: what follows from a claim, and from an attempt's outcome.

use std::{borrow::Cow, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    channel::{self, Channel, Channels, Choice},
    event::Contact,
    gate::Health,
    kind::Kind,
    preference::Preferences,
    retry::RetryPolicy,
    state::OutcomeClass,
};

/// Why a delivery failed whose tries are used up.
pub const RETRIES_EXHAUSTED: &str = "RETRIES_EXHAUSTED";
/// Why a delivery failed whose channel was switched off while it waited.
pub const CHANNEL_OFF: &str = "CHANNEL_OFF";
/// Why a delivery was passed over that the recipient doesn't want.
pub const MUTED: &str = "MUTED";
/// How an attempt ended whose worker let its lease run out.
pub const LEASE_LOST: &str = "LEASE_LOST";
/// How an attempt ended that the service itself cut short, to stop.
pub const STOPPED: &str = "STOPPED";
/// How an attempt ended at something that only newer versions know: one of them will claim it.
pub const KIND_UNKNOWN: &str = "KIND_UNKNOWN";
/// How an attempt ended in a channel that panicked.
pub const CHANNEL_PANICKED: &str = "CHANNEL_PANICKED";
/// How an attempt ended whose text could not be made.
pub const TEMPLATE_FAILED: &str = "TEMPLATE_FAILED";
/// How long a delivery is left to other instances whose channel is off here, but was on where it was taken in: while a new
/// set-up is rolled out, they differ.
const OFF_GRACE: TimeDelta = TimeDelta::minutes(2);
/// How long until somebody else has surely had a look at it.
const OFF_PAUSE: TimeDelta = TimeDelta::seconds(2);

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
    /// What it tells of the provider, where class and reason don't say it.
    pub told: Option<Health>,
}

impl Outcome {
    /// The channel took it.
    pub const DELIVERED: Self = Self {
        class: OutcomeClass::Delivered,
        reason: Cow::Borrowed(""),
        retry_after: None,
        pause: None,
        moved_to: None,
        told: None,
    };

    /// Anything else.
    pub fn new(class: OutcomeClass, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { class, reason: reason.into(), ..Self::DELIVERED }
    }

    /// The same, with the wait that the server asked for.
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same, with what it tells of the provider.
    pub fn telling(self, health: Health) -> Self {
        Self { told: Some(health), ..self }
    }

    /// Whether the try counts against the limit. Those that failed by this service alone don't: only expiry ends them.
    pub fn counts(&self) -> bool {
        self.class != OutcomeClass::Configuration && self.reason != STOPPED && self.reason != KIND_UNKNOWN
    }

    /// What it tells of the provider.
    pub fn health(&self) -> Health {
        if let Some(told) = self.told {
            return told;
        }
        let reason = self.reason.as_ref();
        match self.class {
            _ if OWN_REASONS.contains(&reason) => Health::Unknown,
            OutcomeClass::Configuration => Health::Refusing,
            OutcomeClass::Transient | OutcomeClass::Ambiguous
                if FAILING_REASONS.contains(&reason) || reason.starts_with("HTTP_5") =>
            {
                Health::Failing
            }
            _ => Health::Alive,
        }
    }

    /// Whether nothing more is to be sent to the address: a path that isn't there just now, or a target that this set-up
    /// forbids, is no reason for that.
    pub fn marks_address(&self) -> bool {
        let passing = |reason: &str| PASSING_REASONS.contains(&reason) || reason.starts_with("HTTP_3");
        self.class == OutcomeClass::Address && self.moved_to.is_none() && !passing(&self.reason)
    }
}

/// Reasons that this service alone brings about.
const OWN_REASONS: [&str; 7] =
    [STOPPED, LEASE_LOST, CHANNEL_OFF, KIND_UNKNOWN, CHANNEL_PANICKED, "TASK_LOST", TEMPLATE_FAILED];
/// Reasons that tell of a provider which is away or can't keep up.
const FAILING_REASONS: [&str; 5] = ["CONNECT_FAILED", "CONNECTION_LOST", "TIMEOUT", "HTTP_408", "HTTP_429"];
/// Why an address can't be used this time.
const PASSING_REASONS: [&str; 4] = ["ADDRESS_MALFORMED", "TARGET_PRIVATE", "HTTP_404", CHANNEL_OFF];

/// What a decision about a delivery needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What the notification is about; `None`: something that only newer versions know.
    pub kind: Option<Kind>,
    /// The channel; `None`: one that only newer versions know.
    pub channel: Option<Channel>,
    /// The contact's place in the recipient's order.
    pub place: i32,
    /// Attempts over this channel that count, the running one included.
    pub tries_used: u32,
    /// Whether anything was ever sent to the recipient on any channel.
    pub attempted: bool,
    /// The recipient's contacts.
    pub contacts: &'a [Contact],
    /// When it was taken in.
    pub create_time: DateTime<Utc>,
    /// When the notification loses its worth.
    pub expire_time: DateTime<Utc>,
    /// What the recipient wants.
    pub preferences: &'a Preferences,
    /// The channels that are on.
    pub channels: &'a Channels,
    /// When to try again.
    pub retry: &'a RetryPolicy,
}

impl Standing<'_> {
    fn is_on(&self, channel: Channel) -> bool {
        self.channels.is_on(channel)
    }

    fn mutes(&self, channel: Channel) -> bool {
        self.kind.is_some_and(|kind| self.preferences.mutes(kind, channel))
    }

    /// The next contact on a channel that is on and wanted.
    fn next(&self) -> Option<Choice> {
        channel::after(self.contacts, self.place, |channel| self.is_on(channel) && !self.mutes(channel))
    }

    /// Quiet hours delay what isn't about money.
    fn quiet_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let disturbs = self.channel != Some(Channel::Log) && !self.kind.is_some_and(Kind::is_money);
        self.preferences.quiet_hours.filter(|_| disturbs).and_then(|quiet| quiet.end_after(now))
    }
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
    /// The recipient doesn't want it there; this one is tried next.
    PassOver(&'static str, Choice),
    /// The channel gave up and was the last: dead letter.
    Dead(Cow<'static, str>),
    /// The recipient doesn't want it anywhere.
    Suppressed(&'static str),
}

/// Before a try: `None` means send. `tries_used` does not count the try that is about to begin; `marked` is why nothing is
/// sent to the address any more.
pub fn before_try(now: DateTime<Utc>, standing: &Standing<'_>, marked: Option<&str>) -> Option<Step> {
    if standing.expire_time <= now {
        return Some(Step::Expired);
    }
    // A channel that only newer versions know is off here.
    let Some(channel) = standing.channel.filter(|channel| standing.is_on(*channel)) else {
        return Some(channel_is_off(now, standing));
    };
    if standing.mutes(channel) {
        return Some(match standing.next() {
            Some(choice) => Step::PassOver(MUTED, choice),
            None => Step::Suppressed(MUTED),
        });
    }
    if let Some(marked) = marked {
        return Some(give_up(Cow::Owned(marked.to_owned()), standing));
    }
    if standing.tries_used >= standing.retry.tries_max {
        return Some(give_up(Cow::Borrowed(RETRIES_EXHAUSTED), standing));
    }
    standing.quiet_until(now).map(|end| Step::Retry(end.min(standing.expire_time)))
}

/// After a try.
pub fn after_try(now: DateTime<Utc>, outcome: &Outcome, standing: &Standing<'_>, jitter: u32) -> Step {
    let next = match outcome.class {
        OutcomeClass::Delivered => return Step::Delivered,
        OutcomeClass::Address if outcome.moved_to.is_some() => {
            (standing.tries_used < standing.retry.tries_max).then_some(now)
        }
        OutcomeClass::Address | OutcomeClass::Content => return give_up(outcome.reason.clone(), standing),
        OutcomeClass::Ambiguous if outcome.reason == STOPPED => Some(now),
        OutcomeClass::Transient | OutcomeClass::Ambiguous => {
            standing.retry.next(now, standing.tries_used, outcome.retry_after, jitter)
        }
        // Its gate is closed now, and lets it through as one of the probes.
        OutcomeClass::Configuration => Some(standing.retry.after(now, 1, outcome.retry_after, jitter)),
    };
    match next {
        // Not later than its expiry, so that it is settled as expired in time.
        Some(at) => Step::Retry(at.min(standing.expire_time.max(now))),
        None => give_up(Cow::Borrowed(RETRIES_EXHAUSTED), standing),
    }
}

fn give_up(reason: Cow<'static, str>, standing: &Standing<'_>) -> Step {
    match standing.next() {
        Some(choice) => Step::Fallback(reason, choice),
        None => Step::Dead(reason),
    }
}

/// `log` is only for recipients without any contact on a channel that is on.
fn channel_is_off(now: DateTime<Utc>, standing: &Standing<'_>) -> Step {
    if now.signed_duration_since(standing.create_time) < OFF_GRACE {
        return Step::Retry(now.checked_add_signed(OFF_PAUSE).unwrap_or(now).min(standing.expire_time));
    }
    let nobody = channel::after(standing.contacts, 0, |channel| standing.is_on(channel)).is_none();
    match give_up(Cow::Borrowed(CHANNEL_OFF), standing) {
        Step::Dead(reason) if nobody && !standing.attempted => Step::Fallback(reason, channel::log(standing.contacts)),
        step => step,
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
