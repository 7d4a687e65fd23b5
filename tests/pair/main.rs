//! The integration tests: both services on real PostgreSQL, over real gRPC.

mod broadcast;
mod chain;
mod concurrency;
mod conformance;
mod delivery;
mod delivery_storm;
mod edge;
mod guards;
mod harness;
mod idempotency;
mod kill_storm;
mod kills;
mod local;
mod model;
mod never_again;
mod operators;
mod outage;
mod payments;
mod publisher;
mod reflection;
mod rules;
mod rules_and_dashboards;
mod start;
mod stream;
mod telegram;
mod wrong_input;

/// The helper binary, for `Options::processes`.
const PAIR_PROCESS: &str = env!("CARGO_BIN_EXE_pair-process");
