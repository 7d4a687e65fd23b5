//! A recipient whose server never answers, beside a thousand that do.

use std::time::Instant;

use p2phub_tests::{
    sink::{Reply, Sink},
    wait,
};

use super::{Storm, assert_each_came_once, crowd, policy, scaled, to};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_takes_a_quarter_of_the_workers_and_nothing_from_the_others() {
    const WORKERS: u16 = 64;
    const CAP: usize = 16;
    const HEALTHY: usize = 999;
    let waiting = scaled(300);
    let (hanging, sinks) = (Sink::start().await, [Sink::start().await, Sink::start().await, Sink::start().await]);
    hanging.otherwise(Reply::hang());
    let mut storm = Storm::apart(&policy(&[]), WORKERS).await;
    let url = hanging.url("/");
    storm.publish(&(0..waiting).map(|_| to("slow", &url)).collect::<Vec<_>>()).await;
    let begin = Instant::now();
    hanging.wait_for(CAP.min(waiting)).await;
    for (number, sink) in sinks.iter().enumerate() {
        storm.publish(&crowd(&format!("healthy-{number}"), sink, HEALTHY / 3, HEALTHY / 3)).await;
    }
    let settled = "notifications WHERE recipient_id LIKE 'healthy-%' AND state = 'DELIVERED'";
    wait::until("all healthy ones", async || (storm.count(settled).await == HEALTHY).then_some(())).await;
    println!("{HEALTHY} beside {waiting} that hang in {:?}", begin.elapsed());
    // The first that hangs has not even timed out.
    assert_eq!(storm.count("attempts WHERE outcome <> 'DELIVERED'").await, 0);
    assert_each_came_once(&[&sinks[0], &sinks[1], &sinks[2]], HEALTHY);
    assert_eq!(hanging.received().len(), CAP.min(waiting), "a quarter of the workers at most");
    // The rest is out of the way.
    let parked = "deliveries WHERE parked_on LIKE 'domain/webhook/%'";
    assert_eq!(storm.count(parked).await, waiting.saturating_sub(CAP));
    storm.pair.kill_notify();
    storm.finish().await;
}
