//! The spans of a notification's way: ingest, and each attempt to deliver.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use p2phub_proto::notify::v1::{EventRecord, NotificationState, RecordOutcome};
use p2phub_tests::{
    otlp::{Collected, Otlp},
    sink::{Reply, Sink},
};

use super::{Desk, TRACE_ID, over};
use crate::{delivery::contact, stream::record};

const PARENT_ID: &str = "00f067aa0ba902b7";

fn roots<'a>(spans: &'a [Collected], name: &str) -> Vec<&'a Collected> {
    spans.iter().filter(|span| span.name() == name && span.parent_id().is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_attempt_is_a_child_of_the_ingest_and_later_ones_are_linked() {
    let (otlp, sink) = (Otlp::start().await, Sink::start().await);
    sink.then([Reply::status(503)]);
    let url = otlp.url();
    let mut desk = Desk::open(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    let stored = EventRecord { baggage: "tenant=acme".to_owned(), ..over(vec![contact("webhook", &sink.url("/"))]) };
    let notification_id = desk.settle(stored.clone(), NotificationState::Delivered).await;
    assert_eq!(desk.publish(record(vec![0xff; 20])).await, RecordOutcome::Rejected);

    let spans = otlp
        .wait_for("the spans of both attempts and records", |spans| {
            let count = |name: &str| spans.iter().filter(|span| span.name() == name).count();
            let all = [("deliver", 2), ("ingest", 2), ("ingest_batch", 2), ("claim", 2), ("settle", 2)];
            all.iter().all(|(name, there)| count(name) >= *there).then(|| spans.to_vec())
        })
        .await;
    let attribute = |span: &Collected, key| span.attribute(key).unwrap_or_default();
    let named = |name: &str| spans.iter().filter(|span| span.name() == name).collect::<Vec<_>>();

    let mut ingests = named("ingest");
    ingests.sort_by_key(|span| span.is_error());
    let [ingest, rejected] = ingests.as_slice() else { panic!("{ingests:?}") };
    for span in &ingests {
        assert!(span.is(SpanKind::Consumer));
        assert_eq!((span.trace_id().as_str(), span.parent_id().as_str()), (TRACE_ID, PARENT_ID));
        let batch = roots(&spans, "ingest_batch").into_iter().find(|batch| span.links_to(batch)).expect("its batch");
        assert!(batch.links_to(span) && batch.trace_id() != TRACE_ID);
    }
    assert_eq!(attribute(ingest, "event_id"), stored.event_id);
    for (key, value) in [("producer", "desk"), ("outcome", "stored"), ("baggage.tenant", "acme")] {
        assert_eq!(attribute(ingest, key), value);
    }
    assert!(rejected.is_error() && !ingest.is_error());
    assert_eq!(attribute(rejected, "reason"), "EVENT_MALFORMED");

    let mut attempts = named("deliver");
    attempts.sort_by_key(|span| attribute(span, "attempt"));
    let [first, second] = attempts.as_slice() else { panic!("{attempts:?}") };
    assert_eq!((first.trace_id(), first.parent_id()), (ingest.trace_id(), ingest.span_id()));
    assert!(first.span.links.is_empty());
    assert!(second.trace_id() != TRACE_ID && second.parent_id().is_empty() && second.links_to(ingest));
    for (span, attempt, outcome, reason) in [(first, "1", "TRANSIENT", "HTTP_503"), (second, "2", "DELIVERED", "")] {
        assert!(span.is(SpanKind::Client));
        let expected = [
            ("notification_id", notification_id.as_str()),
            ("channel", "webhook"),
            ("kind", "OPERATOR_BROADCAST"),
            ("attempt", attempt),
            ("outcome", outcome),
            ("reason", reason),
            ("trace_id", TRACE_ID),
            ("baggage.tenant", "acme"),
        ];
        expected.iter().for_each(|(key, value)| assert_eq!(attribute(span, key), *value, "{key}"));
        assert_eq!(span.is_error(), outcome != "DELIVERED");
    }
    // The queue was looked at many times between the attempts, and twice there was something to take.
    for name in ["claim", "settle"] {
        let roots = roots(&spans, name);
        assert_eq!((roots.len(), named(name).len()), (2, 2), "{name}");
        assert!(roots.iter().all(|span| span.trace_id() != TRACE_ID && span.span.links.is_empty()));
    }
    desk.close().await;
}
