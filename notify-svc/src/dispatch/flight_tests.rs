//! A channel that panics, which nothing outside can bring about.

use std::future;

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use notify_domain::channel::Channel;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    channel::{Message, Sender, Senders},
    template::Templates,
    unsubscribe::UnsubscribeTokens,
};

/// Panics or hangs for recipients of that name, and delivers to all others.
struct Moody;

impl Sender for Moody {
    fn channel(&self) -> Channel {
        Channel::Webhook
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        assert!(message.recipient_id != "panics at once", "as it should");
        async move {
            tokio::task::yield_now().await;
            assert!(message.recipient_id != "panics later", "as it should");
            if message.recipient_id == "hangs" {
                future::pending::<()>().await;
            }
            Outcome::DELIVERED
        }
        .boxed()
    }
}

fn flight() -> Flight {
    Flight::new(Arc::new(Attempts {
        senders: Arc::new(Senders::of(vec![Box::new(Moody)])),
        templates: Arc::new(Templates::load(None).expect("templates")),
        unsubscribe: UnsubscribeTokens::new(&[7; 32]),
    }))
}

fn due(recipient_id: &str) -> Due {
    Due {
        notification_id: Uuid::new_v4(),
        position: 1,
        contact_place: 1,
        lane: 1,
        channel: Channel::Webhook.as_str().to_owned(),
        address: "http://somewhere/hook".to_owned(),
        state: "QUEUED".to_owned(),
        attempt_count: 1,
        tries_used: 1,
        attempted: false,
        parked_on: None,
        mark_reason: None,
        mark_time: None,
        recipient_id: recipient_id.to_owned(),
        mutes: None,
        quiet_start: None,
        quiet_end: None,
        time_zone: None,
        kind: "OPERATOR_BROADCAST".to_owned(),
        locale: "en".to_owned(),
        arguments: json!({ "text": "Hello" }),
        contacts: json!([]),
        trace_id: "0".repeat(32),
        traceparent: String::new(),
        baggage: String::new(),
        occur_time: None,
        create_time: DateTime::UNIX_EPOCH,
        expire_time: DateTime::<Utc>::MAX_UTC,
        now: DateTime::UNIX_EPOCH,
    }
}

async fn all(flight: &mut Flight) -> Vec<(String, &'static str, String)> {
    let mut ended = Vec::new();
    while let Some(Finished { delivery, outcome, .. }) = flight.next().await {
        ended.push((delivery.recipient_id, outcome.class.as_str(), outcome.reason.into_owned()));
    }
    ended.sort();
    ended
}

#[tokio::test]
async fn a_panic_in_a_channel_costs_that_attempt_only() {
    let mut flight = flight();
    let recipients = ["panics at once", "one", "panics later", "two"];
    recipients.iter().for_each(|recipient_id| flight.launch(due(recipient_id)));
    assert_eq!(flight.by_gate()["domain/webhook/somewhere"].sends, 4);
    let ended = all(&mut flight).await;
    let ended: Vec<_> = ended.iter().map(|(who, class, why)| (who.as_str(), *class, why.as_str())).collect();
    let panicked = |who| (who, "AMBIGUOUS", "CHANNEL_PANICKED");
    let expected =
        [("one", "DELIVERED", ""), panicked("panics at once"), panicked("panics later"), ("two", "DELIVERED", "")];
    assert_eq!(ended, expected);
    assert_eq!((flight.len(), flight.by_gate().len()), (0, 0), "each gives its place back");
}

#[tokio::test]
async fn a_send_that_is_cut_short_is_handed_back() {
    let mut flight = flight();
    flight.launch(due("hangs"));
    let held: Vec<_> = flight.sends.values().map(|send| send.delivery.held()).collect();
    flight.renewed(&held, &[]);
    assert_eq!(all(&mut flight).await, [("hangs".to_owned(), "AMBIGUOUS", TASK_LOST.to_owned())]);

    flight.launch(due("hangs"));
    let mut ended = Vec::new();
    flight.abort(&mut ended).await;
    let [Finished { outcome, .. }] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((outcome.reason.as_ref(), outcome.counts()), (STOPPED, false));
}
