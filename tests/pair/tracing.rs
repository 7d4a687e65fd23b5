//! What a collector gets: one trace from the caller to the last recipient, and how it is cut from all the others.

mod export;
mod sampling;

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use p2phub_proto::referral::v1::Partner;
use p2phub_tests::{
    builders::{confirmation, registration},
    clients::Clients,
    hold::Hold,
    otlp::{Collected, Otlp},
    pair::{Options, Pair},
    postgres::Role,
};
use tonic::{Request, metadata::MetadataValue};
use uuid::Uuid;

use crate::PAIR_PROCESS;

const CALLER_SPAN: &str = "00f067aa0ba902b7";
const CONFIRM_PAYMENT: &str = "p2phub.referral.v1.PaymentService/ConfirmPayment";

/// Two processes that send to the collector, and quickly.
fn exporting(otlp: &Otlp) -> Options {
    Options::default()
        .processes(PAIR_PROCESS)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp.url())
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        .variable("OTEL_METRIC_EXPORT_INTERVAL", "200")
}

fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, MetadataValue::try_from(*value).expect("metadata"));
    }
    request
}

/// A trace ID of the caller's own, and its traceparent with these flags.
fn callers_trace(flags: &str) -> (String, String) {
    let trace_id = Uuid::new_v4().simple().to_string();
    let traceparent = format!("00-{trace_id}-{CALLER_SPAN}-{flags}");
    (trace_id, traceparent)
}

fn named<'a>(spans: &'a [Collected], name: &str) -> Vec<&'a Collected> {
    spans.iter().filter(|span| span.name() == name).collect()
}

fn only<'a>(spans: &'a [Collected], name: &str) -> &'a Collected {
    let [span] = named(spans, name)[..] else {
        panic!("not one {name}: {:?}", spans.iter().map(Collected::name).collect::<Vec<_>>())
    };
    span
}

/// Holds the commits back with one signup in the first of them.
async fn hold_commits(pair: &Pair) -> (Hold, tokio::task::JoinHandle<Partner>) {
    let (holder, watcher) = (pair.referral_sql(Role::Superuser).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(holder, watcher, "LOCK TABLE partners, payments IN EXCLUSIVE MODE").await;
    let mut clients = pair.clients.clone();
    let first = tokio::spawn(async move { clients.register("first", "").await });
    hold.blocks_someone().await;
    (hold, first)
}

/// What came before these reads over the same connection is in the queue when they are answered.
async fn pass_the_queue(clients: &mut Clients, partner_id: &str) {
    for _ in 0..5 {
        clients.partner(partner_id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_caller_to_all_ten_recipients() {
    let otlp = Otlp::start().await;
    let pair = exporting(&otlp).start().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 10).await;
    let payment = clients.open_payment(&chain[9].partner_id).await;

    let (hold, first) = hold_commits(&pair).await;
    let (trace_id, traceparent) = callers_trace("01");
    let metadata = [("traceparent", traceparent.as_str()), ("baggage", "campaign=spring%20sale,shop=7;ttl=1")];
    let call = with(confirmation(&payment.payment_id, "money-1"), &metadata);
    let mut buyer = pair.clients.clone();
    let sale = tokio::spawn(async move { buyer.payments.confirm_payment(call).await });
    let others = (0..5).map(|number| {
        let mut clients = pair.clients.clone();
        tokio::spawn(async move { clients.register(&format!("other-{number}"), "").await })
    });
    let others: Vec<_> = others.collect();
    pass_the_queue(&mut clients, &chain[9].partner_id).await;
    hold.release().await;
    first.await.expect("a signup");
    let answer = sale.await.expect("no panic").expect("a sale");
    assert_eq!(answer.metadata().get("trace-id").expect("a trace ID"), trace_id.as_str());
    for other in others {
        other.await.expect("a signup");
    }

    let what = "the sale's trace";
    let trace = otlp
        .wait_for(what, |_| {
            let trace = otlp.trace(&trace_id);
            let whole = [("deliver", 10), ("publish", 1), (CONFIRM_PAYMENT, 1)];
            whole.iter().all(|(name, count)| named(&trace, name).len() == *count).then_some(trace)
        })
        .await;
    let server = only(&trace, CONFIRM_PAYMENT);
    assert!(server.is(SpanKind::Server) && server.parent_id() == CALLER_SPAN);
    let (commit, publish, ingest) = (only(&trace, "commit"), only(&trace, "publish"), only(&trace, "ingest"));
    assert_eq!(commit.parent_id(), server.span_id());
    assert!(publish.is(SpanKind::Producer) && publish.parent_id() == commit.span_id());
    assert!(ingest.is(SpanKind::Consumer) && ingest.parent_id() == publish.span_id());
    let deliveries = named(&trace, "deliver");
    assert!(deliveries.iter().all(|deliver| deliver.parent_id() == ingest.span_id()));
    let notifications: BTreeSet<_> =
        deliveries.iter().map(|deliver| deliver.attribute("notification_id").expect("an ID")).collect();
    assert_eq!(notifications.len(), 10);
    for (spans, service) in
        [([server, commit, publish], "referral-svc"), ([ingest, deliveries[0], deliveries[9]], "notify-svc")]
    {
        for span in spans {
            assert_eq!(span.service, service, "{}", span.name());
            assert_eq!(span.attribute("baggage.campaign").as_deref(), Some("spring sale"), "{}", span.name());
            assert_eq!(span.attribute("baggage.shop").as_deref(), Some("7"), "{}", span.name());
        }
    }
    assert!(trace.iter().all(|span| !span.is_error()));
    its_batch_held_others(&otlp, commit).await;
    pair.finish().await;
}

/// The batch is a trace of its own, linked with its commands both ways, and nothing of the others is in this one.
async fn its_batch_held_others(otlp: &Otlp, commit: &Collected) {
    let (batch, spans) = otlp
        .wait_for("the batch and the others in it", |spans| {
            let batch = spans.iter().find(|span| span.name() == "commit_batch" && commit.links_to(span))?;
            let held: usize = batch.attribute("commands")?.parse().ok()?;
            let commits = spans.iter().filter(|span| span.name() == "commit" && span.links_to(batch)).count();
            (commits == held).then(|| (batch.clone(), spans.to_vec()))
        })
        .await;
    assert!(batch.parent_id().is_empty() && batch.trace_id() != commit.trace_id());
    let members: Vec<_> = named(&spans, "commit").into_iter().filter(|member| member.links_to(&batch)).collect();
    assert!(members.len() > 1, "the batch held the sale alone");
    assert!(members.iter().all(|member| batch.links_to(member)));
    let traces: BTreeSet<_> = members.iter().map(|member| member.trace_id()).collect();
    assert_eq!(traces.len(), members.len(), "commands share a trace");
    let roots = spans.iter().filter(|span| span.trace_id() == commit.trace_id() && span.parent_id() == CALLER_SPAN);
    assert_eq!(roots.count(), 1, "the sale's call alone goes on from the caller's span");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_split_is_linked_try_by_try_and_one_command_failed() {
    let otlp = Otlp::start().await;
    let pair = exporting(&otlp).start_alone().await;
    let mut clients = pair.clients.clone();
    let reader = clients.register("reader", "").await;
    let forbid = "ALTER TABLE partners ADD CONSTRAINT spoiled CHECK (external_id <> 'burst-2')";
    pair.referral_sql(Role::Owner).await.batch_execute(forbid).await.expect("a constraint");

    let (hold, first) = hold_commits(&pair).await;
    let calls = (0..5).map(|number| {
        let (trace_id, traceparent) = callers_trace("01");
        let call = with(registration(&format!("burst-{number}"), ""), &[("traceparent", &traceparent)]);
        let mut clients = pair.clients.clone();
        (trace_id, tokio::spawn(async move { clients.partners.register_partner(call).await }))
    });
    let calls: Vec<_> = calls.collect();
    pass_the_queue(&mut clients, &reader.partner_id).await;
    hold.release().await;
    first.await.expect("a signup");
    for (number, (trace_id, call)) in calls.into_iter().enumerate() {
        let failed = call.await.expect("no panic").is_err();
        assert_eq!(failed, number == 2, "signup {number}");
        let what = format!("the commit of signup {number}");
        let commit = otlp.wait_for(&what, |spans| {
            spans.iter().find(|span| span.trace_id() == trace_id && span.name() == "commit").cloned()
        });
        let commit = commit.await;
        assert_eq!(commit.is_error(), failed, "signup {number}");
        assert!(commit.span.links.len() > 1, "signup {number} was tried once only");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_event_is_an_error_of_its_publish_span() {
    let otlp = Otlp::start().await;
    let pair = exporting(&otlp).start().await;
    let (trace_id, traceparent) = callers_trace("01");
    let insert = "INSERT INTO outbox (event_id, create_time, traceparent, event)
                  VALUES (gen_random_uuid(), now(), $1, '\\xffffff')";
    pair.referral_sql(Role::Superuser).await.execute(insert, &[&traceparent]).await.expect("poison");
    let publish = otlp
        .wait_for("the publish span", |spans| {
            spans.iter().find(|span| span.trace_id() == trace_id && span.name() == "publish").cloned()
        })
        .await;
    assert!(publish.is_error() && publish.parent_id() == CALLER_SPAN);
    pair.finish().await;
}
