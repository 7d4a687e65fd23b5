//! Payments that many callers confirm at once.

use p2phub_proto::referral::v1::{ConfirmPaymentResponse, GetPaymentRequest, PaymentState};
use p2phub_tests::{builders::confirmation, clients::Clients, postgres::Role};
use tonic::{Code, Response, Status};

use super::{Twice, assert_books_balance, at_once, failure, has_flag, number};

const CALLS: usize = 64;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// One hash in every dress: letter case, prefix, white space, base64 and base64url with and without padding.
pub(crate) const DRESSES: [&str; 8] = [
    "fbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7a",
    "FBFF3E7AFBFF3E7AFBFF3E7AFBFF3E7AFBFF3E7AFBFF3E7AFBFF3E7AFBFF3E7A",
    "0xfbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7a",
    " 0XFBff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3e7afbff3E7A ",
    "+/8+evv/Pnr7/z56+/8+evv/Pnr7/z56+/8+evv/Pno=",
    "+/8+evv/Pnr7/z56+/8+evv/Pnr7/z56+/8+evv/Pno",
    "-_8-evv_Pnr7_z56-_8-evv_Pnr7_z56-_8-evv_Pno=",
    "-_8-evv_Pnr7_z56-_8-evv_Pnr7_z56-_8-evv_Pno",
];

type Confirmed = Result<Response<ConfirmPaymentResponse>, Status>;

/// Confirms at once: which instance, which payment, which reference.
async fn confirm(calls: Vec<(Clients, String, String)>) -> Vec<Confirmed> {
    at_once(calls.into_iter().map(|(mut clients, payment_id, external_ref)| async move {
        clients.payments.confirm_payment(confirmation(&payment_id, &external_ref)).await
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_confirmations_with_one_reference_are_one_sale() {
    let twice = Twice::start().await;
    for (what, instances) in [("one instance", 1), ("two instances", 2)] {
        let mut clients = twice.by_turns(0);
        let chain = clients.chain(&format!("sale-{instances}"), 3).await;
        let payment = clients.open_payment(&chain[2].partner_id).await;
        let reference = format!("paid-{instances}");
        let calls = (0..CALLS)
            .map(|turn| (twice.by_turns(turn % instances), payment.payment_id.clone(), reference.clone()))
            .collect();
        let answers: Vec<_> = confirm(calls).await.into_iter().map(|answer| answer.expect("a confirmation")).collect();

        assert!(answers.iter().all(|answer| answer.get_ref() == answers[0].get_ref()), "{what}: other answers");
        let told = answers.iter().filter(|answer| has_flag(answer, "already-confirmed")).count();
        assert_eq!(told, CALLS - 1, "{what}: one did it, the others were told so");
        assert!(!answers.iter().any(|answer| has_flag(answer, "idempotent-replay")), "{what}: no ID came twice");

        let ConfirmPaymentResponse { payment, commissions } = answers[0].get_ref().clone();
        let payment = payment.expect("a payment");
        assert_eq!(commissions.len(), 2, "{what}");
        let confirmed = payment.confirm_time.expect("a time").seconds;
        let expires = clients.partner(&chain[2].partner_id).await.pro_expires_at.expect("PRO").seconds;
        assert_eq!(expires - confirmed, 30 * DAY_SECONDS, "{what}: one upgrade");
        assert_eq!(clients.balance(&chain[1].partner_id).await, 11_700_000, "{what}");
        assert_eq!(clients.balance(&chain[0].partner_id).await, 1_950_000, "{what}");
    }
    let sql = twice.pair.referral_sql(Role::Owner).await;
    assert_eq!(number(&sql, "SELECT count(*) FROM ledger_transactions").await, 2);
    assert_eq!(number(&sql, "SELECT count(*) FROM commissions").await, 4);
    assert_eq!(number(&sql, "SELECT count(*) FROM audit_events WHERE action = 'ConfirmPayment'").await, 128);
    assert_books_balance(&mut twice.by_turns(1)).await;
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_confirmations_with_as_many_references_let_one_through() {
    let twice = Twice::start().await;
    let mut clients = twice.by_turns(0);
    let buyer = clients.register("many-references", "").await;
    let payment = clients.open_payment(&buyer.partner_id).await;
    let calls =
        (0..CALLS).map(|turn| (twice.by_turns(turn), payment.payment_id.clone(), format!("try-{turn}"))).collect();
    let answers = confirm(calls).await;

    let winner = answers.iter().position(Result::is_ok).expect("one success");
    let refused = (Code::FailedPrecondition, "PAYMENT_ALREADY_CONFIRMED".to_owned());
    assert_eq!(answers.iter().filter_map(failure).collect::<Vec<_>>(), vec![refused; CALLS - 1]);

    // Only success uses a reference up: a loser's pays for something else.
    let other = clients.open_payment(&buyer.partner_id).await;
    let loser = format!("try-{}", (winner + 1) % CALLS);
    clients.payments.confirm_payment(confirmation(&other.payment_id, &loser)).await.expect("an unused reference");
    assert_books_balance(&mut clients).await;
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reference_in_eight_dresses_pays_for_one_payment() {
    for instances in [1, 2] {
        let twice = Twice::start().await;
        let mut clients = twice.by_turns(0);
        let mut calls = Vec::new();
        for (turn, dress) in DRESSES.into_iter().enumerate() {
            let buyer = clients.register(&format!("dress-{turn}"), "").await;
            let payment = clients.open_payment(&buyer.partner_id).await;
            calls.push((twice.by_turns(turn % instances), payment.payment_id, dress.to_owned()));
        }
        let payments: Vec<_> = calls.iter().map(|(_, payment_id, _)| payment_id.clone()).collect();
        let answers = confirm(calls).await;

        let refused = (Code::AlreadyExists, "EXTERNAL_REF_USED".to_owned());
        assert_eq!(answers.iter().filter_map(failure).collect::<Vec<_>>(), vec![refused; DRESSES.len() - 1]);
        for (answer, payment_id) in answers.iter().zip(payments) {
            let payment = clients.payments.get_payment(GetPaymentRequest { payment_id }).await.expect("an answer");
            let payment = payment.into_inner().payment.expect("a payment");
            let (state, reference) = match answer {
                Ok(_) => (PaymentState::Succeeded, DRESSES[0]),
                Err(_) => (PaymentState::Pending, ""),
            };
            assert_eq!((payment.state(), payment.external_ref.as_str()), (state, reference));
        }
        assert_books_balance(&mut clients).await;
        twice.finish().await;
    }
}
