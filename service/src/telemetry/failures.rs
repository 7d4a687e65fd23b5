//! Errors in traces: that there was one, and never what was said of it, which may quote anybody.

use std::sync::OnceLock;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Status, TraceContextExt as _};
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Of each ERROR: marks its span as failed, and notes there when that was and in which part of the service.
#[derive(Default)]
pub(super) struct FailureLayer {
    /// Kept because the default one can't be asked for while an event is on its way.
    dispatch: OnceLock<WeakDispatch>,
}

impl<S> Layer<S> for FailureLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade) else { return };
        let Some(context) = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch) else { return };
        // Without a description, so that one that the span gets otherwise stands.
        context.span().set_status(Status::error(""));
        context.span().add_event("error", vec![KeyValue::new("target", event.metadata().target())]);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::otel_layer;
    use crate::telemetry::sampling::tests::Collector;

    #[test]
    fn an_error_marks_its_span_and_no_word_of_any_event_is_in_a_trace() {
        let collector = Collector::default();
        let provider = SdkTracerProvider::builder().with_span_processor(collector.clone()).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(otel_layer(&provider)), || {
            tracing::info_span!("warned").in_scope(|| {
                tracing::info!(text = "planted", "planted");
                tracing::warn!(error = "planted", "planted");
            });
            let outer = tracing::info_span!("outer").entered();
            tracing::info_span!("failed").in_scope(|| {
                tracing::debug_span!("not exported").in_scope(|| tracing::error!(error = "planted", "planted"));
            });
            drop(outer);
            tracing::error!(error = "planted", "outside every span");
        });
        let spans = collector.0.lock().unwrap().clone();
        let told: Vec<_> =
            spans.iter().map(|span| (span.name.as_ref(), span.status.clone(), span.events.len())).collect();
        let failed = ("failed", Status::error(""), 1);
        assert_eq!(told, [("warned", Status::Unset, 0), failed, ("outer", Status::Unset, 0)]);
        let all = format!("{spans:?}");
        assert!(!all.contains("planted") && all.contains(module_path!()), "{all}");
    }
}
