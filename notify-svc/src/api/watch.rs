//! Watching deliveries: every change from now on that matches, until it can't be told without a gap.

use std::{collections::BTreeSet, pin::Pin};

use futures_util::stream;
use notify_domain::{channel::Channel, kind::Kind, state::DeliveryState};
use p2phub_proto::notify::v1 as wire;
use service::error::Failure;
use tokio_stream::Stream;
use tonic::Status;
use uuid::Uuid;

use super::{NotificationApi, fields};
use crate::{convert, feed::Watch, status, store::feed::Change};

pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<wire::WatchDeliveriesResponse, Status>> + Send>>;

/// What is watched; `None` and an empty set mean any.
struct Wanted {
    recipient_id: Option<String>,
    states: BTreeSet<DeliveryState>,
    channel: Option<Channel>,
    trace_id: Option<String>,
    notification_id: Option<Uuid>,
    kind: Option<Kind>,
}

impl NotificationApi {
    pub(super) async fn watch(&self, request: wire::WatchDeliveriesRequest) -> Result<Changes, Failure> {
        let wanted = wanted(&request)?;
        let watch = self.feed.watch().await?;
        Ok(Box::pin(stream::unfold(Some((watch, wanted)), async |watching| {
            let (mut watch, wanted) = watching?;
            match next(&mut watch, &wanted).await {
                Ok(change) => Some((Ok(change), Some((watch, wanted)))),
                Err(failure) => Some((Err(status::of(failure)), None)),
            }
        })))
    }
}

async fn next(watch: &mut Watch, wanted: &Wanted) -> Result<wire::WatchDeliveriesResponse, Failure> {
    loop {
        let change = watch.next().await?;
        if wanted.has(&change) {
            return Ok(show(&change));
        }
    }
}

fn wanted(request: &wire::WatchDeliveriesRequest) -> Result<Wanted, Failure> {
    let state = |number: &i32| {
        let state = wire::DeliveryState::try_from(*number).ok();
        let known =
            DeliveryState::ALL.iter().copied().find(|known| Some(convert::delivery_state(Some(*known))) == state);
        known.ok_or_else(|| Failure::violation("states", "must be known states"))
    };
    Ok(Wanted {
        recipient_id: fields::optional_recipient("recipient_id", &request.recipient_id)?,
        states: request.states.iter().map(state).collect::<Result<_, _>>()?,
        channel: fields::optional_channel("channel", &request.channel)?,
        trace_id: fields::trace_id("trace_id", &request.trace_id)?,
        notification_id: fields::optional_uuid("notification_id", &request.notification_id)?,
        kind: fields::kind("kind", request.kind)?,
    })
}

impl Wanted {
    fn has(&self, change: &Change) -> bool {
        let any = |wanted: Option<&str>, given: &str| wanted.is_none_or(|wanted| wanted == given);
        any(self.recipient_id.as_deref(), &change.recipient_id)
            && any(self.channel.map(Channel::as_str), &change.channel)
            && any(self.trace_id.as_deref(), &change.trace_id)
            && any(self.kind.map(Kind::as_str), &change.kind)
            && self.notification_id.is_none_or(|id| id == change.notification_id)
            && (self.states.is_empty() || change.state().is_some_and(|state| self.states.contains(&state)))
    }
}

fn show(change: &Change) -> wire::WatchDeliveriesResponse {
    wire::WatchDeliveriesResponse {
        notification_id: change.notification_id.to_string(),
        channel: change.channel.clone(),
        state: convert::delivery_state(change.state()).into(),
        change_time: Some(convert::timestamp(change.change_time)),
        reason: change.reason.clone(),
        recipient_id: change.recipient_id.clone(),
        kind: convert::kind(&change.kind).into(),
        trace_id: change.trace_id.clone(),
        attempt: change.attempt,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn every_filter_counts() {
        let change = Change {
            notification_id: Uuid::from_u128(7),
            recipient_id: "ada".to_owned(),
            kind: "LEVEL_UP".to_owned(),
            channel: "email".to_owned(),
            state: "FAILED".to_owned(),
            reason: "HTTP_410".to_owned(),
            attempt: 2,
            trace_id: "a".repeat(32),
            change_time: DateTime::UNIX_EPOCH,
        };
        let any = wire::WatchDeliveriesRequest::default;
        use wire::{DeliveryState, NotificationKind};
        let matching = [
            any(),
            wire::WatchDeliveriesRequest { recipient_id: "ada".to_owned(), ..any() },
            wire::WatchDeliveriesRequest {
                states: vec![DeliveryState::Queued.into(), DeliveryState::Failed.into()],
                ..any()
            },
            wire::WatchDeliveriesRequest { channel: "email".to_owned(), ..any() },
            wire::WatchDeliveriesRequest { trace_id: "A".repeat(32), ..any() },
            wire::WatchDeliveriesRequest { notification_id: Uuid::from_u128(7).to_string(), ..any() },
            wire::WatchDeliveriesRequest { kind: NotificationKind::LevelUp.into(), ..any() },
        ];
        for request in matching {
            assert!(wanted(&request).expect("sound").has(&change), "{request:?}");
        }
        let others = [
            wire::WatchDeliveriesRequest { recipient_id: "bob".to_owned(), ..any() },
            wire::WatchDeliveriesRequest { states: vec![DeliveryState::Queued.into()], ..any() },
            wire::WatchDeliveriesRequest { channel: "slack".to_owned(), ..any() },
            wire::WatchDeliveriesRequest { trace_id: "b".repeat(32), ..any() },
            wire::WatchDeliveriesRequest { notification_id: Uuid::from_u128(8).to_string(), ..any() },
            wire::WatchDeliveriesRequest { kind: NotificationKind::SignupL1.into(), ..any() },
        ];
        for request in others {
            assert!(!wanted(&request).expect("sound").has(&change), "{request:?}");
        }
        for states in [vec![0], vec![99]] {
            let failure = wanted(&wire::WatchDeliveriesRequest { states, ..any() }).err().expect("a fault");
            assert_eq!(failure.violations[0].0, "states");
        }
        assert_eq!(show(&change).attempt, 2);
    }
}
