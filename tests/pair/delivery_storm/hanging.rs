//! A recipient whose server never answers, beside a thousand that do.

use std::time::Instant;

use p2phub_tests::{
    sink::{Reply, Sink},
    wait,
};

use p2phub_proto::notify::v1::{NotificationRequest, RecipientContact};
use p2phub_tests::pair::Options;
use serde_json::json;

use super::{Storm, assert_each_came_once, crowd, every_worker, policy, to};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_takes_a_quarter_of_the_workers_and_nothing_from_the_others() {
    const WORKERS: u16 = 64;
    const CAP: usize = 16;
    const HEALTHY: usize = 999;
    const WAITING: usize = 300;
    let (hanging, sinks) = (Sink::start().await, [Sink::start().await, Sink::start().await, Sink::start().await]);
    hanging.otherwise(Reply::hang());
    let mut storm = Storm::apart(&policy(&[]), WORKERS).await;
    storm.publish(&crowd("slow", &hanging, WAITING, WAITING)).await;
    let begin = Instant::now();
    hanging.wait_for(CAP).await;
    for (number, sink) in sinks.iter().enumerate() {
        storm.publish(&crowd(&format!("healthy-{number}"), sink, HEALTHY / 3, HEALTHY / 3)).await;
    }
    let settled = "notifications WHERE recipient_id LIKE 'healthy-%' AND state = 'DELIVERED'";
    wait::until("all healthy ones", async || (storm.count(settled).await == HEALTHY).then_some(())).await;
    println!("{HEALTHY} beside {WAITING} that hang in {:?}", begin.elapsed());
    // The first that hangs has not even timed out.
    assert_eq!(storm.count("attempts WHERE outcome <> 'DELIVERED'").await, 0);
    assert_each_came_once(&[&sinks[0], &sinks[1], &sinks[2]], HEALTHY);
    assert_eq!(hanging.received().len(), CAP, "a quarter of the workers at most");
    // The rest is out of the way.
    let parked = "deliveries WHERE parked_on LIKE 'domain/webhook/%'";
    wait::until("the rest to be parked", async || (storm.count(parked).await == WAITING - CAP).then_some(())).await;
    storm.pair.kill_notify();
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_hangs_leaves_its_host_to_the_others_there() {
    const HEALTHY: usize = 100;
    let sink = Sink::start().await;
    sink.then_with("/hangs", (0..300).map(|_| Reply::hang()));
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    let url = sink.url("/hangs");
    storm.publish(&(0..300).map(|_| to("hangs", &url)).collect::<Vec<_>>()).await;
    sink.wait_for(2).await;
    storm.publish(&crowd("healthy", &sink, HEALTHY, HEALTHY)).await;
    let settled = "notifications WHERE recipient_id LIKE 'healthy-%' AND state = 'DELIVERED'";
    wait::until("all healthy ones", async || (storm.count(settled).await == HEALTHY).then_some(())).await;
    assert_eq!(storm.count("attempts WHERE outcome <> 'DELIVERED'").await, 0, "none has timed out yet");
    storm.pair.kill_notify();
    storm.finish().await;
}

fn telegram(number: usize) -> NotificationRequest {
    let contact = RecipientContact { channel: "telegram".to_owned(), address: number.to_string() };
    NotificationRequest { contacts: vec![contact], ..to(&format!("chat-{number}"), "") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_takes_a_quarter_of_the_workers_and_nothing_from_other_channels() {
    const CAP: usize = 16;
    const HEALTHY: usize = 300;
    let (hanging, sink) = (Sink::start().await, Sink::start().await);
    hanging.otherwise(Reply::hang());
    let api = hanging.url("");
    let mut storm = Storm::prepare_with(Options::default(), &policy(&[]), 64, move |config| {
        config.telegram_bot_token = Some("1:token".to_owned());
        config.telegram_api_url = api.clone();
    })
    .await
    .begin()
    .await;
    storm.publish(&(0..100).map(telegram).collect::<Vec<_>>()).await;
    hanging.wait_for(CAP).await;
    storm.publish(&crowd("healthy", &sink, HEALTHY, HEALTHY)).await;
    let settled = "notifications WHERE recipient_id LIKE 'healthy-%' AND state = 'DELIVERED'";
    wait::until("all healthy ones", async || (storm.count(settled).await == HEALTHY).then_some(())).await;
    assert_eq!(storm.count("attempts WHERE outcome <> 'DELIVERED'").await, 0, "none has timed out yet");
    assert_eq!(hanging.received().len(), CAP);
    drop(storm.pair.notify.take());
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_resumed_with_a_long_queue_leaves_places_to_whoever_waits_for_other_gates() {
    const QUEUE: usize = 4_000;
    const OTHERS: usize = 30;
    let (sink, telegram_api) = (Sink::start().await, Sink::start().await);
    telegram_api.otherwise(Reply::json(200, &json!({ "ok": true, "result": {} })));
    let api = telegram_api.url("");
    let rate = json!({ "sends": 20, "per_ms": 1000, "burst": 5 });
    let policy = policy(&[("/limits/telegram/provider", rate), ("/in_flight_percent", every_worker())]);
    let storm = Storm::prepare_with(Options::default(), &policy, 4, move |config| {
        config.telegram_bot_token = Some("1:token".to_owned());
        config.telegram_api_url = api.clone();
    })
    .await
    .begin()
    .await;
    let pause = "INSERT INTO gates (gate, closed_until, open_time, reason)
                 VALUES ('channel/webhook', '9999-12-31', '9999-12-31', 'PAUSED')";
    storm.sql.batch_execute(pause).await.expect("a pause");
    storm.publish(&crowd("paused", &sink, QUEUE, QUEUE)).await;
    let parked = "deliveries WHERE parked_on = 'channel/webhook'";
    wait::until("the queue to be parked", async || (storm.count(parked).await == QUEUE).then_some(())).await;
    storm.publish(&(0..OTHERS).map(telegram).collect::<Vec<_>>()).await;
    let resume = "UPDATE gates SET closed_until = to_timestamp(0), open_time = now(), reason = ''
                   WHERE gate = 'channel/webhook'";
    storm.sql.batch_execute(resume).await.expect("an end of the pause");
    telegram_api.wait_for(OTHERS).await;
    let left = storm.count(parked).await;
    assert!(left > 0, "whoever waits for another gate waited for the whole queue");
    storm.delivered(QUEUE + OTHERS).await;
    storm.finish().await;
}
