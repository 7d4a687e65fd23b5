//! How fast a broadcast goes, what holds it up, and that it arrives.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationKind, NotificationState},
    referral::v1::{BroadcastState, Contact, CreateBroadcastRequest, RegisterPartnerRequest},
};
use p2phub_tests::{
    builders::registration,
    pair::{Options, Pair},
    postgres::Role,
    sink::Sink,
    wait,
};
use prost_types::Timestamp;

use super::{begin, crowd, ended, everybody, get, in_outbox, published};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Longer than a broadcast ever waits by itself.
const QUIET: Duration = Duration::from_millis(1500);

fn millis(time: Option<Timestamp>) -> i64 {
    let time = time.expect("a time");
    time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
}

async fn bulk_in_outbox(pair: &Pair) -> i64 {
    let client = pair.referral_sql(Role::Superuser).await;
    client.query_one("SELECT count(*) FROM outbox WHERE bulk", &[]).await.expect("a count").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_keeps_to_its_pace() {
    let pair = Options::default().start_alone().await;
    crowd(&pair, 200).await;
    let request = CreateBroadcastRequest { recipients_per_second: 100, ..everybody("Hello") };
    let begun = begin(&pair.clients, request).await;
    let done = ended(&pair.clients, &begun).await;
    let took = millis(done.end_time) - millis(done.create_time);
    // The first step comes at once, and a broadcast that was held up catches up by a fifth of a second.
    assert!((1_700..20_000).contains(&took), "200 recipients at 100 a second took {took} ms");
    assert!(in_outbox(&pair, &begun).await.iter().all(|event| event.len() <= 10), "in steps of a tenth of a second");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_holds_a_broadcast_up_and_nothing_else() {
    let mut pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    crowd(&pair, 4_500).await;
    let begun = begin(&clients, everybody(&"x".repeat(4_000))).await;
    wait::until("64 events", async || (bulk_in_outbox(&pair).await >= 64).then_some(())).await;
    let held_up = get(&clients, &begun).await;
    let since = Instant::now();
    while since.elapsed() < QUIET {
        assert_eq!(bulk_in_outbox(&pair).await, 64);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(get(&clients, &begun).await, held_up);
    assert!(held_up.state() == BroadcastState::Running && held_up.published < 4_500, "{held_up:?}");
    let query = "SELECT max(octet_length(event)) FROM outbox";
    let largest: i32 = pair.referral_sql(Role::Superuser).await.query_one(query, &[]).await.expect("a size").get(0);
    assert!((200 * 1024..=256 * 1024).contains(&largest), "{largest} bytes: as much as an event may have");
    clients.chain("signs-up-as-ever", 2).await;

    pair.start_notify().await;
    let done = ended(&clients, &begun).await;
    assert_eq!((done.state(), done.published), (BroadcastState::Done, 4_500));
    wait::until("an empty outbox", async || (bulk_in_outbox(&pair).await == 0).then_some(())).await;
    let query = "SELECT count(*), (SELECT count(*) FROM rejected_records) FROM notifications WHERE trace_id = $1";
    let notify = pair.notify_sql(Role::Superuser).await;
    let row = notify.query_one(query, &[&begun.trace_id]).await.expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (4_500, 0));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_ends_when_its_time_is_over() {
    let clock = referral_svc::Clock::default();
    let shared = clock.clone();
    let pair = Options::default().referral(move |config| config.clock = shared.clone()).start_alone().await;
    crowd(&pair, 100).await;
    let request = CreateBroadcastRequest { recipients_per_second: 5, ..everybody("Hello") };
    let begun = begin(&pair.clients, request).await;
    published(&pair.clients, &begun, 1).await;
    clock.set_ahead(TimeDelta::days(7));
    let over = ended(&pair.clients, &begun).await;
    assert_eq!(over.state(), BroadcastState::Expired);
    assert!(over.published < 100 && millis(over.end_time) >= millis(over.expire_time), "{over:?}");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_arrives_with_all_that_it_says() {
    let sink = Sink::start().await;
    let pair =
        Options::default().notify(|config| config.webhook_signing_secret = Some(SECRET.to_owned())).start().await;
    let mut clients = pair.clients.clone();
    let contact = Contact { channel: "webhook".to_owned(), address: sink.url("/hook") };
    let request =
        RegisterPartnerRequest { contacts: vec![contact], locale: "ru".to_owned(), ..registration("somebody", "") };
    clients.partners.register_partner(request).await.expect("a registration");
    clients.register("nowhere", "").await;
    let begun = begin(
        &clients,
        CreateBroadcastRequest {
            subject: "News".to_owned(),
            button_label: "Read".to_owned(),
            button_url: "https://example.org/news".to_owned(),
            ..everybody("Двадцать процентов\nдо пятницы")
        },
    )
    .await;
    let received = sink.wait_for(1).await;
    let body = String::from_utf8(received[0].body.clone()).expect("text");
    assert!(received.len() == 1 && body.contains("Двадцать процентов\\nдо пятницы"), "{body}");

    let notifications = wait::until("two deliveries", async || {
        let request = ListNotificationsRequest { trace_id: begun.trace_id.clone(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(request).await.expect("a list");
        let found = answer.into_inner().notifications;
        let delivered = found.iter().all(|one| one.state() == NotificationState::Delivered);
        (found.len() == 2 && delivered).then_some(found)
    })
    .await;
    for notification in &notifications {
        assert_eq!(notification.kind(), NotificationKind::OperatorBroadcast);
        assert_eq!(millis(notification.expire_time), millis(begun.expire_time));
    }
    let mut channels: Vec<_> = notifications.iter().map(|one| one.deliveries[0].channel.as_str()).collect();
    channels.sort_unstable();
    assert_eq!(channels, ["log", "webhook"]);
    let query = "SELECT arguments->>'text', arguments->>'subject', arguments->>'button_label', arguments->>'button_url'
                 FROM notifications";
    for row in pair.notify_sql(Role::Superuser).await.query(query, &[]).await.expect("arguments") {
        let arguments = [0, 1, 2, 3].map(|column| row.get::<_, String>(column));
        assert_eq!(arguments, ["Двадцать процентов\nдо пятницы", "News", "Read", "https://example.org/news"]);
    }
    pair.finish().await;
}
