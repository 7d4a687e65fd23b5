//! What operators and recipients can do: each mutation once and on record, jobs that outlive their instances, the watch feed.

mod actions;
mod commit;
mod lists;
mod once;
mod pauses;
mod redrive;
mod watch;
mod wishes;

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::notify::v1::{
    AuditEvent, CancelNotificationRequest, GetNotificationRequest, ListAuditEventsRequest, ListNotificationsRequest,
    Notification, NotificationRequest, RecipientContact, RecordOutcome,
};
use p2phub_tests::{
    builders::request_id,
    pair::{Options, Pair},
    postgres::Role,
    sink::Sink,
    wait,
};

use crate::stream::{Producer, broadcast, message, record};

const WHY: &str = "because a test wants it";

fn secret() -> String {
    format!("whsec_{}", BASE64_STANDARD.encode([7; 32]))
}

/// notify-svc alone with webhooks, a producer, and a server for the webhooks.
struct Desk {
    pair: Pair,
    producer: Producer,
    webhook: Sink,
}

impl Desk {
    async fn open() -> Self {
        Self::with(Options::default().notify(|config| config.webhook_signing_secret = Some(secret()))).await
    }

    async fn with(options: Options) -> Self {
        let mut pair = options.prepare().await;
        pair.start_notify().await;
        let producer = Producer::open(&pair.clients, "desk").await;
        Self { pair, producer, webhook: Sink::start().await }
    }

    /// Asks for a notification; its ID.
    async fn ask(&mut self, request: NotificationRequest) -> String {
        let record = record(message(vec![request]));
        assert_eq!(self.producer.publish(std::slice::from_ref(&record)).await, [RecordOutcome::Stored]);
        let filter = ListNotificationsRequest { source_event_id: record.event_id, ..Default::default() };
        let found = self.pair.clients.clone().notifications.list_notifications(filter).await.expect("a list");
        found.into_inner().notifications.remove(0).notification_id
    }

    /// One for the webhook.
    async fn ask_webhook(&mut self, recipient_id: &str) -> String {
        let contact = RecipientContact { channel: "webhook".to_owned(), address: self.webhook.url("") };
        self.ask(NotificationRequest { contacts: vec![contact], ..broadcast(recipient_id) }).await
    }

    async fn get(&self, notification_id: &str) -> Notification {
        let request = GetNotificationRequest { notification_id: notification_id.to_owned() };
        let answer = self.pair.clients.clone().notifications.get_notification(request).await;
        answer.expect("an answer").into_inner().notification.expect("a notification")
    }

    /// The notification once this is true of it.
    async fn when(&self, notification_id: &str, what: impl Fn(&Notification) -> bool) -> Notification {
        wait::until("a notification to change", async || Some(self.get(notification_id).await).filter(|one| what(one)))
            .await
    }

    /// What is on record of a subject, the oldest first: action, outcome, detail.
    async fn record(&self, subject_id: &str) -> Vec<(String, String, String)> {
        let filter = ListAuditEventsRequest { subject_id: subject_id.to_owned(), ..Default::default() };
        let events = audit(&self.pair, filter).await.into_iter().rev();
        events.map(|event| (event.action, event.outcome, event.detail)).collect()
    }

    async fn count(&self, what: &str) -> i64 {
        let client = self.pair.notify_sql(Role::Superuser).await;
        client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.expect("a count").get(0)
    }

    async fn close(self) {
        drop(self.producer);
        self.pair.finish().await;
    }
}

async fn audit(pair: &Pair, filter: ListAuditEventsRequest) -> Vec<AuditEvent> {
    let answer = pair.clients.clone().operators.list_audit_events(filter).await;
    answer.expect("an answer").into_inner().audit_events
}

fn cancellation(notification_id: &str) -> CancelNotificationRequest {
    CancelNotificationRequest {
        request_id: request_id(),
        notification_id: notification_id.to_owned(),
        reason: WHY.to_owned(),
    }
}
