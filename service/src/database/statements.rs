//! Statements as they are run: a span for each in the trace it belongs to, the time it took, a line if that was long.
//!
//! diesel tells of a statement's begin and end. Of a query's rows it knows nothing: one that fails while they are read, after
//! the server took it, counts as having succeeded.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use opentelemetry::{
    Context, KeyValue, StringValue, Value,
    global::{self, BoxedTracer},
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _},
};
use opentelemetry_semantic_conventions::attribute::{
    DB_COLLECTION_NAME, DB_NAMESPACE, DB_OPERATION_NAME, DB_QUERY_SUMMARY, DB_QUERY_TEXT, DB_SYSTEM_NAME, ERROR_TYPE,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{errors, metrics, summary::Summary};

/// What is kept of a statement's text.
const TEXT_BYTES_MAX: usize = 1024;
/// Whoever had asked went away before the answer.
const CANCELLED: &str = "cancelled";

/// In milliseconds; 0: none is slow.
static SLOW_MS: AtomicU64 = AtomicU64::new(250);

/// Statements that take at least this long are logged; zero: none.
pub(crate) fn log_slower_than(limit: Duration) {
    SLOW_MS.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Follows one connection. Statements come one after the other: nothing here sends the next before the answer.
pub(super) struct Statements {
    tracer: BoxedTracer,
    /// The database's name.
    namespace: StringValue,
    running: Option<Running>,
}

struct Running {
    begin: Instant,
    /// None outside every span that records.
    traced: Option<Traced>,
}

struct Traced {
    parent: Context,
    statement: Statement,
}

/// What is told of a statement. It holds no value that was bound.
struct Statement {
    operation: &'static str,
    table: Option<String>,
    summary: String,
    text: String,
}

impl Statements {
    pub(super) fn new(database: &str) -> Self {
        Self::with(global::tracer("p2phub"), database)
    }

    fn with(tracer: BoxedTracer, database: &str) -> Self {
        Self { tracer, namespace: database.to_owned().into(), running: None }
    }

    fn begin(&mut self, query: &dyn DebugQuery) {
        // If one was left in the middle, nobody knows when that was.
        let begin = Instant::now();
        let traced =
            recording().and_then(|parent| Some(Traced { parent, statement: with_text(query, Statement::of)? }));
        self.running = Some(Running { begin, traced });
    }

    fn end(&mut self, query: &dyn DebugQuery, error: Option<&'static str>) {
        let Some(Running { begin, traced }) = self.running.take() else { return };
        let took = begin.elapsed();
        let operation = match &traced {
            Some(traced) => Some(traced.statement.operation),
            None => with_text(query, |text| Summary::of(text).operation),
        };
        metrics::executed(operation.unwrap_or("_OTHER"), took, error);
        if is_slow(took) {
            let untraced = if traced.is_none() { with_text(query, one_line) } else { None };
            let text = traced.as_ref().map(|traced| &traced.statement.text).or(untraced.as_ref());
            log_slow(took, text.map_or("", String::as_str), error);
        }
        if let Some(traced) = traced {
            self.record(traced, took, error);
        }
    }

    /// Ends what was left in the middle, if that is just now and by whoever ran it, rather than long ago.
    fn give_up(&mut self) {
        let Some(Running { begin, traced: Some(traced) }) = self.running.take() else { return };
        if recording().is_none_or(|now| now.span().span_context() != traced.parent.span().span_context()) {
            return;
        }
        let took = begin.elapsed();
        metrics::executed(traced.statement.operation, took, Some(CANCELLED));
        if is_slow(took) {
            log_slow(took, &traced.statement.text, Some(CANCELLED));
        }
        self.record(traced, took, Some(CANCELLED));
    }

    /// The span, made when all is known: nothing stays open if the end never comes.
    fn record(&self, traced: Traced, took: Duration, error: Option<&'static str>) {
        let Traced { parent, statement } = traced;
        let mut attributes = Vec::with_capacity(7);
        let mut add = |key: &'static str, value: Value| attributes.push(KeyValue::new(key, value));
        add(DB_SYSTEM_NAME, metrics::SYSTEM.into());
        add(DB_OPERATION_NAME, statement.operation.into());
        add(DB_NAMESPACE, self.namespace.clone().into());
        add(DB_QUERY_SUMMARY, statement.summary.clone().into());
        add(DB_QUERY_TEXT, statement.text.into());
        if let Some(table) = statement.table {
            add(DB_COLLECTION_NAME, table.into());
        }
        if let Some(error) = error {
            add(ERROR_TYPE, error.into());
        }
        let end = SystemTime::now();
        let mut span = SpanBuilder::from_name(statement.summary)
            .with_kind(SpanKind::Client)
            .with_start_time(end - took)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        if error.is_some() {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(end);
    }
}

impl Instrumentation for Statements {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.begin(query),
            InstrumentationEvent::FinishQuery { query, error, .. } => self.end(query, error.map(errors::kind)),
            _ => {}
        }
    }
}

/// The connection is closed, as it is by a call that is given up in the middle of a statement.
impl Drop for Statements {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Statement {
    fn of(text: &str) -> Self {
        let summary = Summary::of(text);
        Self {
            operation: summary.operation,
            table: summary.table.map(str::to_owned),
            summary: summary.to_string(),
            text: one_line(text),
        }
    }
}

/// The current span's context, if somebody will see what is made in it.
fn recording() -> Option<Context> {
    let span = tracing::Span::current();
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let records = context.span().is_recording();
    records.then_some(context)
}

fn is_slow(took: Duration) -> bool {
    let limit = SLOW_MS.load(Ordering::Relaxed);
    limit > 0 && took.as_millis() >= u128::from(limit)
}

fn log_slow(took: Duration, statement: &str, error: Option<&str>) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(target: "slow_statement", duration_ms, statement, error, "a statement was slow");
}

/// Reads the statement's text, and never its binds: diesel writes the one before the others, and is stopped between them.
fn with_text<T>(query: &dyn DebugQuery, read: impl FnOnce(&str) -> T) -> Option<T> {
    let mut reader = Reader { read: Some(read), found: None };
    // It ends in an error, as it is meant to.
    let _ = write!(reader, "{query}");
    reader.found
}

struct Reader<F, T> {
    read: Option<F>,
    found: Option<T>,
}

impl<T, F: FnOnce(&str) -> T> fmt::Write for Reader<F, T> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let read = self.read.take().ok_or(fmt::Error)?;
        self.found = Some(read(text));
        Ok(())
    }
}

/// The text without its line breaks and indents, cut to its bound.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for word in text.split_ascii_whitespace() {
        let space = if line.is_empty() { "" } else { " " };
        let left = TEXT_BYTES_MAX.saturating_sub(line.len() + space.len());
        if word.len() > left {
            line.push_str(space);
            line.push_str(&word[..word.floor_char_boundary(left)]);
            line.truncate(line.floor_char_boundary(TEXT_BYTES_MAX));
            break;
        }
        line.push_str(space);
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests;
