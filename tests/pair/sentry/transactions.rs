//! One sale as Sentry's transactions of both services.

use p2phub_tests::{builders::confirmation, sentry::Sentry};

use super::{options, trace_id_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_one_trace_in_both_services() {
    let sentry = Sentry::start().await;
    let pair = options(&sentry).variable("SENTRY_TRACES_SAMPLE_RATE", "1").start().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let payment = clients.open_payment(&chain[1].partner_id).await;
    let answer = clients.payments.confirm_payment(confirmation(&payment.payment_id, "ref-1")).await.expect("a sale");
    let trace_id = trace_id_in(answer.metadata());

    let call = sentry
        .wait_for("the call's transaction", |item| {
            item.trace_id() == trace_id && item.name() == "p2phub.referral.v1.PaymentService/ConfirmPayment"
        })
        .await;
    let trace = &call.content["contexts"]["trace"];
    assert_eq!((trace["op"].as_str(), trace["status"].as_str()), (Some("grpc.server"), Some("ok")));
    assert_eq!((call.kind.as_str(), call.tag("service")), ("transaction", "referral-svc"));
    assert_eq!(call.content["release"], format!("referral-svc@{}", env!("CARGO_PKG_VERSION")));
    let delivery = sentry
        .wait_for("a delivery's transaction", |item| {
            item.trace_id() == trace_id && item.tag("service") == "notify-svc" && item.name().starts_with("deliver")
        })
        .await;
    assert_eq!(delivery.content["contexts"]["trace"]["status"], "ok");
    pair.finish().await;
    assert!(sentry.events().is_empty(), "{:#?}", sentry.events());
    // Names are the builders' external IDs.
    assert!(sentry.bodies().iter().all(|body| !body.contains("chain-1")), "a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_spans() {
    let sentry = Sentry::start().await;
    let pair = options(&sentry).variable("SENTRY_TRACES_SAMPLE_RATE", "1").start_alone().await;
    let mut clients = pair.clients.clone();
    let partner = clients.register("somebody", "").await;
    clients.partner(&partner.partner_id).await;
    for name in ["p2phub.referral.v1.PartnerService/GetPartner", "commit_batch"] {
        let item = sentry.wait_for(name, |item| item.name() == name).await;
        let spans = item.content["spans"].as_array().expect("spans");
        let is_statement = |span: &serde_json::Value| {
            span["op"] == "db" && span["description"].as_str().is_some_and(|text| text.contains("FROM"))
        };
        assert!(spans.iter().any(is_statement), "{name}: {spans:#?}");
    }
}
