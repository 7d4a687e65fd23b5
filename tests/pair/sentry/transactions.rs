//! One sale as Sentry's transactions of both services.

use std::collections::BTreeSet;

use p2phub_tests::{
    builders::{confirmation, registration},
    hold::Hold,
    postgres::Role,
    prometheus::Scrape,
    sentry::Sentry,
    wait,
};

use super::{options, trace_id_in};
use crate::concurrency::at_once;

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

#[tokio::test(flavor = "multi_thread")]
async fn every_calls_transaction_holds_its_commit_however_many_share_a_batch() {
    const CALLS: usize = 40;
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).variable("SENTRY_TRACES_SAMPLE_RATE", "1").start_alone().await;
    let (holder, watcher) = (pair.referral_sql(Role::Superuser).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(holder, watcher, "LOCK TABLE partners IN EXCLUSIVE MODE").await;
    let signup = |turn: usize| {
        let mut clients = pair.clients.clone();
        async move {
            let answer = clients.partners.register_partner(registration(&format!("one-{turn}"), "")).await;
            trace_id_in(answer.expect("a signup").metadata())
        }
    };
    let first = tokio::spawn(signup(0));
    hold.blocks_someone().await;
    let http = pair.referral.as_ref().expect("it runs").http;
    let (trace_ids, ()) = tokio::join!(at_once((1..=CALLS).map(signup)), async {
        wait::until("a full batch", async || {
            (Scrape::of(http).await.value("p2phub_commit_queue_depth", &[]) == Some(CALLS as f64)).then_some(())
        })
        .await;
        hold.release().await;
    });
    first.await.expect("no panic");
    pair.stop_referral().await;

    let transactions = sentry.transactions();
    let alone: Vec<_> = transactions.iter().filter(|item| item.name() == "commit").collect();
    assert!(alone.is_empty(), "{} commits on their own", alone.len());
    let mut with_commit = BTreeSet::new();
    for call in transactions.iter().filter(|item| item.name().ends_with("/RegisterPartner")) {
        let commits = call.content["spans"].as_array().into_iter().flatten();
        assert_eq!(commits.filter(|span| span["description"] == "commit").count(), 1, "{call:#?}");
        with_commit.insert(call.trace_id());
    }
    assert!(trace_ids.iter().all(|trace_id| with_commit.contains(trace_id.as_str())), "a call without a transaction");
}
