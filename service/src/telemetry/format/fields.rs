//! The fields of a span or an event, rendered once for all lines that show them.

use std::fmt;

use opentelemetry::TraceId;
use tracing::field::{Field, Visit};

use crate::telemetry::scrub;

/// Such fields go into no line: they are attributes for exporters, or the `log` crate's doubles of what a line has.
const FOR_EXPORTERS: [&str; 16] = [
    "otel.",
    "rpc.",
    "db.",
    "messaging.",
    "baggage.",
    "error.type",
    "exception.",
    "network.",
    "server.",
    "client.",
    "code.",
    "thread.",
    "service.",
    "sentry.",
    "tags.",
    "log.",
];

#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    /// Of a line that comes through the `log` crate.
    pub(super) target: Option<String>,
    /// The trace that all this belongs to, whatever span it runs in: a later attempt belongs to its notification's.
    pub(super) trace_id: Option<TraceId>,
    /// Names, and values as JSON.
    pub(super) rest: Vec<(&'static str, String)>,
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.trace_id.is_none() && self.rest.is_empty()
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => text.clone_into(&mut self.message),
            "trace_id" => self.trace_id = TraceId::from_hex(text).ok().filter(|id| *id != TraceId::INVALID),
            "log.target" => self.target = Some(text.to_owned()),
            // Words of others, who may quote anything.
            "error" | "panic" | "detail" => self.add(field, quoted(&scrub::text(text))),
            _ => self.add(field, quoted(text)),
        }
    }

    fn add(&mut self, field: &Field, json: String) {
        let name = field.name();
        if FOR_EXPORTERS.iter().any(|prefix| name.starts_with(prefix)) {
            return;
        }
        match self.rest.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value = json,
            None => self.rest.push((name, json)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinity.
        self.add(field, if value.is_finite() { value.to_string() } else { format!("\"{value}\"") });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.add_text(field, &text);
    }
}

/// Text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// JSON as people read it: text without its quotes, unless it needs them.
pub(super) fn plain(json: &str) -> &str {
    let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|text| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
    });
    text.unwrap_or(json)
}
