//! Refunds against one another, against releases, and against sales to the same buyer.

use p2phub_proto::referral::v1::{CommissionState, ConfirmPaymentResponse, GetPaymentRequest, Payment};
use p2phub_tests::{builders::confirmation, clients::Clients, wait};
use tonic::Status;

use super::{SHARE, Stage, done, refunded};
use crate::concurrency::at_once;

const PRICE: i64 = 39_000_000;
const DAY: i64 = 24 * 60 * 60;

#[tokio::test(flavor = "multi_thread")]
async fn refunds_of_one_payment_never_exceed_it() {
    let stage = Stage::set(0).await;
    for round in 0..3 {
        let (earner, payments) = stage.earner(&format!("all-at-once-{round}"), 1).await;
        // Sixteen of them are more than there is, in whatever order.
        let amounts: Vec<i64> = (0..16).map(|turn| [5_000_000, 1_234_567, 9_999_999, 3][turn % 4]).collect();
        let calls = amounts
            .iter()
            .enumerate()
            .map(|(turn, amount)| refunded(stage.clients(turn), payments[0].clone(), Some(*amount)));
        let answers = at_once(calls.collect::<Vec<_>>()).await;
        let is_done: Vec<bool> = answers.iter().map(|answer| done(answer, "REFUND_EXCEEDS_PAYMENT")).collect();
        let total: i64 = amounts.iter().zip(&is_done).filter(|(_, done)| **done).map(|(amount, _)| amount).sum();
        let left = PRICE - total;
        assert!(left >= 0, "more was refunded than paid: {total}");
        for (amount, done) in amounts.iter().zip(&is_done) {
            assert!(*done || *amount > left, "{amount} was refused, though {left} are left");
        }
        let taken: i64 = answers
            .iter()
            .flatten()
            .flat_map(|answer| &answer.clawbacks)
            .map(|clawback| clawback.amount.as_ref().expect("an amount").minor_units)
            .sum();
        let share = i64::try_from(i128::from(SHARE) * i128::from(total) / i128::from(PRICE)).expect("a share");
        assert_eq!(taken, share, "in whatever order, the same is taken back in all");
        assert_eq!(stage.balances(&earner.partner_id).await, [SHARE - share, 0, 0, 0]);

        let rest =
            at_once((0..8).map(|turn| refunded(stage.clients(turn), payments[0].clone(), None)).collect::<Vec<_>>())
                .await;
        let winners = rest.iter().filter(|answer| done(answer, "REFUND_EXCEEDS_PAYMENT")).count();
        assert_eq!(winners, usize::from(left > 0), "all that is left is given back once");
        assert_eq!(stage.balances(&earner.partner_id).await, [0, 0, 0, 0]);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commission_is_released_or_taken_back_and_never_both() {
    let stage = Stage::set(5).await;
    let (earner, payments) = stage.earner("held", 24).await;
    assert_eq!(stage.balances(&earner.partner_id).await, [0, 24 * SHARE, 0, 0]);
    // The clock brings the releases about, and the refunds come at the same moment.
    let calls: Vec<_> = payments
        .iter()
        .enumerate()
        .map(|(turn, payment_id)| {
            let amount = if turn % 2 == 0 { None } else { Some(13_000_000) };
            refunded(stage.clients(turn), payment_id.clone(), amount)
        })
        .collect();
    stage.at_day(6);
    let answers = at_once(calls).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    wait::until("the releases", async || (stage.balances(&earner.partner_id).await[1] == 0).then_some(())).await;
    let left = 12 * (SHARE - SHARE / 3);
    assert_eq!(stage.balances(&earner.partner_id).await, [left, 0, 0, 0]);
    for (turn, payment_id) in payments.iter().enumerate() {
        let commission = &stage.clients(turn).commissions(payment_id).await[0];
        let expected = if turn % 2 == 0 { CommissionState::Reversed } else { CommissionState::Available };
        assert_eq!(commission.state(), expected);
        assert!(turn % 2 == 0 || !commission.release_transaction_id.is_empty(), "{commission:?}");
    }
    stage.finish().await;
}

async fn confirmed(mut clients: Clients, payment_id: String) -> Result<ConfirmPaymentResponse, Status> {
    let request = confirmation(&payment_id, &format!("ref-{payment_id}"));
    Ok(clients.payments.confirm_payment(request).await?.into_inner())
}

async fn shown(mut clients: Clients, payment_id: &str) -> Payment {
    let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
    clients.payments.get_payment(request).await.expect("an answer").into_inner().payment.expect("a payment")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_and_a_refund_to_one_buyer_leave_the_period_that_is_paid() {
    let stage = Stage::set(0).await;
    let mut clients = stage.clients(0);
    for round in 0..12 {
        let buyer = clients.register(&format!("buyer-{round}"), "").await;
        let (old, _) = clients.buy_pro(&buyer.partner_id).await;
        let new = [clients.open_payment(&buyer.partner_id).await, clients.open_payment(&buyer.partner_id).await];
        let (refund, first, second) = tokio::join!(
            tokio::spawn(refunded(stage.clients(round), old.payment_id.clone(), None)),
            tokio::spawn(confirmed(stage.clients(round + 1), new[0].payment_id.clone())),
            tokio::spawn(confirmed(stage.clients(round), new[1].payment_id.clone())),
        );
        refund.expect("no panic").expect("a refund");
        first.expect("no panic").expect("a sale");
        second.expect("no panic").expect("a sale");

        let seconds = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
        let mut periods = Vec::new();
        for payment in [&old, &new[0], &new[1]] {
            let payment = shown(stage.clients(1), &payment.payment_id).await;
            periods.push((seconds(payment.pro_start_time), seconds(payment.pro_end_time)));
        }
        let refunded = periods.remove(0);
        assert!(refunded.1 - refunded.0 < 60, "what was refunded is over: {refunded:?}");
        periods.sort_unstable();
        assert!(periods.iter().all(|(start, end)| end - start == 30 * DAY), "{periods:?}");
        assert!((periods[1].0 - periods[0].1).abs() <= 1, "one after the other: {periods:?}");
        assert!((periods[0].0 - refunded.1).abs() < 60, "from now on: {refunded:?}, {periods:?}");
        let buyer = clients.partner(&buyer.partner_id).await;
        assert_eq!(seconds(buyer.pro_expires_at), periods[1].1);
    }
    stage.finish().await;
}
