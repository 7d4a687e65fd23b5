//! How much is accepted while nothing else limits it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use p2phub_tests::pair::{Options, Pair};

use super::{Sizes, discard, notify, options};
use crate::{
    load::{Producer, request},
    table::row,
};

const PRODUCERS: usize = 4;

pub(super) async fn run(sizes: Sizes) {
    let duration = sizes.duration() / 4;
    measure(options(), "64 workers", duration).await;
    measure(options().variable("NOTIFY_WORKERS", "1"), "1 worker, so that hardly anything else runs", duration).await;
}

async fn measure(options: Options, workers: &str, duration: Duration) {
    let (pair, _) = notify(options, 1).await;
    for requests in [1, 10] {
        let per_second = events_per_second(&pair, requests, duration).await;
        let name = format!("{PRODUCERS} producers, {requests} to an event, {workers}");
        row(format!("{name}: events"), per_second, "events/s");
        row(format!("{name}: notifications"), per_second * requests as f64, "notifications/s");
    }
    discard(pair).await;
}

async fn events_per_second(pair: &Pair, requests: usize, duration: Duration) -> f64 {
    let names: Vec<String> = (0..PRODUCERS).map(|number| format!("producer-{requests}-{number}")).collect();
    let mut producers = join_all(names.iter().map(|name| Producer::open(pair, name))).await;
    let start = Instant::now();
    let sent = join_all(producers.iter_mut().map(|producer| publish(producer, requests, start + duration))).await;
    sent.iter().sum::<usize>() as f64 / start.elapsed().as_secs_f64()
}

/// How many events it sent, all of them acknowledged.
async fn publish(producer: &mut Producer, requests: usize, end: Instant) -> usize {
    let mut sent = 0;
    while Instant::now() < end {
        producer.send((0..requests).map(|index| request(sent + index, None)).collect()).await;
        sent += 1;
    }
    producer.settle().await;
    sent
}
