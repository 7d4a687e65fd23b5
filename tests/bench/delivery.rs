//! Delivery: what is accepted, what goes out, and how long it takes.

mod accepted;
mod hanging;
mod steady;
mod sustained;

use std::time::Duration;

use clap::Args;
use p2phub_tests::{
    instance::Instance,
    pair::{Options, Pair},
    ports,
    postgres::Role,
};
use tokio::time::sleep;

use crate::{
    setting::{self, discard},
    table::{row, section},
    usage::resident_mib,
};

/// Signs the webhooks.
const SECRET: &str = "whsec_YmVuY2htYXJrcyBhcmUgc2lnbmVkIHRvbywgbGlrZSBhbGw=";
/// Addresses of the receiver: enough that no host's share of the workers is the limit.
const HOSTS: usize = 16;

/// How much of everything.
#[derive(Args, Clone, Copy)]
pub(crate) struct Sizes {
    /// Notifications in each backlog
    #[arg(long, default_value_t = 20_000)]
    notifications: usize,
    /// How long each load at a fixed rate lasts
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rounds with and without a recipient that hangs, taking turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Just to see it run: 1,000 notifications, 3 seconds, 1 round
    #[arg(long)]
    quick: bool,
}

impl Sizes {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) async fn run(sizes: Sizes) {
    let sizes = if sizes.quick { Sizes { notifications: 1_000, seconds: 3, rounds: 1, ..sizes } } else { sizes };
    let settings = setting::durable(sizes.quick).await;
    println!("Services are processes of their own; PostgreSQL, the load and the receiver share the machine with them.");
    println!("PostgreSQL: {settings}. The receiver has {HOSTS} addresses unless it is said otherwise.");
    section("Idle");
    idle().await;
    section("Accepted over the Publish stream, until acknowledged; deliveries to `log` go out meanwhile");
    accepted::run(sizes).await;
    section("Delivered from a backlog, until settled, without the time while it was published");
    let per_second = sustained::run(sizes).await;
    section(
        "Sales through referral-svc at half of that rate, arriving at fixed times: from the commit to the receiver",
    );
    println!(
        "  (from the sale's time by the database's clock, its commit included, to the request in full at its server)"
    );
    steady::run(sizes, per_second / 2.0).await;
    section("One recipient whose server hangs beside 999 others, at half of that rate: the others' time");
    println!("  (from the publisher's sending to the request in full at its server; every round on a fresh database)");
    hanging::run(sizes, per_second / 2.0).await;
}

async fn idle() {
    let (pair, _) = notify(options(), 1).await;
    sleep(Duration::from_secs(2)).await;
    let notify = pair.notify.as_ref().expect("notify-svc runs");
    row("resident memory of notify-svc, as a part of this program", resident_mib(notify), "MiB");
    discard(pair).await;
}

/// Processes that sign webhooks.
fn options() -> Options {
    setting::options().variable("WEBHOOK_SIGNING_SECRET", SECRET)
}

/// Instances of notify-svc on a fresh database; the first one is where the stream leads.
async fn notify(options: Options, instances: usize) -> (Pair, Vec<Instance>) {
    let mut pair = options.prepare().await;
    pair.start_notify().await;
    let mut others = Vec::new();
    for _ in 1..instances {
        others.push(pair.another_notify(ports::free()).await);
    }
    (pair, others)
}

/// Deliveries that aren't settled.
async fn open_deliveries(client: &tokio_postgres::Client) -> usize {
    let query = "SELECT count(*) FROM deliveries WHERE settle_time IS NULL";
    let count: i64 = client.query_one(query, &[]).await.expect("a count").get(0);
    usize::try_from(count).unwrap_or_default()
}

async fn notify_sql(pair: &Pair) -> tokio_postgres::Client {
    pair.notify_sql(Role::Superuser).await
}
