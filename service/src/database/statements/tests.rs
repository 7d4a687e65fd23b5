use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanContext, TracerProvider as _};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::telemetry;

/// As diesel writes a query, with binds that nobody may look at.
#[derive(Debug)]
struct Query(&'static str);

struct Secret;

impl fmt::Debug for Secret {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a bind is formatted");
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -- binds: {Secret:?}", self.0)
    }
}

impl DebugQuery for Query {}

const INSERT: Query = Query("INSERT INTO outbox\n   (event) VALUES ($1)");

#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Runs it where spans are recorded; which ones ended, but for those that it made with `tracing`.
fn statements(run: impl FnOnce(Statements)) -> Vec<SpanData> {
    telemetry::ensure();
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let tracer = BoxedTracer::new(Box::new(provider.tracer("test")));
    let statements = Statements::with(tracer, "books");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || run(statements));
    let ended = ended.0.lock().unwrap();
    ended.iter().filter(|span| span.span_kind == SpanKind::Client).cloned().collect()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|it| it.key.as_str() == key).map(|it| it.value.to_string())
}

fn context() -> SpanContext {
    tracing::Span::current().context().span().span_context().clone()
}

#[test]
fn a_statement_is_a_span_of_the_trace_that_it_runs_in() {
    let mut parent = SpanContext::NONE;
    let spans = statements(|mut statements| {
        tracing::info_span!("call").in_scope(|| {
            parent = context();
            statements.begin(&INSERT);
            statements.end(&INSERT, None);
            statements.begin(&Query("COMMIT"));
            statements.end(&Query("COMMIT"), Some("unavailable"));
        });
    });
    let [insert, commit] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((insert.parent_span_id, insert.span_context.trace_id()), (parent.span_id(), parent.trace_id()));
    assert_eq!((insert.name.as_ref(), commit.name.as_ref()), ("INSERT outbox", "COMMIT"));
    for (key, value) in [
        (DB_SYSTEM_NAME, "postgresql"),
        (DB_NAMESPACE, "books"),
        (DB_OPERATION_NAME, "INSERT"),
        (DB_COLLECTION_NAME, "outbox"),
        (DB_QUERY_SUMMARY, "INSERT outbox"),
        (DB_QUERY_TEXT, "INSERT INTO outbox (event) VALUES ($1)"),
    ] {
        assert_eq!(attribute(insert, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!((&insert.status, attribute(insert, ERROR_TYPE)), (&Status::Unset, None));
    assert_eq!((&commit.status, attribute(commit, ERROR_TYPE)), (&Status::error(""), Some("unavailable".to_owned())));
    assert_eq!(attribute(commit, DB_COLLECTION_NAME), None);
    let metrics = telemetry::metrics::prometheus_text();
    for labels in [
        r#"db_operation_name="INSERT",db_system_name="postgresql","#,
        r#"db_operation_name="COMMIT",db_system_name="postgresql",error_type="unavailable","#,
    ] {
        assert!(metrics.contains(&format!("db_client_operation_duration_seconds_bucket{{{labels}")), "{metrics}");
    }
}

#[test]
fn outside_every_span_there_is_none() {
    let spans = statements(|mut statements| {
        statements.begin(&INSERT);
        statements.end(&INSERT, None);
    });
    assert!(spans.is_empty(), "{spans:?}");
}

#[test]
fn what_was_left_in_the_middle_ends_and_is_nobodys_parent() {
    let mut parents = Vec::new();
    let spans = statements(|mut statements| {
        tracing::info_span!("given up").in_scope(|| {
            parents.push(context().span_id());
            statements.begin(&INSERT);
            // Closed, as by a call whose deadline has passed.
            drop(statements);
        });
    });
    let [cancelled] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(attribute(cancelled, ERROR_TYPE).as_deref(), Some(CANCELLED));
    assert_eq!(cancelled.parent_span_id, parents[0]);

    let spans = statements(|mut statements| {
        tracing::info_span!("given up").in_scope(|| statements.begin(&INSERT));
        tracing::info_span!("next").in_scope(|| {
            parents.push(context().span_id());
            statements.begin(&Query("COMMIT"));
            statements.end(&Query("COMMIT"), None);
            statements.begin(&INSERT);
        });
        tracing::info_span!("long afterwards").in_scope(|| drop(statements));
    });
    let [next] = spans.as_slice() else { panic!("nobody knows when the others ended: {spans:?}") };
    assert_eq!((next.name.as_ref(), next.parent_span_id), ("COMMIT", parents[1]));
}

#[test]
fn texts_are_bounded() {
    assert_eq!(one_line("\n SELECT  1,\n   2 "), "SELECT 1, 2");
    for text in ["é".repeat(2000), "é ".repeat(2000), format!("{}é", "x".repeat(TEXT_BYTES_MAX - 1))] {
        let line = one_line(&text);
        assert!((TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).contains(&line.len()), "{}", line.len());
    }
}
