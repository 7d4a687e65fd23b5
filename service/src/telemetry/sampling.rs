//! Which traces are exported: the sampler that OTEL_TRACES_SAMPLER names, and besides every span that ends with an error.

use std::time::Duration;

use opentelemetry::trace::{Link, SpanContext, SpanKind, Status, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Config, SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor};

/// The standard's sampler, with two things more: a root that is linked is sampled if one of those that it is linked to is, so
/// that what came of a call is in the traces as the call itself is; and what is not sampled is recorded, in case it ends with
/// an error.
///
/// The flag that is handed on stays the sampler's own, so that every service of a trace decides alike.
#[derive(Clone, Debug)]
pub(super) struct Sampling {
    standard: Box<dyn ShouldSample>,
    record_all: bool,
}

impl Sampling {
    /// `record_all`: somebody wants the errors of spans that are not sampled. Otherwise those cost nothing.
    pub(super) fn from_environment(record_all: bool) -> Self {
        Self { standard: Config::default().sampler, record_all }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.standard.should_sample(parent, trace_id, name, kind, attributes, links);
        let is_root = parent.is_none_or(|context| !context.span().span_context().is_valid());
        if is_root && !links.is_empty() {
            let follows = links.iter().any(|link| link.span_context.is_sampled());
            result.decision = if follows { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        }
        if result.decision == SamplingDecision::Drop && self.record_all {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// Hands on what is sampled, and of the rest what ended with an error, as if it had been sampled.
#[derive(Debug)]
pub(super) struct KeepErrors<P>(pub(super) P);

impl<P: SpanProcessor> SpanProcessor for KeepErrors<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            if !matches!(span.status, Status::Error { .. }) {
                return;
            }
            span.span_context = sampled(&span.span_context);
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn sampled(context: &SpanContext) -> SpanContext {
    let flags = context.trace_flags().with_sampled(true);
    SpanContext::new(context.trace_id(), context.span_id(), flags, context.is_remote(), context.trace_state().clone())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Span as _, SpanId, TraceFlags, TraceState, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

    use super::*;

    /// Keeps what arrives.
    #[derive(Clone, Debug, Default)]
    pub(in crate::telemetry) struct Collector(pub(in crate::telemetry) Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Collector {
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

    impl Collector {
        fn names(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|span| span.name.to_string()).collect()
        }
    }

    /// A tracer under the sampler, and what it exports.
    fn tracer(standard: Sampler, record_all: bool) -> (SdkTracer, Collector) {
        let collector = Collector::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampling { standard: Box::new(standard), record_all })
            .with_span_processor(KeepErrors(collector.clone()))
            .build();
        (provider.tracer("test"), collector)
    }

    fn never() -> Sampler {
        Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.0)))
    }

    fn remote(flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(7_u128), SpanId::from(7_u64), flags, true, TraceState::default())
    }

    #[test]
    fn an_error_is_kept_though_its_trace_is_not_sampled() {
        let (tracer, exported) = tracer(never(), true);
        let mut fine = tracer.start("fine");
        assert!(fine.is_recording() && !fine.span_context().is_sampled());
        fine.end();
        let mut failed = tracer.start("failed");
        failed.set_status(Status::error("why"));
        assert!(!failed.span_context().is_sampled(), "what is handed on says that it isn't sampled");
        failed.end();
        assert_eq!(exported.names(), ["failed"]);
        assert!(exported.0.lock().unwrap()[0].span_context.is_sampled());
    }

    #[test]
    fn the_parents_decision_holds() {
        let (tracer, exported) = tracer(never(), true);
        for (name, flags) in [("sampled", TraceFlags::SAMPLED), ("not", TraceFlags::default())] {
            let parent = Context::new().with_remote_span_context(remote(flags));
            let mut child = tracer.start_with_context(name, &parent);
            assert_eq!(child.span_context().trace_flags(), flags);
            child.end();
        }
        assert_eq!(exported.names(), ["sampled"]);
    }

    #[test]
    fn a_linked_root_is_sampled_if_one_of_its_links_is() {
        for standard in [never(), Sampler::ParentBased(Box::new(Sampler::AlwaysOn))] {
            follow_links(standard);
        }
    }

    fn follow_links(standard: Sampler) {
        let (tracer, exported) = tracer(standard, true);
        let links = |flags| vec![Link::with_context(remote(TraceFlags::default())), Link::with_context(remote(flags))];
        let unsampled = Context::new().with_remote_span_context(remote(TraceFlags::default()));
        for (name, flags, parent) in [
            ("linked", TraceFlags::SAMPLED, Context::new()),
            ("linked to others", TraceFlags::default(), Context::new()),
            ("a child", TraceFlags::SAMPLED, unsampled),
        ] {
            tracer.span_builder(name).with_links(links(flags)).start_with_context(&tracer, &parent).end();
        }
        assert_eq!(exported.names(), ["linked"]);
    }

    #[test]
    fn where_nobody_wants_errors_nothing_is_recorded_in_vain() {
        let (tracer, exported) = tracer(never(), false);
        let span = tracer.start("dropped");
        assert!(!span.is_recording() && span.span_context().is_valid());
        drop(span);
        assert!(exported.names().is_empty());
    }
}
