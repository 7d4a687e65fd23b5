//! notify-svc alone, with a producer: what the suite asks for, and what becomes of it.

use std::collections::BTreeMap;

use notify_svc::Config;
use p2phub_proto::notify::v1::{
    AttemptOutcome, GetNotificationRequest, ListNotificationsRequest, Notification, NotificationKind,
    NotificationRequest, RecipientContact, RecordOutcome,
};
use p2phub_tests::{
    pair::{Options, Pair},
    wait,
};
use tokio::sync::Mutex;

use crate::stream::{Producer, message, record};

/// Enough that every notification of an event is sent at once, whatever share of them a provider may have.
const WORKERS: u16 = 800;

pub(super) struct Desk {
    pair: Pair,
    producer: Mutex<Producer>,
}

/// How an attempt ended, and why.
pub(super) type Ended = (AttemptOutcome, String);

impl Desk {
    pub(super) async fn open(adjust: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let options = Options::default().notify(move |config| {
            config.workers = WORKERS;
            adjust(config);
        });
        let mut pair = options.prepare().await;
        pair.start_notify().await;
        let producer = Producer::open(&pair.clients, "conformance").await;
        Self { pair, producer: Mutex::new(producer) }
    }

    /// Asks for notifications, all in one event; its ID.
    pub(super) async fn ask(&self, requests: Vec<NotificationRequest>) -> String {
        let record = record(message(requests));
        assert_eq!(self.producer.lock().await.publish(std::slice::from_ref(&record)).await, [RecordOutcome::Stored]);
        record.event_id
    }

    async fn list(&self, source_event_id: &str) -> Vec<Notification> {
        let source_event_id = source_event_id.to_owned();
        let filter = ListNotificationsRequest { source_event_id, page_size: 500, ..Default::default() };
        let answer = self.pair.clients.clone().notifications.list_notifications(filter).await;
        answer.expect("an answer").into_inner().notifications
    }

    async fn whole(&self, notification_id: &str) -> Notification {
        let request = GetNotificationRequest { notification_id: notification_id.to_owned() };
        let answer = self.pair.clients.clone().notifications.get_notification(request).await;
        answer.expect("an answer").into_inner().notification.expect("a notification")
    }

    /// By recipient, how the first attempt for each of the event's notifications ended.
    pub(super) async fn first_attempts(&self, source_event_id: &str) -> BTreeMap<String, Ended> {
        let ended = wait::until("the end of every first attempt", async || {
            let found = self.list(source_event_id).await;
            let ended: Option<Vec<_>> =
                found.iter().map(|one| first(one).map(|_| one.notification_id.clone())).collect();
            ended.filter(|ended| !ended.is_empty())
        })
        .await;
        let mut attempts = BTreeMap::new();
        for notification_id in ended {
            let notification = self.whole(&notification_id).await;
            attempts.insert(notification.recipient_id.clone(), first(&notification).expect("an end that lasts"));
        }
        attempts
    }

    /// The event's notifications by recipient, once the fate of all is decided.
    pub(super) async fn settled(&self, source_event_id: &str) -> BTreeMap<String, Notification> {
        let settled = wait::until("settled notifications", async || {
            let found = self.list(source_event_id).await;
            (!found.is_empty() && found.iter().all(|one| one.settle_time.is_some())).then_some(found)
        })
        .await;
        let mut whole = BTreeMap::new();
        for one in settled {
            let notification = self.whole(&one.notification_id).await;
            whole.insert(one.recipient_id, notification);
        }
        whole
    }

    pub(super) async fn close(self) {
        drop(self.producer);
        self.pair.finish().await;
    }
}

fn first(notification: &Notification) -> Option<Ended> {
    let attempt = notification.deliveries.first()?.attempts.first()?;
    (attempt.outcome() != AttemptOutcome::Unspecified).then(|| (attempt.outcome(), attempt.reason.clone()))
}

/// A notification with arguments of its own.
pub(super) fn notice(
    kind: NotificationKind,
    recipient_id: &str,
    arguments: &[(&str, &str)],
    contacts: Vec<RecipientContact>,
) -> NotificationRequest {
    NotificationRequest {
        kind: kind.into(),
        recipient_id: recipient_id.to_owned(),
        arguments: arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        contacts,
        ..Default::default()
    }
}

/// A notification that says little.
pub(super) fn plain(recipient_id: &str, contacts: Vec<RecipientContact>) -> NotificationRequest {
    let arguments = [("amount", "11.70"), ("asset", "USDT")];
    notice(NotificationKind::CommissionReversed, recipient_id, &arguments, contacts)
}
