//! The calls in figures: how many, how long, how they ended.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry_semantic_conventions::{attribute, metric};
use tonic::Code;

use super::contract::Rpc;
use crate::error::code_name;
use crate::telemetry::metrics::meter;

const REASON_BYTES_MAX: usize = 40;

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram(metric::RPC_SERVER_CALL_DURATION)
        .with_unit("s")
        .with_description("How long unary calls took; its count is that of the calls")
        .build()
});

static ERRORS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("p2phub.rpc.errors")
        .with_description("Calls and streams that ended with another status than OK, by reason")
        .build()
});

/// Health checks and reflection don't count: they would thin out the share of errors. A stream lasts as long as its client
/// likes, which says nothing of the server and would spoil the latencies: of streams only the errors count.
pub(super) fn record(rpc: &Rpc, code: Code, reason: Option<&str>, took: Duration) {
    if rpc.infrastructure {
        return;
    }
    let status = code_name(code);
    let method = KeyValue::new(attribute::RPC_METHOD, rpc.method);
    let code_label = KeyValue::new(attribute::RPC_RESPONSE_STATUS_CODE, status);
    if code != Code::Ok {
        let reason = reason.map_or_else(|| status.to_owned(), bounded);
        ERRORS.add(1, &[method.clone(), code_label.clone(), KeyValue::new("reason", reason)]);
    }
    if !rpc.streams {
        let system = KeyValue::new(attribute::RPC_SYSTEM_NAME, "grpc");
        DURATION.record(took.as_secs_f64(), &[system, method, code_label]);
    }
}

/// Reasons are ours, and few; whatever else came here must not become labels without end.
fn bounded(reason: &str) -> String {
    let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let known = (1..=REASON_BYTES_MAX).contains(&reason.len()) && reason.bytes().all(is_name);
    if known { reason } else { Rpc::OTHER }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        assert_eq!(bounded("PARTNER_NOT_FOUND"), "PARTNER_NOT_FOUND");
        for other in ["", "partner 7 is unknown", "имя", &"X".repeat(41)] {
            assert_eq!(bounded(other), Rpc::OTHER, "{other}");
        }
    }
}
