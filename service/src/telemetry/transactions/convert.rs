//! A span of OpenTelemetry's in Sentry's words.

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{Array, Value};
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_semantic_conventions::attribute::{
    DB_QUERY_TEXT, DB_SYSTEM_NAME, HTTP_REQUEST_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use sentry::protocol::{Event, Map, Span, SpanStatus, TraceContext, Transaction};

use super::REFUSED;
use crate::telemetry::scrub;

/// The answers that a caller's own mistake gets, or its impatience, or too many calls: none tells of the service. The
/// metrics count them.
const EXPECTED: [&str; 10] = [
    "CANCELLED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
];

/// Whether a transaction is to be made of what this span began: not of refusals, of questions for health, or of jobs that
/// look whether there is something to do.
pub(super) fn is_worth_one(root: &SpanData) -> bool {
    let refused = attribute(root, REFUSED).is_some_and(|refused| *refused == Value::Bool(true));
    let expected = code(root).is_some_and(|code| EXPECTED.contains(&code.as_str()));
    let is_job = matches!(root.span_kind, SpanKind::Internal)
        && root.parent_span_id == SpanId::INVALID
        && root.links.links.is_empty();
    !refused && !expected && !is_job && !root.name.starts_with("grpc.")
}

/// The transaction, scrubbed.
pub(super) fn transaction(
    root: SpanData,
    children: Vec<SpanData>,
    event: &Event<'static>,
    service: &str,
) -> Transaction<'static> {
    let trace_id = root.span_context.trace_id();
    let trace = TraceContext {
        trace_id: trace_id.to_bytes().into(),
        span_id: root.span_context.span_id().to_bytes().into(),
        parent_span_id: parent_id(&root),
        op: Some(op(&root).to_owned()),
        status: Some(status(&root)),
        origin: Some("auto.otel".to_owned()),
        data: data(&root),
        ..TraceContext::default()
    };
    let mut contexts = event.contexts.clone();
    contexts.insert("trace".to_owned(), trace.into());
    let tags = [("service", service.to_owned()), ("trace_id", trace_id.to_string())];
    let mut transaction = Transaction {
        name: Some(root.name.into_owned()),
        release: event.release.clone(),
        environment: event.environment.clone(),
        server_name: event.server_name.clone(),
        sdk: event.sdk.clone(),
        platform: "native".into(),
        start_timestamp: root.start_time,
        timestamp: Some(root.end_time),
        tags: tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        spans: children.into_iter().map(span).collect(),
        contexts,
        ..Transaction::default()
    };
    scrub::transaction(&mut transaction);
    transaction
}

fn span(span: SpanData) -> Span {
    let text = attribute(&span, DB_QUERY_TEXT).map(|text| text.as_str().into_owned());
    Span {
        span_id: span.span_context.span_id().to_bytes().into(),
        trace_id: span.span_context.trace_id().to_bytes().into(),
        parent_span_id: parent_id(&span),
        same_process_as_parent: Some(!span.parent_span_is_remote),
        op: Some(op(&span).to_owned()),
        status: Some(status(&span)),
        data: data(&span),
        start_timestamp: span.start_time,
        timestamp: Some(span.end_time),
        description: Some(text.unwrap_or_else(|| span.name.into_owned())),
        ..Span::default()
    }
}

fn parent_id(span: &SpanData) -> Option<sentry::protocol::SpanId> {
    (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_bytes().into())
}

/// The last value: one that is set again comes later.
fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().rev().find(|attribute| attribute.key.as_str() == name).map(|attribute| &attribute.value)
}

fn code(span: &SpanData) -> Option<String> {
    attribute(span, RPC_RESPONSE_STATUS_CODE).map(|code| code.as_str().into_owned())
}

fn op(span: &SpanData) -> &'static str {
    let has = |name| attribute(span, name).is_some();
    match span.span_kind {
        _ if has(DB_SYSTEM_NAME) => "db",
        SpanKind::Server => "grpc.server",
        SpanKind::Producer => "queue.publish",
        SpanKind::Consumer => "queue.process",
        SpanKind::Client if has(HTTP_REQUEST_METHOD) => "http.client",
        SpanKind::Client if has(RPC_SYSTEM_NAME) => "grpc.client",
        SpanKind::Client | SpanKind::Internal => "function",
    }
}

fn status(span: &SpanData) -> SpanStatus {
    match code(span).as_deref() {
        Some("OK") => SpanStatus::Ok,
        Some("CANCELLED") => SpanStatus::Cancelled,
        Some("UNKNOWN") => SpanStatus::UnknownError,
        Some("INVALID_ARGUMENT") => SpanStatus::InvalidArgument,
        Some("DEADLINE_EXCEEDED") => SpanStatus::DeadlineExceeded,
        Some("NOT_FOUND") => SpanStatus::NotFound,
        Some("ALREADY_EXISTS") => SpanStatus::AlreadyExists,
        Some("PERMISSION_DENIED") => SpanStatus::PermissionDenied,
        Some("RESOURCE_EXHAUSTED") => SpanStatus::ResourceExhausted,
        Some("FAILED_PRECONDITION") => SpanStatus::FailedPrecondition,
        Some("ABORTED") => SpanStatus::Aborted,
        Some("OUT_OF_RANGE") => SpanStatus::OutOfRange,
        Some("UNIMPLEMENTED") => SpanStatus::Unimplemented,
        Some("UNAVAILABLE") => SpanStatus::Unavailable,
        Some("DATA_LOSS") => SpanStatus::DataLoss,
        Some("UNAUTHENTICATED") => SpanStatus::Unauthenticated,
        Some(_) => SpanStatus::InternalError,
        None if matches!(span.status, Status::Error { .. }) => SpanStatus::InternalError,
        None => SpanStatus::Ok,
    }
}

/// All attributes but the caller's baggage, which is nobody's business here.
fn data(span: &SpanData) -> Map<String, serde_json::Value> {
    let own = span.attributes.iter().filter(|attribute| !attribute.key.as_str().starts_with("baggage."));
    own.map(|attribute| (attribute.key.as_str().to_owned(), json(&attribute.value))).collect()
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Array(Array::String(values)) => values.iter().map(|value| value.as_str()).collect(),
        other => other.as_str().into(),
    }
}
