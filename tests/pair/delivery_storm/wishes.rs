//! What is known of addresses, and what recipients want, at delivery.

use std::time::SystemTime;

use chrono::{DateTime, Timelike, Utc};
use p2phub_proto::notify::v1::{NotificationRequest, RecipientContact};
use p2phub_tests::{
    pair::Options,
    sink::{Reply, Sink},
    wait,
};
use serde_json::{Value, json};

use super::{Storm, contact, policy, to, urgent};

/// By channel and address: how it ended, why, and the attempts' reasons.
type Story = Vec<(String, String, String, Vec<String>)>;

impl Storm {
    /// The recipient's latest notification, once it is settled: its state, and its deliveries.
    async fn settled(&self, recipient_id: &str) -> (String, Story) {
        let (id, state) = wait::until("a settled notification", async || {
            let query = "SELECT notification_id::text, state, settle_time IS NOT NULL FROM notifications
                          WHERE recipient_id = $1 ORDER BY notification_id DESC LIMIT 1";
            let row = self.sql.query_one(query, &[&recipient_id]).await.expect("a notification");
            row.get::<_, bool>(2).then(|| (row.get::<_, String>(0), row.get::<_, String>(1)))
        })
        .await;
        let query = "SELECT d.address, d.state, d.reason,
                            array(SELECT a.outcome || ' ' || a.reason FROM attempts a
                                   WHERE (a.notification_id, a.position) = (d.notification_id, d.position) ORDER BY a.number)
                       FROM deliveries d WHERE d.notification_id::text = $1 ORDER BY d.position";
        let rows = self.sql.query(query, &[&id]).await.expect("deliveries");
        (state, rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
    }

    async fn prefer(&self, recipient_id: &str, mutes: Value, quiet: Option<(i32, i32)>) {
        let insert = "INSERT INTO preferences (recipient_id, mutes, quiet_start, quiet_end, time_zone)
                      VALUES ($1, $2::text::jsonb, $3, $4, CASE WHEN $3::int IS NOT NULL THEN 'Asia/Kolkata' END)";
        let (start, end) = quiet.unzip();
        self.sql.execute(insert, &[&recipient_id, &mutes.to_string(), &start, &end]).await.expect("an insert");
    }
}

fn both(recipient_id: &str, first: &str, second: &str) -> NotificationRequest {
    NotificationRequest { contacts: vec![contact(first), contact(second)], ..to(recipient_id, first) }
}

fn one(address: &str, state: &str, reason: &str, attempts: &[&str]) -> (String, String, String, Vec<String>) {
    let attempts = attempts.iter().map(|text| (*text).to_owned()).collect();
    (address.to_owned(), state.to_owned(), reason.to_owned(), attempts)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_gone_is_passed_over_from_then_on_and_one_not_found_is_tried_again() {
    let sink = Sink::start().await;
    let (gone, missing, well) = (sink.url("/gone"), sink.url("/missing"), sink.url("/well"));
    let storm = Storm::within(&policy(&[]), 8).await;
    let delivered = || one(&well, "DELIVERED", "", &["DELIVERED "]);

    sink.then([Reply::status(410)]);
    storm.publish(&[both("first", &gone, &well)]).await;
    let tried = one(&gone, "FAILED", "HTTP_410", &["ADDRESS HTTP_410"]);
    assert_eq!(storm.settled("first").await, ("DELIVERED".to_owned(), vec![tried, delivered()]));
    // The same address of somebody else: what is known of it counts, not who asked.
    storm.publish(&[both("second", &gone, &well)]).await;
    let passed_over = || one(&gone, "FAILED", "HTTP_410", &[]);
    assert_eq!(storm.settled("second").await, ("DELIVERED".to_owned(), vec![passed_over(), delivered()]));
    storm.publish(&[to("third", &gone)]).await;
    assert_eq!(storm.settled("third").await, ("DEAD".to_owned(), vec![passed_over()]));
    assert_eq!(sink.received().iter().filter(|one| one.path == "/gone").count(), 1);
    // After a while it is put to the test, and does well.
    storm.sql.batch_execute("UPDATE addresses SET mark_time = now() - interval '31 days'").await.expect("an update");
    storm.publish(&[to("fourth", &gone)]).await;
    let tested = one(&gone, "DELIVERED", "", &["DELIVERED "]);
    assert_eq!(storm.settled("fourth").await, ("DELIVERED".to_owned(), vec![tested]));

    sink.then([Reply::status(404)]);
    storm.publish(&[both("first", &missing, &well)]).await;
    let tried = one(&missing, "FAILED", "HTTP_404", &["ADDRESS HTTP_404"]);
    assert_eq!(storm.settled("first").await, ("DELIVERED".to_owned(), vec![tried, delivered()]));
    storm.publish(&[both("second", &missing, &well)]).await;
    let again = one(&missing, "DELIVERED", "", &["DELIVERED "]);
    assert_eq!(storm.settled("second").await, ("DELIVERED".to_owned(), vec![again]));
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_muted_is_not_sent_unless_it_is_about_money() {
    let sink = Sink::start().await;
    let url = sink.url("/");
    let storm = Storm::within(&policy(&[]), 8).await;
    for (recipient_id, mutes) in [
        ("no-broadcasts", json!([{ "kind": "OPERATOR_BROADCAST", "channel": null }])),
        ("no-webhooks", json!([{ "kind": null, "channel": "webhook" }])),
        ("nothing", json!([{ "kind": null, "channel": null }])),
        ("no-signups", json!([{ "kind": "SIGNUP_L1", "channel": null }, { "kind": null, "channel": "email" }])),
        ("of-tomorrow", json!([{ "kind": "SOMETHING_NEW", "channel": null }])),
    ] {
        storm.prefer(recipient_id, mutes, None).await;
    }
    let suppressed = || ("SUPPRESSED".to_owned(), vec![one(&url, "SUPPRESSED", "MUTED", &[])]);
    let delivered = || ("DELIVERED".to_owned(), vec![one(&url, "DELIVERED", "", &["DELIVERED "])]);
    for recipient_id in ["no-broadcasts", "no-webhooks", "nothing"] {
        storm.publish(&[to(recipient_id, &url)]).await;
        assert_eq!(storm.settled(recipient_id).await, suppressed(), "{recipient_id}");
        storm.publish(&[urgent(recipient_id, &url)]).await;
        assert_eq!(storm.settled(recipient_id).await, delivered(), "money to {recipient_id}");
    }
    for recipient_id in ["no-signups", "of-tomorrow", "anybody"] {
        storm.publish(&[to(recipient_id, &url)]).await;
        assert_eq!(storm.settled(recipient_id).await, delivered(), "{recipient_id}");
    }
    assert_eq!(sink.received().len(), 6);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_channel_is_passed_over_for_the_next_contact() {
    let (webhook, telegram) = (Sink::start().await, Sink::start().await);
    telegram.otherwise(Reply::json(200, &json!({ "ok": true, "result": { "message_id": 1 } })));
    let api = telegram.url("");
    let telegram_on = move |config: &mut notify_svc::Config| {
        config.telegram_bot_token = Some("12345:a-token_x".to_owned());
        config.telegram_api_url = api.clone();
    };
    let storm = Storm::prepare_with(Options::default(), &policy(&[]), 8, telegram_on).await.begin().await;
    storm.prefer("picky", json!([{ "kind": null, "channel": "webhook" }]), None).await;
    let mut request = to("picky", &webhook.url("/"));
    request.contacts.push(RecipientContact { channel: "telegram".to_owned(), address: "7".to_owned() });
    storm.publish(&[request]).await;
    let passed_over = one(&webhook.url("/"), "SUPPRESSED", "MUTED", &[]);
    let delivered = one("7", "DELIVERED", "", &["DELIVERED "]);
    assert_eq!(storm.settled("picky").await, ("DELIVERED".to_owned(), vec![passed_over, delivered]));
    assert_eq!((webhook.received().len(), telegram.received().len()), (0, 1));
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_put_off_what_isnt_about_money() {
    /// Minutes that Kolkata's clock is ahead, all year.
    const AHEAD: i64 = 5 * 60 + 30;
    const DAY: i64 = 24 * 60;
    let sink = Sink::start().await;
    let url = sink.url("/");
    let storm = Storm::within(&policy(&[]), 8).await;
    let now = Utc::now();
    let minute = (i64::from(now.num_seconds_from_midnight() / 60) + AHEAD) % DAY;
    let clock = |minutes: i64| i32::try_from((minute + minutes).rem_euclid(DAY)).expect("a minute");
    storm.prefer("asleep", json!([]), Some((clock(-60), clock(120)))).await;
    storm.prefer("awake", json!([]), Some((clock(60), clock(120)))).await;
    storm.publish(&[to("asleep", &url), to("awake", &url), urgent("asleep", &url)]).await;
    let delivered = "notifications WHERE state = 'DELIVERED'";
    wait::until("the others", async || (storm.count(delivered).await == 2).then_some(())).await;
    let put_off = wait::until("the put off one", async || {
        let query = "SELECT next_attempt_time, attempt_count FROM deliveries WHERE state = 'QUEUED' AND next_attempt_time > now()";
        storm.sql.query_opt(query, &[]).await.expect("an answer")
    })
    .await;
    let end = DateTime::<Utc>::from(put_off.get::<_, SystemTime>(0));
    assert!((118..=121).contains(&(end - now).num_minutes()), "until {end}");
    assert_eq!((end.second(), put_off.get::<_, i32>(1)), (0, 0));
    // When they are over it is sent.
    storm
        .sql
        .batch_execute(
            "DELETE FROM preferences; UPDATE deliveries SET next_attempt_time = now() WHERE state = 'QUEUED'",
        )
        .await
        .expect("an update");
    storm.delivered(3).await;
    assert_eq!(sink.received().len(), 3);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_tried_within_its_own_bounds_and_then_dead_with_the_reason() {
    let sink = Sink::start().await;
    sink.otherwise(Reply::status(503));
    let own = json!({ "tries_max": 2, "first_delay_ms": 100 });
    let storm = Storm::within(&policy(&[("/kinds/OPERATOR_BROADCAST", own)]), 8).await;
    storm.publish(&[to("impatient", &sink.url("/a")), urgent("patient", &sink.url("/b"))]).await;
    let (state, deliveries) = storm.settled("impatient").await;
    let (_, how, why, attempts) = &deliveries[0];
    assert_eq!((state.as_str(), how.as_str(), why.as_str()), ("DEAD", "FAILED", "RETRIES_EXHAUSTED"));
    assert_eq!(attempts, &["TRANSIENT HTTP_503", "TRANSIENT HTTP_503"]);
    let patient = "notifications WHERE recipient_id = 'patient' AND state = 'QUEUED'";
    assert_eq!(storm.count(patient).await, 1, "the other kind is tried on");
    storm.finish().await;
}
