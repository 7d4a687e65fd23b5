//! How a log line looks: flat JSON for machines, `key=value` for people, the trace ID and a span ID on each.

mod fields;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{LazyLock, OnceLock};

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{SpanId, TraceId};
use tracing::dispatcher::WeakDispatch;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use fields::Fields;

/// Lines outside every span stand under a trace of the process's own.
pub(super) static PROCESS: LazyLock<(TraceId, SpanId)> = LazyLock::new(|| {
    let random = || uuid::Uuid::new_v4().as_u128();
    let span_id = u64::try_from(random() >> 64).unwrap_or(1);
    (TraceId::from(random()), SpanId::from(span_id))
});

/// Writes a line for each event: its own fields, then those of the spans around it, of which inner ones win.
///
/// A line that names its trace itself, and is in no span, has none of that trace to point at: its span ID is all zeros.
pub(super) struct LogLayer<W> {
    json: bool,
    writer: W,
    /// Kept because the default one can't be asked for while an event is on its way.
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> LogLayer<W> {
    pub(super) fn new(json: bool, writer: W) -> Self {
        LazyLock::force(&PROCESS);
        Self { json, writer, dispatch: OnceLock::new() }
    }

    fn line<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> String
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut own = Fields::default();
        event.record(&mut own);
        let metadata = event.metadata();
        let mut line = Line { json: self.json, text: String::with_capacity(512), written: Vec::with_capacity(16) };
        line.begin(metadata.level().as_str(), own.target.as_deref().unwrap_or(metadata.target()), &own.message);
        line.add(&own);
        let (mut trace_id, mut otel) = (own.trace_id, None);
        let dispatch = self.dispatch.get().and_then(WeakDispatch::upgrade);
        for span in context.event_scope(event).into_iter().flatten() {
            otel = otel.or_else(|| otel_ids(&span.id(), dispatch.as_ref()?));
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.add(fields);
                trace_id = trace_id.or(fields.trace_id);
            }
        }
        match (trace_id, otel) {
            (Some(trace_id), Some((_, span_id))) | (None, Some((trace_id, span_id))) => line.end(trace_id, span_id),
            (Some(trace_id), None) => line.end(trace_id, SpanId::INVALID),
            (None, None) => line.end(PROCESS.0, PROCESS.1),
        }
        line.text
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if !fields.is_empty()
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let mut fields = extensions.remove::<Fields>().unwrap_or_default();
        values.record(&mut fields);
        extensions.insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = self.line(event, &context);
        // Nobody is left to be told that there is no log.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}

/// OpenTelemetry's own IDs, so that no author of a span can forget them.
fn otel_ids(span: &Id, dispatch: &Dispatch) -> Option<(TraceId, SpanId)> {
    let context = tracing_opentelemetry::get_otel_context(span, dispatch)?;
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| (context.trace_id(), context.span_id()))
}

/// A line in the making.
struct Line {
    json: bool,
    text: String,
    /// The names that it has: of two fields the inner one's value stands.
    written: Vec<&'static str>,
}

/// Writing to memory doesn't fail.
macro_rules! put {
    ($line:expr, $($text:tt)*) => {
        let _ = write!($line.text, $($text)*);
    };
}

impl Line {
    fn begin(&mut self, level: &str, target: &str, message: &str) {
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        if self.json {
            let (target, message) = (fields::quoted(target), fields::quoted(message));
            put!(self, r#"{{"timestamp":"{time}","level":"{level}","target":{target},"message":{message}"#);
        } else {
            put!(self, "{time} {level:>5} {target}: {}", message.escape_debug());
        }
    }

    fn add(&mut self, fields: &Fields) {
        for (name, value) in &fields.rest {
            if self.written.contains(name) {
                continue;
            }
            self.written.push(name);
            // What each line has by itself isn't said twice.
            let mark = if matches!(*name, "timestamp" | "level" | "target" | "span_id") { "_" } else { "" };
            if self.json {
                put!(self, r#","{name}{mark}":{value}"#);
            } else {
                put!(self, " {name}{mark}={}", fields::plain(value));
            }
        }
    }

    fn end(&mut self, trace_id: TraceId, span_id: SpanId) {
        if self.json {
            put!(self, r#","trace_id":"{trace_id}","span_id":"{span_id}"}}"#);
        } else {
            put!(self, " trace_id={trace_id} span_id={span_id}");
        }
        self.text.push('\n');
    }
}
