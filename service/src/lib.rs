//! What both services share about running a process: telemetry, the edge of the gRPC server, errors,
//! database pool, health and metrics over HTTP, shutdown.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod call;
pub mod database;
pub mod error;
pub mod health;
pub mod http;
pub mod interruption;
pub mod peer;
pub mod process;
pub mod server;
pub mod shutdown;
pub mod telemetry;
