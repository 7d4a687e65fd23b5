//! Payments from opening to the last cent, over gRPC.

mod books;
pub(crate) mod plan;
mod references;

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{
    ConfirmPaymentRequest, ConfirmPaymentResponse, CreatePaymentRequest, GetPaymentRequest, ListAuditEventsRequest,
    Payment, PaymentState, Product, RejectPaymentRequest, SubmitPaymentRequest,
};
use p2phub_tests::{
    builders::{confirmation, request_id},
    clients::Clients,
    pair::{Options, Pair},
    refusal::{fields, refused},
};
use referral_svc::Clock;
use tonic::{Code, Response, Status};

const REFUSED: Code = Code::FailedPrecondition;

type Confirmed = Result<Response<ConfirmPaymentResponse>, Status>;

/// referral-svc under a clock that a test can set ahead.
async fn start(clock: &Clock) -> Pair {
    let clock = clock.clone();
    Options::default().referral(move |config| config.clock = clock.clone()).start_alone().await
}

async fn create(clients: &mut Clients, partner_id: &str, method: &str) -> Result<Payment, Status> {
    let request = CreatePaymentRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        product: Product::ProMonthly.into(),
        method: method.to_owned(),
    };
    Ok(clients.payments.create_payment(request).await?.into_inner().payment.expect("a payment"))
}

async fn submit(clients: &mut Clients, payment: &Payment, reference: &str) -> Result<Response<Payment>, Status> {
    let request = SubmitPaymentRequest {
        request_id: request_id(),
        payment_id: payment.payment_id.clone(),
        external_ref: reference.to_owned(),
    };
    Ok(clients.payments.submit_payment(request).await?.map(|answer| answer.payment.expect("a payment")))
}

async fn reject(clients: &mut Clients, payment: &Payment, reason: &str) -> Result<Response<Payment>, Status> {
    let request = RejectPaymentRequest {
        request_id: request_id(),
        payment_id: payment.payment_id.clone(),
        reason: reason.to_owned(),
    };
    Ok(clients.payments.reject_payment(request).await?.map(|answer| answer.payment.expect("a payment")))
}

async fn confirm(clients: &mut Clients, payment: &Payment, reference: &str) -> Confirmed {
    clients.payments.confirm_payment(confirmation(&payment.payment_id, reference)).await
}

/// As an operator, who says why.
async fn overrule(clients: &mut Clients, payment: &Payment, reference: &str, reason: &str) -> Confirmed {
    let request =
        ConfirmPaymentRequest { override_reason: reason.to_owned(), ..confirmation(&payment.payment_id, reference) };
    clients.payments.confirm_payment(request).await
}

/// The payment as it is now.
async fn payment(clients: &mut Clients, payment: &Payment) -> Payment {
    let request = GetPaymentRequest { payment_id: payment.payment_id.clone() };
    clients.payments.get_payment(request).await.expect("an answer").into_inner().payment.expect("a payment")
}

fn late(payment: &Payment) -> Vec<&str> {
    payment.late_references.iter().map(|late| late.external_ref.as_str()).collect()
}

fn seconds(time: &Option<prost_types::Timestamp>) -> i64 {
    time.as_ref().expect("a time").seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_payment_is_reviewed_before_it_counts() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let manual = create(&mut clients, &buyer.partner_id, "manual").await.expect("a payment");
    assert_eq!(manual.state(), PaymentState::Pending);
    refused(confirm(&mut clients, &manual, "receipt-1").await, REFUSED, "PAYMENT_NOT_SUBMITTED");
    let missing = refused(confirm(&mut clients, &manual, " ").await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&missing), ["external_ref"]);

    let submitted = submit(&mut clients, &manual, "receipt-1").await.expect("a submission").into_inner();
    assert_eq!((submitted.state(), submitted.external_ref.as_str()), (PaymentState::InReview, "receipt-1"));
    refused(submit(&mut clients, &manual, "receipt-2").await, REFUSED, "PAYMENT_WRONG_STATE");
    // Under review nothing runs out.
    clock.set_ahead(TimeDelta::days(3));
    assert_eq!(payment(&mut clients, &manual).await.state(), PaymentState::InReview);
    assert!(!clients.partner(&buyer.partner_id).await.pro_active);

    // The operator need not type the reference again.
    let confirmed = confirm(&mut clients, &manual, "").await.expect("a confirmation").into_inner().payment;
    let confirmed = confirmed.expect("a payment");
    assert_eq!((confirmed.state(), confirmed.external_ref.as_str()), (PaymentState::Succeeded, "receipt-1"));
    assert!(clients.partner(&buyer.partner_id).await.pro_active);
    assert_eq!(payment(&mut clients, &manual).await, confirmed);
    refused(submit(&mut clients, &manual, "receipt-1").await, REFUSED, "PAYMENT_WRONG_STATE");
    refused(reject(&mut clients, &manual, "too late").await, REFUSED, "PAYMENT_WRONG_STATE");
    assert_eq!(payment(&mut clients, &manual).await, confirmed);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_for_an_expired_payment_is_on_record_and_an_operator_may_take_it() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let (earner, buyer) = (&chain[0].partner_id, &chain[1].partner_id);
    let opened = create(&mut clients, buyer, "trusted").await.expect("a payment");
    let window = seconds(&opened.expire_time) - seconds(&opened.create_time);
    clock.set_ahead(TimeDelta::seconds(window));
    assert_eq!(payment(&mut clients, &opened).await.state(), PaymentState::Expired);

    for reference in ["late-1", "late-1", "late-2"] {
        refused(confirm(&mut clients, &opened, reference).await, REFUSED, "PAYMENT_EXPIRED");
    }
    refused(submit(&mut clients, &opened, "late-3").await, REFUSED, "PAYMENT_EXPIRED");
    refused(reject(&mut clients, &opened, "too late").await, REFUSED, "PAYMENT_WRONG_STATE");
    let expired = payment(&mut clients, &opened).await;
    assert_eq!(expired.state(), PaymentState::Expired);
    let mut references = late(&expired);
    references.sort_unstable();
    assert_eq!(references, ["late-1", "late-2", "late-3"]);
    assert_eq!(clients.balance(earner).await, 0);
    assert!(!clients.partner(buyer).await.pro_active);

    let taken = overrule(&mut clients, &opened, "late-1", "the bank was slow").await.expect("a confirmation");
    let taken = taken.into_inner().payment.expect("a payment");
    assert_eq!((taken.state(), taken.external_ref.as_str()), (PaymentState::Succeeded, "late-1"));
    assert_eq!(taken.override_reason, "the bank was slow");
    assert_eq!(clients.balance(earner).await, 11_700_000);
    assert!(clients.partner(buyer).await.pro_active);
    let request = ListAuditEventsRequest {
        subject_id: opened.payment_id.clone(),
        action: "ConfirmPayment".to_owned(),
        ..Default::default()
    };
    let events = clients.audit.list_audit_events(request).await.expect("an answer").into_inner().audit_events;
    let record: Vec<_> = events.iter().map(|event| (event.outcome.as_str(), event.detail.as_str())).collect();
    let expired = |reference| ("PAYMENT_EXPIRED", reference);
    let tried = ["late-2", "late-1", "late-1"].map(expired);
    assert_eq!(record, [&[("OK", "late-1: the bank was slow")], &tried[..]].concat(), "newest first");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_payment_is_confirmed_with_a_reason_alone() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    for (method, submitted) in [("trusted", false), ("manual", false), ("manual", true)] {
        let opened = create(&mut clients, &buyer.partner_id, method).await.expect("a payment");
        let reference = format!("{method}-{submitted}");
        if submitted {
            submit(&mut clients, &opened, &reference).await.expect("a submission");
        }
        let rejected = reject(&mut clients, &opened, "not our account").await.expect("a rejection").into_inner();
        assert_eq!(rejected.state(), PaymentState::Rejected);
        assert_eq!(rejected.reject_reason, "not our account");
        refused(reject(&mut clients, &opened, "again").await, REFUSED, "PAYMENT_WRONG_STATE");
        refused(confirm(&mut clients, &opened, &reference).await, REFUSED, "PAYMENT_EXPIRED");
        assert_eq!(late(&payment(&mut clients, &opened).await), [&reference]);
        let before = clients.partner(&buyer.partner_id).await;
        // Without a reference, the one on record is meant.
        let taken = overrule(&mut clients, &opened, "", "found it").await.expect("a confirmation").into_inner();
        let taken = taken.payment.expect("a payment");
        assert_eq!((taken.state(), &taken.external_ref), (PaymentState::Succeeded, &reference));
        assert_eq!(payment(&mut clients, &opened).await, taken);
        let after = clients.partner(&buyer.partner_id).await;
        assert!(after.pro_active && after.pro_expires_at != before.pro_expires_at);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_adds_to_what_is_left_and_starts_anew_when_nothing_is() {
    const MONTH: i64 = 30 * 24 * 60 * 60;
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let (first, _) = clients.buy_pro(&buyer.partner_id).await;
    assert_eq!(first.pro_start_time, first.confirm_time);
    assert_eq!(seconds(&first.pro_end_time), seconds(&first.pro_start_time) + MONTH);

    clock.set_ahead(TimeDelta::days(29));
    let (second, _) = clients.buy_pro(&buyer.partner_id).await;
    assert_eq!(second.pro_start_time, first.pro_end_time);
    assert_eq!(seconds(&second.pro_end_time), seconds(&first.pro_end_time) + MONTH);
    let renewed = clients.partner(&buyer.partner_id).await;
    assert!(renewed.pro_active);
    assert_eq!(renewed.pro_expires_at, second.pro_end_time);

    clock.set_ahead(TimeDelta::days(90));
    assert!(!clients.partner(&buyer.partner_id).await.pro_active);
    let (third, _) = clients.buy_pro(&buyer.partner_id).await;
    assert_eq!(third.pro_start_time, third.confirm_time);
    assert!(seconds(&third.pro_start_time) > seconds(&second.pro_end_time));
    assert_eq!(clients.partner(&buyer.partner_id).await.pro_expires_at, third.pro_end_time);
    // Each payment's period is its own, whatever came after.
    for paid in [first, second, third] {
        assert_eq!(payment(&mut clients, &paid).await, paid);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_open_methods_take_payments() {
    let methods = |config: &mut referral_svc::Config| config.payment_methods = "manual".to_owned();
    let pair = Options::default().referral(methods).start_alone().await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    create(&mut clients, &buyer.partner_id, "manual").await.expect("a payment");
    for method in ["trusted", "ton"] {
        let answer = create(&mut clients, &buyer.partner_id, method).await.map(Response::new);
        refused(answer, REFUSED, "PAYMENT_METHOD_CLOSED");
    }
    let unknown = create(&mut clients, &buyer.partner_id, "cash").await.map(Response::new);
    assert_eq!(fields(&refused(unknown, Code::InvalidArgument, "INVALID_ARGUMENT")), ["method"]);
    let nobody = create(&mut clients, &request_id(), "manual").await.map(Response::new);
    refused(nobody, Code::NotFound, "PARTNER_NOT_FOUND");
    pair.finish().await;
}
