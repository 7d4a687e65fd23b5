//! The integration tests: both services on real PostgreSQL, over real gRPC.

mod audit;
mod books;
mod broadcast;
mod chain;
mod concurrency;
mod conformance;
mod delivery;
mod delivery_storm;
mod edge;
mod failing_call;
mod guards;
mod harness;
mod history;
mod http;
mod idempotency;
mod kill_storm;
mod kills;
mod local;
mod logs;
mod metrics;
mod model;
mod never_again;
mod notices;
mod notify_telemetry;
mod operators;
mod outage;
mod payments;
mod payouts;
mod publisher;
mod races;
mod reconcile;
mod reflection;
mod refunds;
mod rules;
mod rules_and_dashboards;
mod sentry;
mod start;
mod statements;
mod statements_export;
mod stream;
mod telegram;
mod ton;
mod tracing;
mod wrong_input;

/// The helper binary, for `Options::processes`.
const PAIR_PROCESS: &str = env!("CARGO_BIN_EXE_pair-process");
