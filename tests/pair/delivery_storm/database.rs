//! PostgreSQL away in the middle of deliveries: restarted, killed, or cut off.

use std::{sync::Arc, time::Duration};

use p2phub_tests::{
    pair::Options,
    postgres::{Role, Server},
    sink::{Reply, Sink},
    wait,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{LIMIT, Storm, arrivals, crowd, policy, scaled};
use crate::model::seed;

/// Slow enough that something is always in flight.
const ANSWER: Duration = Duration::from_millis(30);

async fn slow_sink() -> Sink {
    let sink = Sink::start().await;
    sink.otherwise(Reply::status(200).after(ANSWER));
    sink
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_restarted_and_killed_loses_nothing() {
    let count = scaled(800);
    let server = Arc::new(Server::own().await);
    let sink = slow_sink().await;
    let mut storm = Storm::prepare(Options::default().server(server.clone()), &policy(&[]), 64).await.begin().await;
    storm.publish(&crowd("r", &sink, 50, count)).await;
    for (part, killed) in [(1, true), (2, false)] {
        sink.wait_for(count * part / 4).await;
        if killed {
            server.kill().await.expect("a kill");
        } else {
            server.stop().await.expect("a stop");
        }
        // What is in flight ends meanwhile, and can't be settled.
        let seen = sink.received().len();
        tokio::time::sleep(ANSWER * 10).await;
        assert!(sink.received().len() <= seen + 64, "sent without a lease");
        server.start().await.expect("a start");
    }
    storm.sql = storm.pair.notify_sql(Role::Superuser).await;
    all_delivered(&storm, &sink, count).await;
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_postgresql_cut_in_the_middle_lose_nothing() {
    let count = scaled(800);
    let mut random = StdRng::seed_from_u64(seed());
    let sink = slow_sink().await;
    let storm = Storm::prepare(Options::default().proxied(), &policy(&[]), 64).await.begin().await;
    storm.publish(&crowd("r", &sink, 50, count)).await;
    for part in 1..=12 {
        sink.wait_for(count * part / 16).await;
        // Anywhere within a turn, COMMIT included.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..40_000))).await;
        storm.pair.proxies().database.cut_once();
    }
    all_delivered(&storm, &sink, count).await;
    storm.finish().await;
}

/// A claim whose commit was lost holds what nobody sends, until the leases end.
async fn all_delivered(storm: &Storm, sink: &Sink, count: usize) {
    let delivered = "notifications WHERE state = 'DELIVERED'";
    wait::until_within(LIMIT, "all to be delivered", async || (storm.count(delivered).await == count).then_some(()))
        .await;
    storm.delivered(count).await;
    assert_eq!(arrivals(&[sink]).len(), count, "each came");
    storm.assert_repeats_are_on_record(&[sink]).await;
    let repeated = arrivals(&[sink]).values().filter(|times| **times > 1).count();
    println!("{repeated} of {count} repeated");
}
