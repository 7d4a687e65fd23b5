//! The span of a call, by OpenTelemetry's conventions for gRPC servers.

use http::HeaderMap;
use opentelemetry::trace::Status as SpanStatus;
use opentelemetry_semantic_conventions::attribute;
use tonic::Code;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::contract::Rpc;
use crate::error::code_name;
use crate::telemetry;

/// Opens the call's span as a child of the caller's; with its traceparent.
pub(super) fn open(rpc: &Rpc, caller: &str, headers: &HeaderMap, baggage: &str) -> (Span, String) {
    if rpc.infrastructure {
        // At DEBUG nothing exports it: probes would drown the traces. The answer has a trace ID all the same.
        let traceparent = telemetry::traceparent_in(headers);
        let trace_id = telemetry::trace_id_of(&traceparent);
        return (tracing::debug_span!(parent: None, "rpc", rpc = &*rpc.name, caller, trace_id), traceparent);
    }
    let span = tracing::info_span!(
        parent: None,
        "rpc",
        otel.name = rpc.method,
        otel.kind = "server",
        rpc = &*rpc.name,
        caller,
    );
    if let Some(parent) = telemetry::parent_in(headers) {
        let _ = span.set_parent(parent);
    }
    // Attributes, not fields: log lines have no use for them.
    span.set_attribute(attribute::RPC_SYSTEM_NAME, "grpc");
    span.set_attribute(attribute::RPC_METHOD, rpc.method);
    if rpc.method == Rpc::OTHER {
        span.set_attribute(attribute::RPC_METHOD_ORIGINAL, rpc.name.clone());
    }
    telemetry::add_baggage(&span, baggage);
    let traceparent = telemetry::traceparent_of(&span);
    (span, traceparent)
}

/// The call's outcome. To the server's span only the server's own fault is an error.
pub(super) fn close(span: &Span, code: Code) {
    let name = code_name(code);
    span.set_attribute(attribute::RPC_RESPONSE_STATUS_CODE, name);
    if is_servers_fault(code) {
        span.set_attribute(attribute::ERROR_TYPE, name);
        span.set_status(SpanStatus::error(name));
    }
}

fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
