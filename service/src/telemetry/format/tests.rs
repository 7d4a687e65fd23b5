//! What stands on a line.

use std::io;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::telemetry::{otel_layer, set_parent, traceparent_of};

const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while `work` runs.
fn written(json: bool, work: impl FnOnce()) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let subscriber = tracing_subscriber::registry()
        .with(otel_layer(&SdkTracerProvider::builder().build()))
        .with(LogLayer::new(json, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, work);
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn lines(work: impl FnOnce()) -> Vec<Value> {
    written(true, work).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_line_has_its_spans_ids_and_fields_and_inner_ones_win() {
    let mut traceparent = String::new();
    let lines = lines(|| {
        let outer = tracing::info_span!("outer", caller = "gateway", step = 1, otel.kind = "server", rpc.method = "x");
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner", step = 2, left = tracing::field::Empty, db.query.text = "SELECT");
        inner.record("left", "some");
        inner.record("left", "none");
        traceparent = traceparent_of(&inner);
        let _inner = inner.enter();
        tracing::info!(text = "two\n\"words\"", nan = f64::NAN, level = 7, "said");
    });
    let line = lines[0].as_object().unwrap();
    let expected = [
        ("message", "said".into()),
        ("text", "two\n\"words\"".into()),
        ("nan", "NaN".into()),
        ("level", "INFO".into()),
        ("level_", 7.into()),
        ("step", 2.into()),
        ("left", "none".into()),
        ("caller", "gateway".into()),
    ];
    for (name, value) in &expected {
        assert_eq!(line.get(*name), Some(value), "{name}");
    }
    // And a time, a target, two IDs: nothing that is meant for exporters.
    assert_eq!(line.len(), expected.len() + 4, "{line:?}");
    let ids = format!("{}-{}", line["trace_id"].as_str().unwrap(), line["span_id"].as_str().unwrap());
    assert!(traceparent.contains(&ids), "{traceparent} {ids}");
}

#[test]
fn a_trace_that_a_span_names_wins_over_the_one_that_it_is_in() {
    let lines = lines(|| {
        let span = tracing::info_span!("attempt", trace_id = OTHER);
        set_parent(&span, "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01");
        let _span = span.enter();
        let _inner = tracing::info_span!("statement").entered();
        tracing::info!("first");
        let _malformed = tracing::info_span!("malformed", trace_id = "none").entered();
        tracing::info!("second");
    });
    assert!(lines.iter().all(|line| line["trace_id"] == OTHER), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn outside_every_span_a_line_stands_under_the_processs_own_trace() {
    let first = lines(|| tracing::info!("one"));
    let second = lines(|| tracing::warn!("two"));
    for (name, length) in [("trace_id", 32), ("span_id", 16)] {
        assert_eq!(first[0][name], second[0][name]);
        assert_eq!(first[0][name].as_str().unwrap().len(), length);
    }
}

#[test]
fn a_line_that_names_its_trace_outside_every_span_has_no_other_traces_span() {
    let lines = lines(|| {
        tracing::info!(trace_id = OTHER, "by itself");
        // Nothing exports it.
        let _probe = tracing::debug_span!("probe", trace_id = OTHER).entered();
        tracing::info!("by its span");
    });
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!((&line["trace_id"], &line["span_id"]), (&OTHER.into(), &"0".repeat(16).into()), "{line}");
    }
}

#[test]
fn words_of_others_lose_what_they_quote() {
    let lines = lines(|| {
        tracing::error!(error = "relation \"requests\": no room for ada@example.org", "failed");
        tracing::error!(panic = "index out of range for \"Ada\"", "panicked");
    });
    assert_eq!(lines[0]["error"], "relation \"requests\": no room for [scrubbed]");
    assert_eq!(lines[1]["panic"], "index out of range for [scrubbed]");
}

#[test]
fn people_read_plain_text_without_quotes() {
    let text = written(false, || {
        let _span = tracing::info_span!("span", caller = "local").entered();
        tracing::warn!(reason = "NOT_FOUND", what = "two words", none = "", many = 3, "it\nfailed");
    });
    assert!(
        text.contains(r#"tests: it\nfailed reason=NOT_FOUND what="two words" none="" many=3 caller=local trace_id="#)
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}
