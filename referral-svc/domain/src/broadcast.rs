//! Broadcasts: what an operator tells whom, and how a broadcast goes forward step by step.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    id::{BroadcastId, PartnerId},
    partner::Contact,
    xp,
};

/// How long a broadcast is worth sending, unless its operator says otherwise.
const LIFETIME: TimeDelta = TimeDelta::days(7);

/// How far ahead an operator may set its end.
const LIFETIME_MAX: TimeDelta = TimeDelta::days(90);

/// Recipients of one step at most: as many as one event may have requests.
const STEP_MAX: i32 = 100;

/// Steps a second, where the pace allows more than one recipient each.
const STEPS_PER_SECOND: i32 = 10;

/// How far behind its pace a broadcast may catch up: beyond that, it was held up and goes on at its pace.
const CATCH_UP: TimeDelta = TimeDelta::milliseconds(200);

/// Which partners are meant; None matches any.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The first part of a language tag, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether PRO is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pro: Option<bool>,
    /// This level or higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_level: Option<i32>,
    /// Stands above, nine levels at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ancestor_id: Option<PartnerId>,
    /// Has a contact on this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Registered at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_after: Option<DateTime<Utc>>,
    /// Registered before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_before: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether it matches every partner.
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    /// The XP that `min_level` asks for.
    pub fn min_xp(&self) -> Option<i64> {
        self.min_level.map(xp::xp_at_level)
    }
}

/// What a broadcast says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The text.
    pub text: String,
    /// An e-mail's subject; empty: none of its own.
    pub subject: String,
    /// Where it leads.
    pub button: Option<Button>,
}

/// A button or link beneath a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Button {
    /// What it says.
    pub label: String,
    /// An absolute http or https URL.
    pub url: String,
}

/// A broadcast that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBroadcast {
    /// To whom.
    pub filter: Filter,
    /// What it says.
    pub message: Message,
    /// When it stops being worth sending; None: after the usual time.
    pub expire_time: Option<DateTime<Utc>>,
    /// At most so many.
    pub recipients_per_second: i32,
    /// How many partners the filter matches.
    pub matched: i64,
    /// Who asks.
    pub caller: String,
    /// The W3C trace context of the call.
    pub traceparent: String,
}

/// A broadcast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broadcast {
    /// Permanent.
    pub broadcast_id: BroadcastId,
    /// What was asked for, with its end decided.
    pub asked: NewBroadcast,
    /// When it stops being worth sending.
    pub expire_time: DateTime<Utc>,
    /// When it was asked for. Who registers later is not meant.
    pub create_time: DateTime<Utc>,
    /// How many partners it was published to.
    pub published: i64,
    /// The last partner that was looked at.
    pub progress: Option<PartnerId>,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a broadcast stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Under way.
    Running {
        /// When it goes on.
        next_step_time: DateTime<Utc>,
    },
    /// Over, for ever.
    Ended {
        /// How.
        ending: Ending,
        /// When.
        end_time: DateTime<Utc>,
    },
}

/// How a broadcast ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everybody was dealt with.
    Done,
    /// An operator stopped it.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Its time was over.
    Expired,
}

/// A stage's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BroadcastState {
    /// Under way.
    Running,
    /// Everybody was dealt with.
    Done,
    /// An operator stopped it.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl BroadcastState {
    /// As the contract and the database have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Done => "DONE",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// Someone to be told, in the language and at the places of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// Whom.
    pub partner_id: PartnerId,
    /// BCP 47 tag.
    pub locale: String,
    /// In order of preference.
    pub contacts: Vec<Contact>,
}

/// What one step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// How many partners it published to.
    pub recipients: u32,
    /// The last partner that it looked at; None: there was none left.
    pub looked_at: Option<PartnerId>,
    /// Whether nobody is left behind that partner.
    pub exhausted: bool,
}

/// When a broadcast of now ends at the latest; None: not at the time that was asked for.
pub fn expire_time(asked: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let limit = |lifetime| now.checked_add_signed(lifetime);
    match asked {
        None => limit(LIFETIME),
        Some(time) => Some(time).filter(|time| now < *time && limit(LIFETIME_MAX).is_some_and(|limit| *time <= limit)),
    }
}

impl Broadcast {
    /// Its stage's name.
    pub fn state(&self) -> BroadcastState {
        match &self.stage {
            Stage::Running { .. } => BroadcastState::Running,
            Stage::Ended { ending: Ending::Done, .. } => BroadcastState::Done,
            Stage::Ended { ending: Ending::Cancelled { .. }, .. } => BroadcastState::Cancelled,
            Stage::Ended { ending: Ending::Expired, .. } => BroadcastState::Expired,
        }
    }

    /// Whether it is too late to go on.
    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.expire_time <= now
    }

    /// How many recipients its next step may have.
    pub fn step_max(&self) -> i32 {
        self.asked.recipients_per_second.checked_div(STEPS_PER_SECOND).unwrap_or(1).clamp(1, STEP_MAX)
    }

    /// The same broadcast, over.
    #[must_use]
    pub fn ended(self, ending: Ending, now: DateTime<Utc>) -> Self {
        Self { stage: Stage::Ended { ending, end_time: now }, ..self }
    }

    /// The same broadcast after a step; one that has ended stays as it is.
    #[must_use]
    pub fn after(self, step: Step, now: DateTime<Utc>) -> Self {
        let Stage::Running { next_step_time } = self.stage else {
            return self;
        };
        let next = Self {
            published: self.published.saturating_add(i64::from(step.recipients)),
            progress: step.looked_at.or(self.progress),
            ..self
        };
        if step.exhausted {
            return next.ended(Ending::Done, now);
        }
        let behind = now.checked_sub_signed(CATCH_UP).unwrap_or(now);
        let next_step_time = next_step_time.max(behind).checked_add_signed(next.time_for(step.recipients));
        Self { stage: Stage::Running { next_step_time: next_step_time.unwrap_or(now) }, ..next }
    }

    /// How long so many recipients take at its pace, rounded up.
    fn time_for(&self, recipients: u32) -> TimeDelta {
        let pace = i64::from(self.asked.recipients_per_second.max(1));
        let micros = i64::from(recipients).saturating_mul(1_000_000).saturating_add(pace.saturating_sub(1));
        TimeDelta::microseconds(micros.checked_div(pace).unwrap_or(micros))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
    }

    fn broadcast(recipients_per_second: i32) -> Broadcast {
        let now = start();
        Broadcast {
            broadcast_id: Uuid::from_u128(1).into(),
            asked: NewBroadcast {
                filter: Filter::default(),
                message: Message { text: "Hello".to_owned(), subject: String::new(), button: None },
                expire_time: None,
                recipients_per_second,
                matched: 0,
                caller: "operator".to_owned(),
                traceparent: String::new(),
            },
            expire_time: now + LIFETIME,
            create_time: now,
            published: 0,
            progress: None,
            stage: Stage::Running { next_step_time: now },
        }
    }

    #[test]
    fn the_end_is_ahead_and_not_too_far() {
        let now = start();
        assert_eq!(expire_time(None, now), Some(now + LIFETIME));
        for ahead in [TimeDelta::microseconds(1), LIFETIME_MAX] {
            assert_eq!(expire_time(Some(now + ahead), now), Some(now + ahead));
        }
        for ahead in [TimeDelta::zero(), -LIFETIME, LIFETIME_MAX + TimeDelta::microseconds(1)] {
            assert_eq!(expire_time(Some(now + ahead), now), None, "{ahead}");
        }
    }

    #[test]
    fn steps_are_small_where_the_pace_is() {
        for (pace, recipients) in [(1, 1), (19, 1), (20, 2), (500, 50), (1000, 100), (10_000, 100)] {
            assert_eq!(broadcast(pace).step_max(), recipients, "{pace} a second");
        }
    }

    #[test]
    fn an_empty_filter_is_everybody_and_survives_its_stored_form() {
        let stored = |filter: &Filter| serde_json::to_value(filter).expect("JSON");
        assert_eq!(stored(&Filter::default()), serde_json::json!({}));
        let filter = Filter { min_level: Some(3), registered_after: Some(start()), ..Filter::default() };
        assert!(Filter::default().is_everybody() && !filter.is_everybody());
        assert_eq!(serde_json::from_value::<Filter>(stored(&filter)).expect("a filter"), filter);
        assert_eq!(filter.min_xp(), Some(300));
    }

    proptest! {
        /// However long steps take and whenever they come, no more are published than the pace allows, but for the first
        /// step and what may be caught up.
        #[test]
        fn the_pace_holds(pace in 1..=10_000_i32, delays in proptest::collection::vec(0..500_i64, 1..200)) {
            let mut broadcast = broadcast(pace);
            let (mut now, mut last) = (start(), 0);
            for delay in delays {
                now += TimeDelta::milliseconds(delay);
                let Stage::Running { next_step_time } = broadcast.stage else { panic!("it has ended") };
                if next_step_time > now {
                    continue;
                }
                last = broadcast.step_max();
                let step = Step {
                    recipients: last.unsigned_abs(),
                    looked_at: Some(Uuid::from_u128(2).into()),
                    exhausted: false,
                };
                broadcast = broadcast.after(step, now);
                let elapsed = (now - start() + CATCH_UP).num_milliseconds();
                prop_assert!((broadcast.published - i64::from(last)) * 1000 <= i64::from(pace) * elapsed);
            }
            prop_assert!(last > 0);
        }

        #[test]
        fn an_end_is_for_ever(recipients in 0..=100_u32) {
            let done = broadcast(1).after(Step { recipients, looked_at: None, exhausted: true }, start());
            prop_assert_eq!((done.state(), done.published), (BroadcastState::Done, i64::from(recipients)));
            let more = Step { recipients: 1, looked_at: None, exhausted: false };
            prop_assert_eq!(done.clone().after(more, start()), done);
        }
    }
}
