//! What is sampled, decided once by trace for both services; and that errors are kept in any case.

use p2phub_proto::notify::v1::{ListNotificationsRequest, NotificationState};
use p2phub_tests::{builders::registration, hold::Hold, otlp::Otlp, pair::Pair, postgres::Role, wait};
use tonic::Code;

use super::{callers_trace, exporting, named, with};
use crate::edge::with_deadline;

const REGISTER: &str = "p2phub.referral.v1.PartnerService/RegisterPartner";

async fn delivered(pair: &Pair, trace_id: &str) {
    wait::until("a delivered notification", async || {
        let filter = ListNotificationsRequest { trace_id: trace_id.to_owned(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(filter).await.expect("an answer");
        let found = answer.into_inner().notifications;
        found.iter().any(|one| one.state() == NotificationState::Delivered).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_caller_does_not_sample_is_exported_by_neither_service() {
    let otlp = Otlp::start().await;
    let mut pair = exporting(&otlp).start().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let mut trace_ids = Vec::new();
    for flags in ["00", "01"] {
        let (trace_id, traceparent) = callers_trace(flags);
        let message = registration(&format!("guest-{flags}"), &root.referral_code);
        clients.partners.register_partner(with(message, &[("traceparent", &traceparent)])).await.expect("a signup");
        delivered(&pair, &trace_id).await;
        trace_ids.push(trace_id);
    }
    // A clean end sends what is left.
    pair.stop_referral().await;
    pair.stop_notify().await;
    assert!(otlp.trace(&trace_ids[0]).is_empty(), "exported, though its caller said no");
    let sampled = otlp.trace(&trace_ids[1]);
    for service in ["referral-svc", "notify-svc"] {
        assert!(sampled.iter().any(|span| span.service == service), "{service}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_kept_where_nothing_else_is() {
    let otlp = Otlp::start().await;
    let pair = exporting(&otlp)
        .variable("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .variable("OTEL_TRACES_SAMPLER_ARG", "0");
    let mut pair = pair.start_alone().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    clients.register("guest", &root.referral_code).await;
    let sql = pair.referral_sql(Role::Superuser).await;
    let stored: String = sql.query_one("SELECT traceparent FROM outbox", &[]).await.expect("an event").get(0);
    assert!(stored.ends_with("-00"), "notify-svc must decide alike: {stored}");

    let hold = Hold::take(sql, pair.referral_sql(Role::Superuser).await, "LOCK TABLE partners IN EXCLUSIVE MODE").await;
    let (headers, status) = with_deadline(&pair, "300m").await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    hold.release().await;
    let failed = headers["trace-id"].to_str().expect("text").to_owned();
    let server = otlp
        .wait_for("the failed call's span", |_| {
            let trace = otlp.trace(&failed);
            named(&trace, REGISTER).first().map(|span| (*span).clone())
        })
        .await;
    assert!(server.is_error() && server.span.flags & 1 == 1);
    assert_eq!(server.attribute("error.type").as_deref(), Some("DEADLINE_EXCEEDED"));

    pair.stop_referral().await;
    let rest: Vec<_> = otlp.spans().into_iter().filter(|span| !span.is_error()).collect();
    assert!(rest.is_empty(), "exported without an error: {rest:?}");
    pair.finish().await;
}
