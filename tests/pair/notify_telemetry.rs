//! notify-svc as operators see it: the spans of a notification's way, its log lines under one trace ID, what is counted.

mod interruptions;
mod spans;
mod stopped;

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::notify::v1::{
    EventRecord, ListNotificationsRequest, NotificationKind, NotificationRequest, NotificationState, Preferences,
    RecipientContact, RecordOutcome, SetPreferencesRequest,
};
use p2phub_tests::{
    builders::request_id,
    instance::Instance,
    pair::{Options, Pair},
    postgres::Role,
    prometheus::Scrape,
    sink::{Reply, Sink},
    wait,
};
use serde_json::{Value, json};

use crate::{
    PAIR_PROCESS,
    delivery::{contact, to},
    stream::{Producer, message, record},
};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TOKEN: &str = "12345:a-token_x";

/// notify-svc as a process, and a producer.
struct Desk {
    pair: Pair,
    producer: Producer,
}

impl Desk {
    async fn open(variables: &[(&str, &str)]) -> Self {
        let secret = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
        let options = Options::default().processes(PAIR_PROCESS).variable("WEBHOOK_SIGNING_SECRET", &secret);
        let options = variables.iter().fold(options, |options, (name, value)| options.variable(name, value));
        let mut pair = options.prepare().await;
        pair.start_notify().await;
        let producer = Producer::open(&pair.clients, "desk").await;
        Self { pair, producer }
    }

    async fn publish(&mut self, record: EventRecord) -> RecordOutcome {
        self.producer.publish(&[record]).await[0]
    }

    /// Asks for a notification and waits until its fate is decided; its ID.
    async fn settle(&mut self, record: EventRecord, state: NotificationState) -> String {
        let filter = ListNotificationsRequest { source_event_id: record.event_id.clone(), ..Default::default() };
        assert_eq!(self.publish(record).await, RecordOutcome::Stored);
        let settled = wait::until("a settled notification", async || {
            let answer = self.pair.clients.notifications.list_notifications(filter.clone()).await;
            let found = answer.expect("an answer").into_inner().notifications.pop();
            found.filter(|one| one.settle_time.is_some())
        })
        .await;
        assert_eq!(settled.state(), state);
        settled.notification_id
    }

    async fn mute(&mut self, recipient_id: &str, kind: NotificationKind) {
        let request = SetPreferencesRequest {
            request_id: request_id(),
            recipient_id: recipient_id.to_owned(),
            preferences: Some(Preferences { muted_kinds: vec![kind.into()], ..Default::default() }),
        };
        self.pair.clients.notifications.set_preferences(request).await.expect("an answer");
    }

    fn notify(&self) -> &Instance {
        self.pair.notify.as_ref().expect("notify-svc runs")
    }

    /// What is exported, as soon as it is as it should be.
    async fn scrape_when(&self, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        let http = self.notify().http;
        wait::until(what, async || Some(Scrape::of(http).await).filter(&is_so)).await
    }

    /// The log once it has a line that says so.
    async fn log_with(&self, message: &str) -> String {
        wait::until(message, async || Some(self.notify().log()).filter(|log| log.contains(message))).await
    }

    async fn close(self) {
        drop(self.producer);
        self.pair.finish().await;
    }
}

fn asking(request: NotificationRequest) -> EventRecord {
    record(message(vec![request]))
}

fn over(contacts: Vec<RecipientContact>) -> EventRecord {
    asking(to("someone", contacts))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_records_and_deliveries_is_counted_once() {
    let sink = Sink::start().await;
    let hook = |path: &str| vec![contact("webhook", &sink.url(path))];
    sink.then_with("/flaky", [Reply::status(503), Reply::status(503)]);
    sink.then_with("/gone", [Reply::status(410)]);
    sink.then_with("/later", [(); 2].map(|()| Reply::status(503).header("retry-after", "600")));
    let mut desk = Desk::open(&[]).await;
    desk.mute("quiet", NotificationKind::OperatorBroadcast).await;

    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    let flaky = EventRecord { occur_time: Some(minute_ago.into()), ..over(hook("/flaky")) };
    desk.settle(flaky.clone(), NotificationState::Delivered).await;
    assert_eq!(desk.publish(flaky).await, RecordOutcome::Duplicate);
    assert_eq!(desk.publish(record(vec![0xff; 20])).await, RecordOutcome::Rejected);
    desk.settle(over(hook("/gone")), NotificationState::Dead).await;
    desk.settle(asking(to("quiet", hook("/quiet"))), NotificationState::Suppressed).await;
    desk.settle(over(Vec::new()), NotificationState::Delivered).await;
    for _ in 0..2 {
        assert_eq!(desk.publish(over(hook("/later"))).await, RecordOutcome::Stored);
    }

    // The last to happen: the queue is looked at every few seconds.
    let is_over = |scrape: &Scrape| {
        let waiting = scrape.value("p2phub_delivery_queue_depth", &[("state", "waiting")]);
        (waiting, scrape.value("p2phub_delivery_attempts_total", &[])) == (Some(2.0), Some(7.0))
    };
    let scrape = desk.scrape_when("seven attempts, and two deliveries that wait", is_over).await;
    let webhook = [("channel", "webhook"), ("kind", "operator_broadcast")];
    let with = |outcome| [&webhook[..], &[("outcome", outcome)]].concat();
    for (name, labels, value) in [
        ("p2phub_ingest_events_total", vec![("outcome", "stored")], Some(6.0)),
        ("p2phub_ingest_events_total", vec![("outcome", "duplicate")], Some(1.0)),
        ("p2phub_ingest_events_total", vec![("outcome", "rejected")], Some(1.0)),
        ("p2phub_ingest_streams", vec![], Some(1.0)),
        ("p2phub_delivery_attempts_total", with("transient"), Some(4.0)),
        ("p2phub_delivery_attempts_total", with("delivered"), Some(1.0)),
        ("p2phub_delivery_attempts_total", with("address"), Some(1.0)),
        ("p2phub_deliveries_total", with("delivered"), Some(1.0)),
        ("p2phub_deliveries_total", with("failed"), Some(1.0)),
        ("p2phub_deliveries_total", with("suppressed"), Some(1.0)),
        ("p2phub_deliveries_total", vec![("channel", "log"), ("outcome", "delivered")], Some(1.0)),
        ("p2phub_deliveries_total", vec![], Some(4.0)),
        ("p2phub_delivery_retries_total", vec![("channel", "webhook")], Some(4.0)),
        ("p2phub_notifications_dead_total", vec![("kind", "operator_broadcast")], Some(1.0)),
        // There from the start.
        ("p2phub_notifications_dead_total", vec![("kind", "commission_received")], Some(0.0)),
        (
            "p2phub_deliveries_total",
            vec![("channel", "webhook"), ("kind", "level_up"), ("outcome", "failed")],
            Some(0.0),
        ),
        ("p2phub_deliveries_total", with("expired"), Some(0.0)),
        ("p2phub_deliveries_total", vec![("channel", "slack")], None),
        ("p2phub_delivery_queue_depth", vec![("state", "due")], Some(0.0)),
        ("p2phub_delivery_queue_depth", vec![("state", "parked")], Some(0.0)),
        ("p2phub_delivery_queue_oldest_age_seconds", vec![], Some(0.0)),
        ("p2phub_delivery_latency_seconds_count", vec![("channel", "webhook")], Some(1.0)),
    ] {
        assert_eq!(scrape.value(name, &labels), value, "{name} {labels:?}");
    }
    let latency = scrape.value("p2phub_delivery_latency_seconds_sum", &[("channel", "webhook")]).expect("a sum");
    assert!((60.0..120.0).contains(&latency), "from the fact on: {latency}");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_lease_is_lost_counts_as_ambiguous_and_its_delivery_once() {
    let sink = Sink::start().await;
    // Two workers get their answers: the first one after it has lost its lease.
    sink.then([Reply::status(200).after(Duration::from_secs(4))]);
    let mut desk = Desk::open(&[("LOG_FORMAT", "json")]).await;
    let record = over(vec![contact("webhook", &sink.url("/"))]);
    assert_eq!(desk.publish(record.clone()).await, RecordOutcome::Stored);
    sink.wait_for(1).await;
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let lapse = "UPDATE deliveries SET lease_until = now() RETURNING notification_id::text";
    let notification_id: String = superuser.query_one(lapse, &[]).await.expect("a lease").get(0);

    let log = desk.log_with("the lease was lost before the attempt was settled").await;
    let messages: Vec<_> = lines(&log, &notification_id).into_iter().map(|(message, ..)| message).collect();
    let lost = ["an attempt's worker let its lease run out", "the lease was lost before the attempt was settled"];
    assert_eq!(messages, lost);
    let outcome = |outcome| vec![("channel", "webhook"), ("outcome", outcome)];
    let delivered = |scrape: &Scrape| scrape.value("p2phub_deliveries_total", &outcome("delivered")) == Some(1.0);
    let scrape = desk.scrape_when("a delivery", delivered).await;
    for (name, labels, value) in [
        ("p2phub_delivery_attempts_total", outcome("ambiguous"), Some(1.0)),
        ("p2phub_delivery_attempts_total", outcome("delivered"), Some(1.0)),
        ("p2phub_delivery_attempts_total", vec![], Some(2.0)),
        ("p2phub_delivery_latency_seconds_count", vec![], Some(1.0)),
    ] {
        assert_eq!(scrape.value(name, &labels), value, "{name} {labels:?}");
    }
    assert_eq!(sink.received().len(), 2);
    desk.close().await;
}

/// What the service has logged about a notification: message, channel, attempt.
fn lines(log: &str, notification_id: &str) -> Vec<(String, String, Value)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    log.lines()
        .filter(|line| line.contains(notification_id))
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            assert_eq!(line["trace_id"], TRACE_ID, "{line}");
            (text(&line, "message"), text(&line, "channel"), line["attempt"].clone())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_about_a_notification_is_under_its_trace_and_names_nobody() {
    let (webhook, telegram) = (Sink::start().await, Sink::start().await);
    webhook.then([Reply::status(503), Reply::status(410)]);
    let refusal = |description: &str| json!({ "ok": false, "description": description });
    let stumble = refusal("Bad Request: can't parse entities");
    telegram.then([Reply::json(400, &stumble), Reply::json(403, &refusal("Forbidden: bot was blocked by the user"))]);
    let variables = [
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_API_URL", &telegram.url("")),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,notify_svc=debug"),
    ];
    let mut desk = Desk::open(&variables).await;
    desk.mute("quiet", NotificationKind::OperatorBroadcast).await;
    let contacts = vec![contact("webhook", &webhook.url("/hidden-path")), contact("telegram", "778899")];
    let dead = NotificationRequest {
        arguments: [("text".to_owned(), "Dear hidden-name".to_owned())].into(),
        ..to("someone", contacts)
    };
    let dead = desk.settle(asking(dead), NotificationState::Dead).await;
    let quiet = desk.settle(asking(to("quiet", Vec::new())), NotificationState::Suppressed).await;
    let past = prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 };
    let late = NotificationRequest { expire_time: Some(past), ..to("late", Vec::new()) };
    let late = desk.settle(asking(late), NotificationState::Expired).await;

    // Written after the commit that the API shows.
    let log = desk.log_with("notification expired").await;
    let line = |message: &str, channel: &str, attempt: Value| (message.to_owned(), channel.to_owned(), attempt);
    let expected = [
        line("attempt failed", "webhook", json!(1)),
        line("attempt failed", "webhook", json!(2)),
        line("the channel gave up, another is tried", "webhook", json!(2)),
        line("Telegram can't parse the text: sent again as plain text", "telegram", json!(1)),
        line("attempt failed", "telegram", json!(1)),
        line("notification is dead: every channel gave up", "telegram", json!(1)),
    ];
    assert_eq!(lines(&log, &dead), expected);
    assert_eq!(lines(&log, &quiet), [line("the recipient doesn't want it there", "log", Value::Null)]);
    assert_eq!(lines(&log, &late), [line("notification expired", "log", Value::Null)]);
    for hidden in ["hidden-path", "hidden-name", "778899", TOKEN] {
        assert!(!log.contains(hidden), "{hidden} is in the log");
    }
    desk.close().await;
}
