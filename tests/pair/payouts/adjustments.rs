//! Adjustments: proposed by one, booked by another, into debt if need be.

use p2phub_proto::referral::v1::{
    Adjustment, AdjustmentState, Amount, ApproveAdjustmentRequest, ApproveAdjustmentResponse, ProposeAdjustmentRequest,
    RejectAdjustmentRequest, RejectAdjustmentResponse, TransactionKind,
};
use p2phub_tests::{
    builders::{FIRST_CALLER, SECOND_CALLER, adjustment_proposal, by, request_id, usdt},
    clients::Clients,
    pair::Options,
    refusal::{fields, is_marked, refused},
};
use tonic::Code;

use super::{Answer, SHARE, balances, booked, earner, request, told};
use crate::concurrency::assert_books_balance;

const REFUSED: Code = Code::FailedPrecondition;

async fn approve(clients: &mut Clients, caller: &str, adjustment_id: &str) -> Answer<ApproveAdjustmentResponse> {
    let request = ApproveAdjustmentRequest { request_id: request_id(), adjustment_id: adjustment_id.to_owned() };
    clients.ledger.approve_adjustment(by(caller, request)).await
}

async fn reject(clients: &mut Clients, caller: &str, adjustment_id: &str) -> Answer<RejectAdjustmentResponse> {
    let (adjustment_id, reason) = (adjustment_id.to_owned(), "counted twice".to_owned());
    let request = RejectAdjustmentRequest { request_id: request_id(), adjustment_id, reason };
    clients.ledger.reject_adjustment(by(caller, request)).await
}

fn booked_by(adjustment: &Adjustment) -> (AdjustmentState, &str) {
    (adjustment.state(), adjustment.decider.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_takes_two_callers_and_may_lead_into_debt() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "adjusted", 1).await;
    let mut expected = SHARE;
    for units in [7_000_000, -20_000_000] {
        let proposed = clients.propose_adjustment(&partner_id, units).await;
        assert_eq!(booked_by(&proposed), (AdjustmentState::Proposed, ""));
        assert_eq!((proposed.proposer.as_str(), proposed.amount.clone()), (FIRST_CALLER, Some(usdt(units))));
        assert_eq!(balances(&pair, &partner_id).await, (expected, 0), "nothing is booked yet");
        let alone = approve(&mut clients, FIRST_CALLER, &proposed.adjustment_id).await;
        refused(alone, REFUSED, "FOUR_EYES_REQUIRED");

        let approved = approve(&mut clients, SECOND_CALLER, &proposed.adjustment_id).await.expect("an approval");
        let approved = approved.into_inner().adjustment.expect("an adjustment");
        assert_eq!(booked_by(&approved), (AdjustmentState::Approved, SECOND_CALLER));
        expected += units;
        assert_eq!(balances(&pair, &partner_id).await, (expected, 0));
        let (kind, behind, moved) = booked(&mut clients, &approved.transaction_id).await;
        assert_eq!((kind, behind), (TransactionKind::Adjustment, proposed.adjustment_id.clone()));
        let mut sides = vec![("PARTNER_AVAILABLE".to_owned(), units), ("PLATFORM_ADJUSTMENTS".to_owned(), -units)];
        sides.sort_by_key(|side| side.1);
        assert_eq!(moved, sides);
        for caller in [FIRST_CALLER, SECOND_CALLER] {
            let again = approve(&mut clients, caller, &proposed.adjustment_id).await;
            refused(again, REFUSED, "ADJUSTMENT_DECIDED");
            let late = reject(&mut clients, caller, &proposed.adjustment_id).await;
            refused(late, REFUSED, "ADJUSTMENT_DECIDED");
        }
    }
    assert_eq!(expected, -1_300_000, "a debt");
    let in_debt = request(&mut clients, FIRST_CALLER, &partner_id, None).await;
    refused(in_debt, REFUSED, "INSUFFICIENT_BALANCE");
    clients.adjust(&partner_id, 11_300_000).await;
    let paid = clients.pay_out(&partner_id, None).await;
    let units: Vec<_> = paid.items.iter().map(|item| item.amount.as_ref().expect("money").minor_units).collect();
    assert_eq!(units, [SHARE, 7_000_000, -20_000_000, 11_300_000]);
    assert_eq!(balances(&pair, &partner_id).await, (0, 0));
    assert_eq!(told(&pair, &partner_id).await.len(), 3, "of the payout alone");
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_adjustment_is_never_booked() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "rejected", 0).await;
    for caller in [FIRST_CALLER, SECOND_CALLER] {
        let proposed = clients.propose_adjustment(&partner_id, -5).await;
        let rejected = reject(&mut clients, caller, &proposed.adjustment_id).await.expect("a rejection").into_inner();
        let rejected = rejected.adjustment.expect("an adjustment");
        assert_eq!(booked_by(&rejected), (AdjustmentState::Rejected, caller));
        assert_eq!((rejected.reject_reason.as_str(), rejected.transaction_id.as_str()), ("counted twice", ""));
        let late = approve(&mut clients, SECOND_CALLER, &proposed.adjustment_id).await;
        refused(late, REFUSED, "ADJUSTMENT_DECIDED");
    }
    assert_eq!(balances(&pair, &partner_id).await, (0, 0));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_checked_and_asked_again_proposes_once() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "checked", 0).await;
    let good = || adjustment_proposal(&partner_id, 5);
    let with = |amount: Amount| ProposeAdjustmentRequest { amount: Some(amount), ..good() };
    for (wrong, field) in [
        (ProposeAdjustmentRequest { amount: None, ..good() }, "amount"),
        (with(usdt(0)), "amount.minor_units"),
        (with(usdt(i64::MIN)), "amount.minor_units"),
        (with(usdt(1_000_000_000_000_001)), "amount.minor_units"),
        (with(Amount { asset: "TON".to_owned(), minor_units: 1 }), "amount.asset"),
        (ProposeAdjustmentRequest { reason: " ".to_owned(), ..good() }, "reason"),
        (ProposeAdjustmentRequest { partner_id: "x".to_owned(), ..good() }, "partner_id"),
    ] {
        let answer = clients.ledger.propose_adjustment(wrong).await;
        assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), [field]);
    }
    let nobody = ProposeAdjustmentRequest { partner_id: request_id(), ..good() };
    refused(clients.ledger.propose_adjustment(nobody).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let missing = request_id();
    refused(approve(&mut clients, SECOND_CALLER, &missing).await, Code::NotFound, "ADJUSTMENT_NOT_FOUND");
    refused(reject(&mut clients, SECOND_CALLER, &missing).await, Code::NotFound, "ADJUSTMENT_NOT_FOUND");

    let asked = good();
    let first = clients.ledger.propose_adjustment(asked.clone()).await.expect("a proposal").into_inner();
    let id = first.adjustment.clone().expect("an adjustment").adjustment_id;
    approve(&mut clients, SECOND_CALLER, &id).await.expect("an approval");
    let again = clients.ledger.propose_adjustment(asked).await.expect("the first answer");
    assert!(is_marked(&again, "idempotent-replay"));
    assert_eq!(again.into_inner(), first);
    assert_eq!(balances(&pair, &partner_id).await, (5, 0));
    pair.finish().await;
}
