//! What can't be refunded; and refunds in the same moment as the sale.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{
    Amount, CreatePaymentRequest, Product, RefundPaymentRequest, RejectPaymentRequest, SubmitPaymentRequest,
    UpdatePartnerRequest,
};
use p2phub_tests::{
    builders::{confirmation, refund, request_id, usdt},
    clients::Clients,
    hold::Hold,
    pair::{Options, Pair},
    postgres::Role,
    prometheus::Scrape,
    refusal::{fields, refused},
    wait,
};
use referral_svc::Clock;
use tonic::Code;

use super::PRICE;
use crate::{
    PAIR_PROCESS,
    concurrency::{assert_books_balance, failure},
};

async fn opened(clients: &mut Clients, partner_id: &str, method: &str) -> String {
    let request = CreatePaymentRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        product: Product::ProMonthly.into(),
        method: method.to_owned(),
    };
    let answer = clients.payments.create_payment(request).await.expect("a payment").into_inner();
    answer.payment.expect("a payment").payment_id
}

#[tokio::test(flavor = "multi_thread")]
async fn only_money_that_came_and_is_left_is_given_back() {
    let clock = Clock::default();
    let shared = clock.clone();
    let pair = Options::default().referral(move |config| config.clock = shared.clone()).start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("refused", 2).await;
    let buyer = &chain[1].partner_id;
    let pending = opened(&mut clients, buyer, "trusted").await;
    let reviewed = opened(&mut clients, buyer, "manual").await;
    let submission = SubmitPaymentRequest {
        request_id: request_id(),
        payment_id: reviewed.clone(),
        external_ref: "seen".to_owned(),
    };
    clients.payments.submit_payment(submission).await.expect("a review");
    let rejected = opened(&mut clients, buyer, "trusted").await;
    let rejection =
        RejectPaymentRequest { request_id: request_id(), payment_id: rejected.clone(), reason: "no".to_owned() };
    clients.payments.reject_payment(rejection).await.expect("a rejection");
    let wrong_state = Some((Code::FailedPrecondition, "PAYMENT_WRONG_STATE".to_owned()));
    for payment_id in [&pending, &reviewed, &rejected] {
        let answer = clients.payments.refund_payment(refund(payment_id, None)).await;
        assert_eq!(failure(&answer), wrong_state);
    }
    clock.set_ahead(TimeDelta::hours(2));
    assert_eq!(failure(&clients.payments.refund_payment(refund(&pending, None)).await), wrong_state, "expired");
    let unknown = clients.payments.refund_payment(refund(&request_id(), None)).await;
    refused(unknown, Code::NotFound, "PAYMENT_NOT_FOUND");

    let (payment, _) = clients.buy_pro(buyer).await;
    let exceeds = Some((Code::FailedPrecondition, "REFUND_EXCEEDS_PAYMENT".to_owned()));
    for (before, asked) in [(None, PRICE + 1), (Some(PRICE - 10), 11), (Some(10), 1)] {
        if let Some(before) = before {
            clients.refund(&payment.payment_id, Some(before)).await;
        }
        let answer = clients.payments.refund_payment(refund(&payment.payment_id, Some(asked))).await;
        assert_eq!(failure(&answer), exceeds, "{asked} after {before:?}");
    }
    let nothing_left = clients.payments.refund_payment(refund(&payment.payment_id, None)).await;
    assert_eq!(failure(&nothing_left), exceeds);
    assert_eq!(clients.balance(&chain[0].partner_id).await, 0);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_makes_no_sense_is_told_by_field() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("senseless", "").await;
    let (payment, _) = clients.buy_pro(&buyer.partner_id).await;
    let valid = refund(&payment.payment_id, None);
    let with = |amount| RefundPaymentRequest { amount: Some(amount), ..valid.clone() };
    let asset = |asset: &str| Amount { asset: asset.to_owned(), minor_units: 1 };
    for (request, field) in [
        (with(usdt(0)), "amount.minor_units"),
        (with(usdt(-1)), "amount.minor_units"),
        (with(usdt(i64::MIN)), "amount.minor_units"),
        (with(asset("EUR")), "amount.asset"),
        (with(asset("")), "amount.asset"),
        (RefundPaymentRequest { reason: String::new(), ..valid.clone() }, "reason"),
        (RefundPaymentRequest { reason: "x".repeat(501), ..valid.clone() }, "reason"),
        (RefundPaymentRequest { payment_id: "7".to_owned(), ..valid.clone() }, "payment_id"),
        (RefundPaymentRequest { request_id: String::new(), ..valid.clone() }, "request_id"),
    ] {
        let status = clients.payments.refund_payment(request.clone()).await.expect_err("a refusal");
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]), "{request:?}");
    }
    // Bad input is never remembered: the same request ID, once it makes sense.
    clients.payments.refund_payment(valid).await.expect("a refund");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_and_its_refund_in_one_batch() {
    // A process of its own has metrics of its own.
    let pair = Options::default().processes(PAIR_PROCESS).start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("one-batch", 3).await;
    let open = clients.open_payment(&chain[2].partner_id).await.payment_id;
    // The writer is held up by another command, until both wait for it.
    let lock = format!("SELECT FROM partners WHERE partner_id = '{}' FOR UPDATE", chain[0].partner_id);
    let superuser = pair.referral_sql(Role::Superuser).await;
    let hold = Hold::take(superuser, pair.referral_sql(Role::Superuser).await, &lock).await;
    let update = UpdatePartnerRequest {
        request_id: request_id(),
        partner_id: chain[0].partner_id.clone(),
        username: Some("held".to_owned()),
        ..Default::default()
    };
    let [mut first, mut second, mut third] = [clients.clone(), clients.clone(), clients.clone()];
    let held = tokio::spawn(async move { first.partners.update_partner(update).await.expect("an update") });
    hold.blocks_someone().await;
    let confirm = confirmation(&open, "in one batch");
    let confirmed =
        tokio::spawn(async move { second.payments.confirm_payment(confirm).await.expect("a confirmation") });
    queued(&pair, 1.0).await;
    let refunded = tokio::spawn(async move { third.refund(&open, None).await });
    queued(&pair, 2.0).await;
    hold.release().await;
    held.await.expect("no panic");
    confirmed.await.expect("no panic");
    let refunded = refunded.await.expect("no panic");
    assert_eq!(refunded.clawbacks.len(), 2);
    let sql = pair.referral_sql(Role::Owner).await;
    let one = "SELECT count(DISTINCT create_time), count(*) FROM audit_events
               WHERE action IN ('ConfirmPayment', 'RefundPayment')";
    let row = sql.query_one(one, &[]).await.expect("a row");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2), "one batch has one time");
    for above in &chain[..2] {
        assert_eq!(clients.balance(&above.partner_id).await, 0);
    }
    let buyer = clients.partner(&chain[2].partner_id).await;
    assert!(!buyer.pro_active, "its period is empty");
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

/// Waits until so many commands wait for the writer.
async fn queued(pair: &Pair, depth: f64) {
    let address = pair.referral.as_ref().expect("referral-svc").http;
    wait::until("commands to queue", async || {
        (Scrape::of(address).await.value("p2phub_commit_queue_depth", &[]) == Some(depth)).then_some(())
    })
    .await;
}
