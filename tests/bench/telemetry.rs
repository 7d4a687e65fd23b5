//! What telemetry costs: throughput with it and without, and an RPC's p99 while the collector is well, slow, silent or away.

mod away;
mod collector;
mod cost;
mod sales;

use std::time::Duration;

use clap::Args;

use crate::{setting, table::section};

/// How much of everything.
#[derive(Args, Clone, Copy)]
pub(crate) struct Sizes {
    /// How long each load at a fixed rate lasts
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Sales in each throughput run
    #[arg(long, default_value_t = 10_000)]
    sales: usize,
    /// Rounds, each with every variant, taking turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Just to see it run: 3 seconds, 1,000 sales, 1 round
    #[arg(long)]
    quick: bool,
}

impl Sizes {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) async fn run(sizes: Sizes) {
    let sizes = if sizes.quick { Sizes { seconds: 3, sales: 1_000, rounds: 1, ..sizes } } else { sizes };
    println!(
        "Services are processes of their own; PostgreSQL, the load, the collector and what stands in for Sentry share the"
    );
    println!("machine with them. PostgreSQL: {}. Every run has a fresh database.", setting::durable(sizes.quick).await);
    section(
        "Telemetry's cost: sales with nine ancestors a second, 64 callers; without: every variable of telemetry is unset;",
    );
    println!("  with: OTLP (every trace, metrics) to a collector and Sentry at its default rate; taking turns");
    cost::run(sizes).await;
    section(
        "An RPC's time while the collector is well, slow (2 s an answer), silent (takes connections, never answers), away",
    );
    println!("  (nothing listens), or not configured: at fixed rates, taking turns");
    away::run(sizes).await;
}
