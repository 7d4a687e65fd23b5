//! Payouts against one another, and against refunds.

use p2phub_proto::referral::v1::{
    ApprovePayoutRequest, CancelPayoutRequest, CompletePayoutRequest, FailPayoutRequest, Payout, PayoutState,
};
use p2phub_tests::{
    builders::{by, request_id},
    clients::Clients,
};
use tonic::Status;

use super::{SHARE, Stage, done, refunded};
use crate::concurrency::at_once;

async fn requested(mut clients: Clients, partner_id: String, amount: Option<i64>) -> Result<Payout, Status> {
    clients.try_payout(&partner_id, amount).await
}

async fn approved(mut clients: Clients, payout_id: String) -> Result<PayoutState, Status> {
    let request = ApprovePayoutRequest { request_id: request_id(), payout_id };
    let answer = clients.payouts.approve_payout(by("another", request)).await?;
    Ok(answer.into_inner().payout.expect("a payout").state())
}

async fn cancelled(mut clients: Clients, payout_id: String) -> Result<PayoutState, Status> {
    let request = CancelPayoutRequest { request_id: request_id(), payout_id, reason: "a race".to_owned() };
    Ok(clients.payouts.cancel_payout(request).await?.into_inner().payout.expect("a payout").state())
}

async fn completed(mut clients: Clients, payout_id: String) -> Result<PayoutState, Status> {
    let external_ref = format!("paid-{}", request_id());
    let request = CompletePayoutRequest { request_id: request_id(), payout_id, external_ref };
    Ok(clients.payouts.complete_payout(request).await?.into_inner().payout.expect("a payout").state())
}

async fn failed(mut clients: Clients, payout_id: String) -> Result<PayoutState, Status> {
    let request = FailPayoutRequest { request_id: request_id(), payout_id, reason: "a race".to_owned() };
    Ok(clients.payouts.fail_payout(request).await?.into_inner().payout.expect("a payout").state())
}

/// The one that was done; all the others found another state.
#[track_caller]
fn winner(answers: &[Result<PayoutState, Status>]) -> PayoutState {
    let won: Vec<_> = answers.iter().filter(|answer| done(answer, "PAYOUT_WRONG_STATE")).flatten().collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    *won[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_never_take_more_than_there_is() {
    let stage = Stage::set(0).await;
    for round in 0..3 {
        let (earner, _) = stage.earner(&format!("paid-{round}"), 3).await;
        let calls = (0..12).map(|turn| requested(stage.clients(turn), earner.partner_id.clone(), Some(10_000_000)));
        let answers = at_once(calls.collect::<Vec<_>>()).await;
        let paid = answers.iter().filter(|answer| done(answer, "INSUFFICIENT_BALANCE")).count();
        assert_eq!(paid, 3, "thrice ten of 35.10");
        assert_eq!(stage.balances(&earner.partner_id).await, [3 * SHARE - 30_000_000, 0, 30_000_000, 0]);
        // The same commissions aren't paid twice: the items of all sum to what each commission is worth at most.
        let items = answers.iter().flatten().flat_map(|payout| &payout.items);
        let mut by_commission = std::collections::BTreeMap::new();
        for item in items {
            *by_commission.entry(&item.commission_id).or_insert(0) +=
                item.amount.as_ref().expect("an amount").minor_units;
        }
        assert!(by_commission.values().all(|sum| *sum <= SHARE), "{by_commission:?}");
        assert_eq!(by_commission.values().sum::<i64>(), 30_000_000);

        let (all, _) = stage.earner(&format!("all-{round}"), 1).await;
        let calls = (0..8).map(|turn| requested(stage.clients(turn), all.partner_id.clone(), None));
        let answers = at_once(calls.collect::<Vec<_>>()).await;
        assert_eq!(answers.iter().filter(|answer| done(answer, "INSUFFICIENT_BALANCE")).count(), 1);
        assert_eq!(stage.balances(&all.partner_id).await, [0, 0, SHARE, 0]);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_goes_one_way() {
    let stage = Stage::set(0).await;
    for round in 0..6 {
        let (earner, _) = stage.earner(&format!("one-way-{round}"), 1).await;
        let payout = stage.clients(0).try_payout(&earner.partner_id, None).await.expect("a payout").payout_id;
        let (approvals, cancellations) = tokio::join!(
            at_once((0..4).map(|turn| approved(stage.clients(turn), payout.clone())).collect::<Vec<_>>()),
            at_once((0..4).map(|turn| cancelled(stage.clients(turn), payout.clone())).collect::<Vec<_>>()),
        );
        let expected = match winner(&[approvals, cancellations].concat()) {
            PayoutState::Cancelled => [SHARE, 0, 0, 0],
            PayoutState::Approved => {
                let (completions, failures) = tokio::join!(
                    at_once((0..4).map(|turn| completed(stage.clients(turn), payout.clone())).collect::<Vec<_>>()),
                    at_once((0..4).map(|turn| failed(stage.clients(turn), payout.clone())).collect::<Vec<_>>()),
                );
                match winner(&[completions, failures].concat()) {
                    PayoutState::Completed => [0, 0, 0, SHARE],
                    PayoutState::Failed => [SHARE, 0, 0, 0],
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(stage.balances(&earner.partner_id).await, expected);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_and_a_payout_meet_in_either_order() {
    let stage = Stage::set(0).await;
    let mut orders = [0, 0];
    for round in 0..20 {
        let (earner, payments) = stage.earner(&format!("either-{round}"), 1).await;
        let (refund, payout) = tokio::join!(
            tokio::spawn(refunded(stage.clients(round), payments[0].clone(), None)),
            tokio::spawn(requested(stage.clients(round + 1), earner.partner_id.clone(), None)),
        );
        refund.expect("no panic").expect("a refund");
        let payout = payout.expect("no panic");
        let is_paid_out = done(&payout, "INSUFFICIENT_BALANCE");
        orders[usize::from(is_paid_out)] += 1;
        // Whoever was paid out first owes what was taken back then.
        let expected = if is_paid_out { [-SHARE, 0, SHARE, 0] } else { [0, 0, 0, 0] };
        assert_eq!(stage.balances(&earner.partner_id).await, expected);
        let Ok(payout) = payout else { continue };
        let answer = approved(stage.clients(0), payout.payout_id.clone()).await;
        assert!(!done(&answer, "ACCOUNT_IN_DEBT"), "a debtor is not paid");
        cancelled(stage.clients(0), payout.payout_id).await.expect("a cancellation");
        assert_eq!(stage.balances(&earner.partner_id).await, [0, 0, 0, 0]);
    }
    println!("refund first: {}, payout first: {}", orders[0], orders[1]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_meets_a_payout_at_each_step_of_its_way() {
    let stage = Stage::set(0).await;
    let mut refused = 0;
    for round in 0..32 {
        let (earner, payments) = stage.earner(&format!("step-{round}"), 1).await;
        let payout = stage.clients(0).try_payout(&earner.partner_id, None).await.expect("a payout").payout_id;
        let step =
            [PayoutState::Approved, PayoutState::Cancelled, PayoutState::Completed, PayoutState::Failed][round % 4];
        if matches!(step, PayoutState::Completed | PayoutState::Failed) {
            approved(stage.clients(0), payout.clone()).await.expect("an approval");
        }
        let clients = stage.clients(round / 4);
        let stepping = tokio::spawn(async move {
            match step {
                PayoutState::Approved => approved(clients, payout).await,
                PayoutState::Cancelled => cancelled(clients, payout).await,
                PayoutState::Completed => completed(clients, payout).await,
                _ => failed(clients, payout).await,
            }
        });
        let refunding = tokio::spawn(refunded(stage.clients(round / 4 + 1), payments[0].clone(), None));
        let (stepped, refund) = tokio::join!(stepping, refunding);
        refund.expect("no panic").expect("a refund");
        let stepped = stepped.expect("no panic");
        // A debtor is not approved; whatever was under way before goes on, for the money may have gone out.
        let goes = match step {
            PayoutState::Approved => done(&stepped, "ACCOUNT_IN_DEBT"),
            _ => done(&stepped, "none"),
        };
        refused += usize::from(!goes);
        assert!(!goes || stepped.is_ok_and(|state| state == step));
        let expected = match step {
            PayoutState::Approved => [-SHARE, 0, SHARE, 0],
            PayoutState::Completed => [-SHARE, 0, 0, SHARE],
            _ => [0, 0, 0, 0],
        };
        assert_eq!(stage.balances(&earner.partner_id).await, expected, "{step:?}");
    }
    println!("of 8 approvals {refused} came after the refund");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_and_payouts_of_one_earner_all_at_once() {
    let stage = Stage::set(0).await;
    let (earner, payments) = stage.earner("crowded", 12).await;
    let refunds =
        payments.iter().enumerate().map(|(turn, id)| refunded(stage.clients(turn), id.clone(), Some(13_000_000)));
    let payouts = (0..12).map(|turn| requested(stage.clients(turn + 1), earner.partner_id.clone(), Some(12_000_000)));
    let (refunds, payouts) = tokio::join!(at_once(refunds.collect::<Vec<_>>()), at_once(payouts.collect::<Vec<_>>()));
    assert!(refunds.iter().all(Result::is_ok), "{refunds:?}");
    let reserved = payouts.iter().filter(|answer| done(answer, "INSUFFICIENT_BALANCE")).count();
    let reserved = i64::try_from(reserved).expect("a count") * 12_000_000;
    let left = 12 * (SHARE - SHARE / 3) - reserved;
    assert_eq!(stage.balances(&earner.partner_id).await, [left, 0, reserved, 0]);
    assert!(reserved <= 12 * SHARE, "no more was set aside than there ever was");
    assert!(reserved == 12 * 12_000_000 || left < 12_000_000, "refused, though there was enough in every order");
    stage.finish().await;
}
