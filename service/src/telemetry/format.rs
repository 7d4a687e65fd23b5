//! How a log line looks: flat JSON for machines, `key=value` for people, the trace ID on both.

use std::fmt;

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields of the event and of the spans around it (inner ones win) on one line.
pub(super) struct LogFormat {
    pub(super) json: bool,
}

impl<S> FormatEvent<S, JsonFields> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        let mut trace_id = None;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                fields.add_span(span.extensions().get::<FormattedFields<JsonFields>>());
                trace_id = trace_id_of(&span.id()).or(trace_id);
            }
        }
        event.record(&mut fields);
        if let Some(trace_id) = trace_id {
            fields.map.insert("trace_id".to_owned(), Value::String(trace_id));
        }
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        if self.json {
            let message = Value::String(fields.message);
            write!(writer, r#"{{"timestamp":"{time}","level":"{level}","target":"{target}","message":{message}"#)?;
            for (key, value) in &fields.map {
                write!(writer, ",{}:{value}", Value::String(key.clone()))?;
            }
            writeln!(writer, "}}")
        } else {
            write!(writer, "{time} {level:>5} {target}: {}", fields.message.escape_debug())?;
            for (key, value) in &fields.map {
                match value.as_str().filter(|text| is_plain(text)) {
                    Some(text) => write!(writer, " {key}={text}")?,
                    None => write!(writer, " {key}={value}")?,
                }
            }
            writeln!(writer)
        }
    }
}

/// Taken from the span itself, so that no author of a span can forget it.
fn trace_id_of(span: &tracing::span::Id) -> Option<String> {
    let context = tracing::dispatcher::get_default(|dispatch| tracing_opentelemetry::get_otel_context(span, dispatch))?;
    let trace_id = context.span().span_context().trace_id();
    (trace_id != opentelemetry::TraceId::INVALID).then(|| trace_id.to_string())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=')
}

#[derive(Default)]
struct Fields {
    message: String,
    map: Map<String, Value>,
}

impl Fields {
    fn add_span(&mut self, formatted: Option<&FormattedFields<JsonFields>>) {
        let parsed = formatted.and_then(|fields| serde_json::from_str(&fields.fields).ok());
        let fields: Map<String, Value> = parsed.unwrap_or_default();
        self.map.extend(fields.into_iter().filter(|(name, _)| is_for_people(name)));
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) if is_for_people(name) => {
                self.map.insert(name.to_owned(), value);
            }
            _ => {}
        }
    }
}

/// The others are instructions to the exporters, or the `log` crate's doubles of what the line already has.
fn is_for_people(name: &str) -> bool {
    !["otel.", "rpc.", "sentry.", "tags.", "log."].iter().any(|prefix| name.starts_with(prefix))
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.add(field, Value::String(text));
    }
}
