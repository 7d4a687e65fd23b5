//! Benchmarks of the pair: services as real processes on a private PostgreSQL that keeps what it commits, load over loopback.
//! They print figures and judge none.

mod books;
mod delivery;
mod latency;
mod load;
mod receiver;
mod setting;
mod table;
mod telemetry;
mod throughput;
mod usage;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};
use p2phub_tests::process;

/// As in the services' own binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prints what the pair can do on this machine: a name, a value and a unit a line. Use --release.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// CheckLedger on a million partners: how long, whole and of what is new, and what writers feel of it
    Books(books::Sizes),
    /// Events accepted over the stream, notifications delivered, time from commit to delivery, one recipient that hangs
    Delivery(delivery::Sizes),
    /// What telemetry costs, and what callers feel of a collector that isn't well
    Telemetry(telemetry::Sizes),
    /// Confirmations, signups and reads a second, how long they take, and what PostgreSQL itself can do with the same rows
    Throughput(throughput::Sizes),
}

fn main() -> ExitCode {
    // Services are this very program, run again.
    if env::var_os(process::VARIABLE).is_some() {
        return process::main();
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match cli.benchmark {
            Benchmark::Books(sizes) => books::run(sizes).await,
            Benchmark::Delivery(sizes) => delivery::run(sizes).await,
            Benchmark::Telemetry(sizes) => telemetry::run(sizes).await,
            Benchmark::Throughput(sizes) => throughput::run(sizes).await,
        }
    });
    ExitCode::SUCCESS
}
