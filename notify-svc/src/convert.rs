//! Between the contract's messages and the domain's values.

use chrono::{DateTime, Utc};
use notify_domain::{
    kind::Kind,
    state::{DeliveryState, NotificationState, OutcomeClass},
};
use p2phub_proto::notify::v1 as wire;
use prost_types::Timestamp;

use crate::store::notifications::{AttemptRow, DeliveryRow, History};

/// What the contract's kinds have in front of the domain's names.
pub(crate) const KIND_PREFIX: &str = "NOTIFICATION_KIND_";

/// A time that PostgreSQL can hold too; `None` for any other.
pub(crate) fn time(at: &Timestamp) -> Option<DateTime<Utc>> {
    let time = DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)?;
    // The contract's range: years 1 to 9999.
    (-62_135_596_800..=253_402_300_799).contains(&time.timestamp()).then_some(time)
}

/// A time as the contract has it.
pub(crate) fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or_default() }
}

/// The contract's state for the domain's.
pub(crate) fn notification_state(state: NotificationState) -> wire::NotificationState {
    match state {
        NotificationState::Queued => wire::NotificationState::Queued,
        NotificationState::Sending => wire::NotificationState::Sending,
        NotificationState::Delivered => wire::NotificationState::Delivered,
        NotificationState::Suppressed => wire::NotificationState::Suppressed,
        NotificationState::Expired => wire::NotificationState::Expired,
        NotificationState::Cancelled => wire::NotificationState::Cancelled,
        NotificationState::Dead => wire::NotificationState::Dead,
    }
}

/// The domain's state for the contract's; `None`: unspecified.
pub(crate) fn state_filter(state: wire::NotificationState) -> Option<NotificationState> {
    NotificationState::ALL.iter().copied().find(|known| notification_state(*known) == state)
}

/// The contract's kind for a stored name.
pub(crate) fn kind(name: &str) -> wire::NotificationKind {
    wire::NotificationKind::from_str_name(&format!("{KIND_PREFIX}{name}")).unwrap_or_default()
}

/// The domain's kind for the contract's; `None`: unspecified.
pub(crate) fn kind_filter(kind: wire::NotificationKind) -> Option<Kind> {
    Kind::parse(kind.as_str_name().strip_prefix(KIND_PREFIX)?)
}

/// The contract's state of a delivery; `None`: one that only newer versions know.
pub(crate) fn delivery_state(state: Option<DeliveryState>) -> wire::DeliveryState {
    match state {
        None => wire::DeliveryState::Unspecified,
        Some(DeliveryState::Queued) => wire::DeliveryState::Queued,
        Some(DeliveryState::Sending) => wire::DeliveryState::Sending,
        Some(DeliveryState::Delivered) => wire::DeliveryState::Delivered,
        Some(DeliveryState::Failed) => wire::DeliveryState::Failed,
        Some(DeliveryState::Expired) => wire::DeliveryState::Expired,
        Some(DeliveryState::Cancelled) => wire::DeliveryState::Cancelled,
        Some(DeliveryState::Suppressed) => wire::DeliveryState::Suppressed,
    }
}

/// A notification as it is shown.
pub(crate) fn notification(history: History) -> wire::Notification {
    let History { notification: row, deliveries } = history;
    let held = deliveries.iter().any(|(delivery, _)| delivery.state == DeliveryState::Sending.as_str());
    let state = NotificationState::parse(&row.state).map(|stored| match stored {
        NotificationState::Queued if held => NotificationState::Sending,
        stored => stored,
    });
    wire::Notification {
        notification_id: row.notification_id.to_string(),
        recipient_id: row.recipient_id,
        kind: kind(&row.kind).into(),
        state: state.map(notification_state).unwrap_or_default().into(),
        trace_id: row.trace_id,
        source_event_id: row.source_event_id.to_string(),
        create_time: Some(timestamp(row.create_time)),
        deliveries: deliveries.into_iter().map(|(row, attempts)| delivery(row, attempts)).collect(),
        locale: row.locale,
        expire_time: Some(timestamp(row.expire_time)),
        settle_time: row.settle_time.map(timestamp),
        producer: row.producer,
    }
}

fn delivery(row: DeliveryRow, attempts: Vec<AttemptRow>) -> wire::Delivery {
    let state = DeliveryState::parse(&row.state);
    wire::Delivery {
        channel: row.channel,
        state: delivery_state(state).into(),
        reason: row.reason,
        attempts: attempts.into_iter().map(attempt).collect(),
        next_attempt_time: row.next_attempt_time.map(|at| timestamp(row.waiting_since.unwrap_or(at))),
        held_by: row.parked_on.filter(|_| state == Some(DeliveryState::Queued)).unwrap_or_default(),
    }
}

fn attempt(row: AttemptRow) -> wire::Attempt {
    let outcome = match row.outcome.as_deref().and_then(OutcomeClass::parse) {
        None => wire::AttemptOutcome::Unspecified,
        Some(OutcomeClass::Delivered) => wire::AttemptOutcome::Delivered,
        Some(OutcomeClass::Transient) => wire::AttemptOutcome::Transient,
        Some(OutcomeClass::Address) => wire::AttemptOutcome::Address,
        Some(OutcomeClass::Content) => wire::AttemptOutcome::Content,
        Some(OutcomeClass::Configuration) => wire::AttemptOutcome::Configuration,
        Some(OutcomeClass::Ambiguous) => wire::AttemptOutcome::Ambiguous,
    };
    wire::Attempt {
        number: row.number,
        start_time: Some(timestamp(row.start_time)),
        end_time: row.end_time.map(timestamp),
        outcome: outcome.into(),
        reason: row.reason,
        trace_id: row.trace_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_asked_for() {
        for state in NotificationState::ALL {
            assert_eq!(state_filter(notification_state(*state)), Some(*state));
        }
        assert_eq!(state_filter(wire::NotificationState::Unspecified), None);
        for known in Kind::ALL {
            assert_eq!(kind_filter(kind(known.as_str())), Some(*known));
        }
        assert_eq!(kind_filter(wire::NotificationKind::Unspecified), None);
    }

    #[test]
    fn times_outside_the_contract_are_refused() {
        assert!(time(&Timestamp { seconds: 0, nanos: 0 }).is_some());
        for (seconds, nanos) in [(0, -1), (i64::MAX, 0), (253_402_300_800, 0), (-62_135_596_801, 0)] {
            assert_eq!(time(&Timestamp { seconds, nanos }), None);
        }
    }
}
