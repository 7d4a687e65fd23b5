//! How fast a backlog goes out, and who is busy meanwhile.

use std::time::{Duration, Instant};

use p2phub_tests::{instance::Instance, pair::Pair};
use tokio::time::sleep;

use super::{HOSTS, Sizes, discard, notify, notify_sql, open_deliveries, options};
use crate::{
    load::{Producer, request},
    receiver::Receiver,
    table::row,
    usage::{Cores, Watch, resident_mib},
};

/// Requests to an event of the backlog.
const REQUESTS: usize = 10;
/// Recipients that they go to.
const RECIPIENTS: usize = 1_000;
/// A backlog that takes longer is left alone.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns what one instance delivers a second to web servers.
pub(super) async fn run(sizes: Sizes) -> f64 {
    let receiver = Receiver::start(HOSTS).await;
    let one = measure("webhooks, 1 instance", sizes, 1, Some(&receiver)).await;
    let two = measure("webhooks, 2 instances", sizes, 2, Some(&receiver)).await;
    row("webhooks, 2 instances to 1", two / one, "times");
    let host = measure("webhooks to a single host, 1 instance", sizes, 1, Some(&Receiver::start(1).await)).await;
    row("webhooks, a single host to many", host / one, "times");
    let log = measure("`log`, 1 instance", sizes, 1, None).await;
    row("`log` to webhooks", log / one, "times");
    one
}

async fn measure(name: &str, sizes: Sizes, instances: usize, receiver: Option<&Receiver>) -> f64 {
    let (pair, others) = notify(options(), instances).await;
    let first = pair.notify.as_ref().expect("notify-svc runs");
    fill(&pair, sizes.notifications, receiver).await;
    let services: Vec<&Instance> = others.iter().chain([first]).collect();
    let (per_second, cores) = drain(&pair, &services).await;
    row(format!("{name}: delivered"), per_second, "notifications/s");
    row(format!("{name}: PostgreSQL"), cores.postgres, "cores busy");
    row(format!("{name}: notify-svc"), cores.services, "cores busy");
    row(format!("{name}: this program, receiver included"), cores.bench, "cores busy");
    if instances == 1 {
        row(format!("{name}: resident memory of notify-svc afterwards"), resident_mib(first), "MiB");
    }
    drop(others);
    discard(pair).await;
    per_second
}

async fn fill(pair: &Pair, notifications: usize, receiver: Option<&Receiver>) {
    let mut producer = Producer::open(pair, "backlog").await;
    for first in (0..notifications).step_by(REQUESTS) {
        let to = |index: usize| request(index % RECIPIENTS, receiver.map(|receiver| receiver.url(index % RECIPIENTS)));
        producer.send((first..first + REQUESTS).map(to).collect()).await;
    }
    producer.settle().await;
}

/// Deliveries settled a second from now until the last one, and who was busy meanwhile.
async fn drain(pair: &Pair, services: &[&Instance]) -> (f64, Cores) {
    let client = notify_sql(pair).await;
    let watch = Watch::begin(pair, services).await;
    let (start, before) = (Instant::now(), open_deliveries(&client).await);
    let mut left = before;
    while left > 0 && start.elapsed() < LIMIT {
        sleep(Duration::from_millis(100)).await;
        left = open_deliveries(&client).await;
    }
    let cores = watch.end();
    ((before - left) as f64 / start.elapsed().as_secs_f64(), cores)
}
