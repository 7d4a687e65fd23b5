//! The test harness: throw-away databases, services to start and kill, a proxy that cuts, a sink that answers as told.
//!
//! Everything here panics when it fails: it is for tests.

pub mod builders;
pub mod clients;
pub mod hold;
pub mod instance;
pub mod otlp;
pub mod pair;
pub mod ports;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod raw;
pub mod refusal;
pub mod sentry;
pub mod sink;
pub mod smtp;
pub mod wait;
