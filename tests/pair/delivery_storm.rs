//! Delivery under stress: notify-svc alone, fed over the Publish stream, with webhook receivers on loopback. Whatever is
//! killed, away, slow or over its limit: nothing is lost, nothing is doubled without saying so, and nobody waits for another.

mod away;
mod database;
mod hanging;
mod kills;
mod lanes;
mod leases;
mod limits;
mod listener;
mod retention;
mod stops;
mod wishes;

use std::{collections::HashMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::notify::v1::{NotificationKind, NotificationRequest, RecipientContact, RecordOutcome};
use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Role,
    sink::Sink,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    PAIR_PROCESS,
    stream::{Producer, broadcast, message, record},
};

const KEY: &[u8] = b"a key of thirty-two bytes, known";
/// Enough for the longest wait in here, retries included, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests in one event, as the contract bounds them.
const EVENT_REQUESTS: usize = 100;

/// `P2PHUB_TEST_STEPS`, or as many as suit every run.
fn scaled(default: usize) -> usize {
    std::env::var("P2PHUB_TEST_STEPS").map_or(default, |text| text.parse().expect("a number"))
}

/// A delivery policy with other values at these JSON pointers.
fn policy(changes: &[(&str, Value)]) -> Value {
    let builtin = include_str!("../../notify-svc/domain/src/policy.json");
    let mut policy: Value = serde_json::from_str(builtin).expect("JSON");
    // Webhooks have no limits in the built-in policy: there must be something to point into.
    policy["limits"]["webhook"] = json!({});
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        policy.pointer_mut(parent).expect("a place in the policy")[name] = value.clone();
    }
    policy
}

/// Any gate may take every worker.
fn every_worker() -> Value {
    json!({ "channel": 100, "provider": 100, "domain": 100, "recipient": 100 })
}

/// A notification over one webhook.
fn to(recipient_id: &str, url: &str) -> NotificationRequest {
    NotificationRequest { contacts: vec![contact(url)], ..broadcast(recipient_id) }
}

/// The same about money, which is urgent and can't be muted.
fn urgent(recipient_id: &str, url: &str) -> NotificationRequest {
    let arguments = [("amount", "11.70"), ("asset", "USDT"), ("level", "1"), ("rate", "30"), ("name", "Ann")];
    NotificationRequest {
        kind: NotificationKind::CommissionReceived.into(),
        arguments: arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..to(recipient_id, url)
    }
}

fn contact(url: &str) -> RecipientContact {
    RecipientContact { channel: "webhook".to_owned(), address: url.to_owned() }
}

/// Notifications to recipients `prefix-0`, `prefix-1`, …, round and round, each recipient with a URL of its own.
fn crowd(prefix: &str, sink: &Sink, recipients: usize, count: usize) -> Vec<NotificationRequest> {
    (0..count)
        .map(|number| format!("{prefix}-{}", number % recipients))
        .map(|recipient_id| to(&recipient_id, &sink.url(&format!("/{recipient_id}"))))
        .collect()
}

/// notify-svc alone, with webhooks on, and SQL on its database.
struct Storm {
    pair: Pair,
    sql: Client,
    _policy: TempDir,
}

impl Storm {
    /// In this process.
    async fn within(policy: &Value, workers: u16) -> Self {
        Self::prepare(Options::default(), policy, workers).await.begin().await
    }

    /// As a process of its own, which can be killed.
    async fn apart(policy: &Value, workers: u16) -> Self {
        Self::prepare(Options::default().processes(PAIR_PROCESS), policy, workers).await.begin().await
    }

    /// With nothing running yet.
    async fn prepare(options: Options, policy: &Value, workers: u16) -> Self {
        Self::prepare_with(options, policy, workers, |_| {}).await
    }

    /// The same, with more settings for instances in this process.
    async fn prepare_with(
        options: Options,
        policy: &Value,
        workers: u16,
        adjust: impl Fn(&mut notify_svc::Config) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("p2phub-test-").tempdir().expect("a directory");
        let file = directory.path().join("policy.json");
        std::fs::write(&file, policy.to_string()).expect("a file");
        let secret = format!("whsec_{}", BASE64_STANDARD.encode(KEY));
        let options = options
            .variable("DELIVERY_POLICY_FILE", &file.display().to_string())
            .variable("WEBHOOK_SIGNING_SECRET", &secret)
            .variable("NOTIFY_WORKERS", &workers.to_string())
            .notify(move |config| {
                config.webhook_signing_secret = Some(secret.clone());
                config.workers = workers;
                config.delivery_policy_file = Some(file.clone());
                adjust(config);
            });
        let pair = options.prepare().await;
        let sql = pair.notify_sql(Role::Superuser).await;
        Self { pair, sql, _policy: directory }
    }

    async fn begin(mut self) -> Self {
        self.pair.start_notify().await;
        self
    }

    /// Has all of them taken in.
    async fn publish(&self, requests: &[NotificationRequest]) {
        let mut producer = Producer::open(&self.pair.clients, "storm").await;
        let mut records = requests.chunks(EVENT_REQUESTS).map(|requests| record(message(requests.to_vec()))).peekable();
        while records.peek().is_some() {
            let credits = usize::try_from(producer.credits).expect("credits");
            let batch: Vec<_> = records.by_ref().take(credits.max(1)).collect();
            let outcomes = producer.publish(&batch).await;
            assert!(outcomes.iter().all(|outcome| *outcome == RecordOutcome::Stored), "{outcomes:?}");
        }
    }

    async fn number(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.expect("a row").get(0)
    }

    async fn count(&self, what: &str) -> usize {
        usize::try_from(self.number(&format!("SELECT count(*) FROM {what}")).await).expect("a count")
    }

    /// Waits until so many are delivered, and nothing else is left.
    async fn delivered(&self, count: usize) {
        wait::until_within(LIMIT, &format!("{count} to be delivered"), async || {
            (self.count("notifications WHERE state = 'DELIVERED'").await == count).then_some(())
        })
        .await;
        assert_eq!(self.count("notifications").await, count, "notifications");
        assert_eq!(self.count("deliveries WHERE settle_time IS NULL").await, 0, "open deliveries");
        assert_eq!(self.count("attempts WHERE end_time IS NULL").await, 0, "open attempts");
    }

    /// As if the half minute of the leases had passed whose process doesn't live any more.
    async fn let_orphaned_leases_lapse(&self, living: &[u32]) {
        let living: Vec<_> = living.iter().map(u32::to_string).collect();
        let lapse = "UPDATE deliveries SET lease_until = now()
                      WHERE state = 'SENDING' AND split_part(lease_owner, '-', 1) <> ALL ($1)";
        self.sql.execute(lapse, &[&living]).await.expect("an update");
    }

    /// Waits until whatever a killed process had under way in the database has ended.
    async fn no_session_is_left(&self) {
        wait::until("the killed process's sessions to end", async || {
            let query = "SELECT count(*) FROM pg_stat_activity
                          WHERE datname = current_database() AND usename <> 'postgres' AND application_name LIKE 'notify-svc%'";
            (self.number(query).await == 0).then_some(())
        })
        .await;
    }

    /// What came to the sinks more than once is on record as ambiguous, as often as it came too often.
    async fn assert_repeats_are_on_record(&self, sinks: &[&Sink]) {
        for (id, times) in arrivals(sinks).into_iter().filter(|(_, times)| *times > 1) {
            let ambiguous = format!("attempts WHERE notification_id = '{id}' AND outcome = 'AMBIGUOUS'");
            let ambiguous = self.count(&ambiguous).await;
            assert!(ambiguous >= times - 1, "{id} came {times} times, with {ambiguous} ambiguous attempts on record");
        }
    }

    async fn finish(self) {
        self.pair.finish().await;
    }
}

/// How often each notification came.
fn arrivals(sinks: &[&Sink]) -> HashMap<String, usize> {
    let mut arrivals = HashMap::new();
    for request in sinks.iter().flat_map(|sink| sink.received()) {
        *arrivals.entry(request.headers["webhook-id"].clone()).or_default() += 1;
    }
    arrivals
}

/// Each of so many came, and came once.
fn assert_each_came_once(sinks: &[&Sink], count: usize) {
    let arrivals = arrivals(sinks);
    let twice: Vec<_> = arrivals.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "came again: {twice:?}");
    assert_eq!(arrivals.len(), count, "came to the sinks");
}
