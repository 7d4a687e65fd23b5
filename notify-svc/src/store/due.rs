//! A delivery that is due, as everything between its claim and its settlement knows it.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use notify_domain::{
    channel::Channel,
    delivery::Outcome,
    gate::{GateKey, keys},
    preference::Preferences,
    state::DeliveryState,
};
use sha2::{Digest, Sha256};
use tracing::Span;
use uuid::Uuid;

use super::{feed::Change, preferences};

/// A delivery as a worker holds it: still its own only while the token matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, QueryableByName)]
pub(crate) struct Held {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) notification_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub(crate) position: i32,
    /// The attempt's number.
    #[diesel(sql_type = Integer)]
    pub(crate) token: i32,
}

/// A delivery that is due, with all that deciding about it and sending it takes.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct Due {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) notification_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub(crate) position: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) contact_place: i32,
    #[diesel(sql_type = SmallInt)]
    pub(crate) lane: i16,
    #[diesel(sql_type = Text)]
    pub(crate) channel: String,
    /// Where to: the contact's address, or where that has moved.
    #[diesel(sql_type = Text)]
    pub(crate) address: String,
    #[diesel(sql_type = Text)]
    pub(crate) state: String,
    /// Attempts begun; once claimed, the running one's number and the fencing token.
    #[diesel(sql_type = Integer)]
    pub(crate) attempt_count: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) tries_used: i32,
    /// Whether anything was ever sent, on any channel.
    #[diesel(sql_type = Bool)]
    pub(crate) attempted: bool,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) parked_on: Option<String>,
    /// Why nothing is sent to the address any more, and since when.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) mark_reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) mark_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    pub(crate) recipient_id: String,
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub(crate) mutes: Option<serde_json::Value>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(crate) quiet_start: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(crate) quiet_end: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) time_zone: Option<String>,
    #[diesel(sql_type = Text)]
    pub(crate) kind: String,
    #[diesel(sql_type = Text)]
    pub(crate) locale: String,
    #[diesel(sql_type = Jsonb)]
    pub(crate) arguments: serde_json::Value,
    #[diesel(sql_type = Jsonb)]
    pub(crate) contacts: serde_json::Value,
    #[diesel(sql_type = Text)]
    pub(crate) trace_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) traceparent: String,
    #[diesel(sql_type = Text)]
    pub(crate) baggage: String,
    /// When the fact was made.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) occur_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) create_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) expire_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) now: DateTime<Utc>,
}

impl Due {
    /// The gates in front of it.
    pub(crate) fn gates(&self) -> Vec<GateKey> {
        let Some(channel) = Channel::parse(&self.channel) else {
            return Vec::new();
        };
        let digest: String = Sha256::digest(&self.address)[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        keys(channel, &self.address, &digest)
    }

    /// What its worker holds.
    pub(crate) fn held(&self) -> Held {
        Held { notification_id: self.notification_id, position: self.position, token: self.attempt_count }
    }

    /// What watchers hear of a change of its state.
    pub(super) fn change(&self, now: DateTime<Utc>, state: DeliveryState, reason: &str) -> Change {
        Change {
            notification_id: self.notification_id,
            recipient_id: self.recipient_id.clone(),
            kind: self.kind.clone(),
            channel: self.channel.clone(),
            state: state.as_str().to_owned(),
            reason: reason.to_owned(),
            attempt: self.attempt_count,
            trace_id: self.trace_id.clone(),
            change_time: now,
        }
    }

    /// What the recipient wants.
    pub(crate) fn preferences(&self) -> Preferences {
        preferences::of_columns(self.mutes.as_ref(), self.quiet_start, self.quiet_end, self.time_zone.as_deref())
    }
}

/// A try that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) delivery: Due,
    pub(crate) outcome: Outcome,
    /// The attempt's, which has ended: what becomes of the delivery is logged in it.
    pub(crate) span: Span,
}
