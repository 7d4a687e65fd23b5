//! What is to become of a delivery: the stored row in the domain's terms, and the domain's verdict.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use notify_domain::{
    channel::{Channel, Channels},
    delivery::{Standing, Step, after_try, before_try},
    event::Contact,
    kind::Kind,
    policy::Policy,
};

use crate::store::due::{Due, Finished};

/// Decides.
pub(super) struct Judge {
    pub(super) policy: Arc<Policy>,
    /// Those that are on.
    pub(super) channels: Channels,
}

impl Judge {
    /// Before a try; `None` means send.
    pub(super) fn before(&self, due: &Due) -> Option<Step> {
        self.stand(due, due.attempted, |standing| before_try(due.now, &standing, self.mark(due)))
    }

    /// After a try.
    pub(super) fn after(&self, now: DateTime<Utc>, finished: &Finished) -> Step {
        let jitter = rand::random_range(0..=1000);
        self.stand(&finished.delivery, true, |standing| after_try(now, &finished.outcome, &standing, jitter))
    }

    /// Why nothing is sent to the address; a mark that has grown old is put to the test.
    fn mark<'a>(&self, due: &'a Due) -> Option<&'a str> {
        let fresh = due.mark_time.is_some_and(|time| due.now.signed_duration_since(time) < self.policy.address_mark());
        due.mark_reason.as_deref().filter(|_| fresh)
    }

    fn stand<T>(&self, due: &Due, attempted: bool, verdict: impl FnOnce(Standing<'_>) -> T) -> T {
        let kind = Kind::parse(&due.kind);
        let contacts: Vec<Contact> = serde_json::from_value(due.contacts.clone()).unwrap_or_default();
        verdict(Standing {
            kind,
            channel: Channel::parse(&due.channel),
            place: due.contact_place,
            tries_used: u32::try_from(due.tries_used).unwrap_or_default(),
            attempted,
            contacts: &contacts,
            create_time: due.create_time,
            expire_time: due.expire_time,
            preferences: &due.preferences(),
            channels: &self.channels,
            retry: &self.policy.terms(kind).retry,
        })
    }
}
