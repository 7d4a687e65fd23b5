//! What one recipient whose server hangs costs the others.

use tokio::time::{Duration, Instant, sleep_until};

use super::{HOSTS, Sizes, discard, notify, options};
use crate::{
    latency,
    load::{Producer, request},
    receiver::Receiver,
    table::{median, percentile, row},
};
use p2phub_tests::wait;

const HEALTHY: usize = 999;
/// Notifications to the one that hangs, in the rounds that take turns.
const VARIANTS: [usize; 3] = [0, 1, 300];

pub(super) async fn run(sizes: Sizes, per_second: f64) {
    let mut p99s = VARIANTS.map(|_| Vec::new());
    for round in 1..=sizes.rounds {
        for (hung, p99s) in VARIANTS.into_iter().zip(&mut p99s) {
            let p99 = others_p99(sizes, per_second, hung).await;
            row(format!("round {round}, {hung} to the one that hangs: p99 of the others"), p99, "ms");
            p99s.push(p99);
        }
    }
    let [without, one, many] = p99s.map(median);
    row("median of the p99s without it", without, "ms");
    row("median of the p99s with 1 to the one that hangs", one, "ms");
    row("median of the p99s with 300 to the one that hangs", many, "ms");
    row("ratio of the medians, 1 to the one that hangs", one / without, "times");
    row("ratio of the medians, 300 to the one that hangs", many / without, "times");
}

async fn others_p99(sizes: Sizes, per_second: f64, hung: usize) -> f64 {
    let (pair, _) = notify(options(), 1).await;
    let (receiver, hanging) = (Receiver::start(HOSTS).await, Receiver::hanging().await);
    let mut producer = Producer::open(&pair, "producer").await;
    for _ in 0..hung {
        producer.send(vec![request(HEALTHY, Some(hanging.url(HEALTHY)))]).await;
    }
    producer.settle().await;

    let interval = Duration::from_secs_f64(1.0 / per_second.max(1.0));
    // All of the others at least once, and longer than the first sends hang.
    let count = usize::try_from(sizes.duration().as_nanos() / interval.as_nanos()).unwrap_or_default().max(HEALTHY);
    let start = Instant::now();
    for (index, number) in (0..count).zip(0..) {
        sleep_until(start + interval * number).await;
        let recipient = index % HEALTHY;
        producer.send(vec![request(recipient, Some(receiver.url(recipient)))]).await;
    }
    producer.settle().await;
    wait::until("everything to arrive", async || (receiver.count() >= count).then_some(())).await;
    let took = latency::since_commit(&pair, &receiver.take()).await;
    discard(pair).await;
    percentile(&took, 0.99)
}
