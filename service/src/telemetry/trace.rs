//! The W3C trace context: of the current span, of a caller, of a stored row.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::baggage::add_baggage;

const TRACEPARENT: &str = "traceparent";
/// Today's version has 55 bytes; that leaves room for what later ones add.
const MAX_LENGTH: usize = 128;

/// The current span's W3C traceparent; outside any span that of a trace begun here and now.
pub fn current_traceparent() -> String {
    traceparent_of(&Span::current())
}

/// The current span's trace ID, 32 hex digits; outside any span a new one.
pub fn current_trace_id() -> String {
    trace_id_part(&current_traceparent()).to_owned()
}

/// A span's W3C traceparent; that of a new trace if the span is in none.
pub fn traceparent_of(span: &Span) -> String {
    match context_of(span) {
        Some(context) => format_traceparent(context.span().span_context()),
        None => new_traceparent(),
    }
}

/// Makes a span that has not been entered yet the child of a remote one. An invalid traceparent changes nothing.
pub fn set_parent(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        // It fails for a span that is switched off or already entered: then that span's own trace goes on.
        let _ = span.set_parent(context);
    }
}

/// As `set_parent`, with the baggage that came along as attributes.
pub fn set_parent_with_baggage(span: &Span, traceparent: &str, baggage: &str) {
    set_parent(span, traceparent);
    add_baggage(span, baggage);
}

/// Links a span to another trace: for what runs much later than its cause. An invalid traceparent changes nothing.
pub fn add_link(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        span.add_link(context.span().span_context().clone());
    }
}

/// Links a span, entered or not, to another one of this process.
pub fn link(span: &Span, other: &Span) {
    if let Some(context) = context_of(other) {
        span.add_link(context.span().span_context().clone());
    }
}

/// Says that what the span stands for failed. An error that is logged in the span has said so already.
pub fn mark_failed(span: &Span, why: &'static str) {
    span.set_status(Status::error(why));
}

/// Ends and exports the span now, even if it is dropped later. Lines can still be logged in it, but no failure noted.
pub fn end(span: &Span) {
    if let Some(context) = context_of(span) {
        context.span().end();
    }
}

/// Puts the span's trace into the metadata of a call that goes out.
pub fn propagate(span: &Span, metadata: &mut MetadataMap) {
    if let Ok(traceparent) = traceparent_of(span).parse() {
        metadata.insert(TRACEPARENT, traceparent);
    }
}

/// The trace ID in a W3C traceparent, if that is valid.
pub fn trace_id_of(traceparent: &str) -> Option<String> {
    is_traceparent(traceparent).then(|| trace_id_part(traceparent).to_owned())
}

/// The current span's context, if it is in a trace.
pub(super) fn current() -> Option<Context> {
    context_of(&Span::current())
}

/// The trace context that a caller sent; none if the traceparent is missing or invalid.
pub(crate) fn parent_in(headers: &HeaderMap) -> Option<Context> {
    let headers = Headers(headers);
    headers.get(TRACEPARENT).filter(|value| is_traceparent(value))?;
    Some(TraceContextPropagator::new().extract(&headers))
}

/// The traceparent that a caller sent, or that of a new trace: for a call that has no span of its own.
pub(crate) fn traceparent_in(headers: &HeaderMap) -> String {
    let headers = Headers(headers);
    let sent = headers.get(TRACEPARENT).filter(|value| is_traceparent(value));
    sent.map_or_else(new_traceparent, str::to_owned)
}

fn context_of(span: &Span) -> Option<Context> {
    Some(span.context()).filter(|context| context.span().span_context().is_valid())
}

fn parse(traceparent: &str) -> Option<Context> {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, traceparent.parse().ok()?);
    parent_in(&headers)
}

fn format_traceparent(context: &SpanContext) -> String {
    let flags = u8::from(context.is_sampled());
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

fn new_traceparent() -> String {
    let trace_id = uuid::Uuid::new_v4().simple().to_string();
    let span_id = uuid::Uuid::new_v4().simple().to_string();
    format!("00-{trace_id}-{}-01", &span_id[..16])
}

fn trace_id_part(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// Stricter than the propagator, which takes IDs of any length. What is valid is safe to store as it came: short, and plain text.
fn is_traceparent(value: &str) -> bool {
    if value.len() > MAX_LENGTH || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return false;
    }
    let mut parts = value.split('-');
    let mut next = |length: usize| {
        parts.next().filter(|part| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (version, trace_id, span_id, flags) = (next(2), next(32), next(16), next(2));
    let is_id = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|b| b != b'0'));
    match version {
        None | Some("ff") => false,
        // Later versions may add parts.
        Some(version) => {
            is_id(trace_id) && is_id(span_id) && flags.is_some() && (version != "00" || parts.next().is_none())
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_traceparent_gives_its_trace_id() {
        assert_eq!(trace_id_of(VALID).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let later = format!("cc-{}-what-comes", &VALID[3..]);
        assert!(trace_id_of(&later).is_some());
    }

    #[test]
    fn an_invalid_traceparent_gives_none() {
        for invalid in [
            "",
            "00-1-2-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(trace_id_of(invalid), None, "{invalid}");
        }
        for tail in ["-\0", "-two words", "more", &"-more".repeat(100)] {
            let later = format!("cc-{}{tail}", &VALID[3..]);
            assert_eq!(trace_id_of(&later), None, "{later}");
        }
    }

    #[test]
    fn without_a_span_a_trace_is_begun() {
        assert!(is_traceparent(&current_traceparent()));
        assert_ne!(current_trace_id(), current_trace_id());
    }
}
