//! How much the pair takes, and how long a call takes meanwhile, beside what PostgreSQL itself can do with the same rows on the
//! same machine.

mod load;
mod network;
mod overload;
mod reads;
mod unloaded;
mod writes;
mod yardsticks;

use std::time::Duration;

use clap::Args;
use p2phub_tests::{
    clients::Clients,
    pair::{Options, Pair},
};

use crate::{
    books,
    setting::{self, discard},
    table::{row, section},
};

/// Connections that the load comes over.
const CONNECTIONS: usize = 8;

/// How much of everything.
#[derive(Args, Clone, Copy)]
pub(crate) struct Sizes {
    /// How long each load lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Partners that are there before, about ten entries for each; 0: an empty database
    #[arg(long, default_value_t = 0)]
    partners: u32,
    /// Rounds of each maximum, the best of which counts
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Just to see it run: 2 seconds, 1 round
    #[arg(long)]
    quick: bool,
}

impl Sizes {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) async fn run(sizes: Sizes) {
    let sizes = if sizes.quick { Sizes { seconds: 2, rounds: 1, ..sizes } } else { sizes };
    println!("Services are processes of their own; PostgreSQL and the load share the machine with them.");
    println!("PostgreSQL: {}. Every sale pays nine ancestors.", setting::durable(sizes.quick).await);

    section("referral-svc alone, before and under load");
    let pair = filled(setting::options(), sizes).await;
    let referral = pair.referral.as_ref().expect("referral-svc runs");
    row("resident memory, idle", crate::usage::resident_mib(referral), "MiB");
    let unloaded = unloaded::run(&pair).await;
    let confirmations = writes::run(&pair, sizes).await;
    row("resident memory, after the load", crate::usage::resident_mib(referral), "MiB");

    section("Reads, each alone and then all of them at 1,000/s beside confirmations at half of their maximum");
    reads::run(&pair, sizes, confirmations).await;

    section("Confirmations at twice their maximum: what is too much is refused with RESOURCE_EXHAUSTED");
    overload::run(&pair, sizes, confirmations).await;

    section("Yardstick 1: pgbench, one transaction a confirmation, by a function in SQL that writes the same rows");
    let sql = yardsticks::pgbench(&pair, sizes).await;
    section(
        "Yardstick 3: COPY of the rows that confirmations left, in large batches, into the same tables with their indexes",
    );
    let copy = yardsticks::copy(&pair).await;
    discard(pair).await;

    section("Yardstick 2: the same service, one command a transaction");
    let pair = filled(setting::options().variable("REFERRAL_BATCH_MAX", "1"), sizes).await;
    let single = writes::confirmations(&pair, sizes).await;
    discard(pair).await;

    section("Ratios");
    row("confirmations to yardstick 1 (pgbench)", confirmations / sql, "times");
    row("confirmations to yardstick 2 (batches of one)", confirmations / single, "times");
    row("confirmations to yardstick 3 (COPY)", confirmations / copy, "times");
    row("unloaded p50 of a confirmation to that of the function in SQL", unloaded, "times");
}

async fn filled(options: Options, sizes: Sizes) -> Pair {
    let pair = options.start_alone().await;
    if sizes.partners > 0 {
        books::fill(&pair, sizes.partners).await;
    }
    network::grow(&pair).await;
    pair
}

/// Clients on connections of their own.
fn connections(pair: &Pair) -> Vec<Clients> {
    (0..CONNECTIONS).map(|_| Clients::new(pair.referral_address, pair.notify_address)).collect()
}
