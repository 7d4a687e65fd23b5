//! Every way that a payout can go, and every way that it can't.

use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationKind, NotificationState},
    referral::v1::{GetPayoutRequest, ListAuditEventsRequest, Payout, PayoutState, TransactionKind},
};
use p2phub_tests::{
    builders::{FIRST_CALLER, SECOND_CALLER, by, payout_completion, payout_request, request_id, usdt},
    clients::Clients,
    pair::{Options, Pair},
    refusal::{fields, is_marked, refused},
    wait,
};
use tonic::Code;

use super::{SHARE, approve, balances, booked, cancel, commissions, complete, earner, fail, request, told};
use crate::concurrency::assert_books_balance;

const REFUSED: Code = Code::FailedPrecondition;

fn entries(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(purpose, amount)| ((*purpose).to_owned(), *amount)).collect()
}

/// What can't be done with a payout in its state is refused, and does nothing.
async fn refuses(clients: &mut Clients, payout: &Payout, reasons: [&str; 4]) {
    let id = &payout.payout_id;
    let [approval, completion, failure, cancellation] = reasons;
    let wrong = "PAYOUT_WRONG_STATE";
    if !approval.is_empty() {
        refused(approve(clients, SECOND_CALLER, id).await, REFUSED, approval);
    }
    if !completion.is_empty() {
        refused(complete(clients, id, "another transfer").await, REFUSED, completion);
    }
    if !failure.is_empty() {
        refused(fail(clients, id).await, REFUSED, failure);
    }
    if !cancellation.is_empty() {
        refused(cancel(clients, id).await, REFUSED, cancellation);
    }
    assert!(reasons.iter().all(|reason| reason.is_empty() || *reason == wrong));
    assert_eq!(clients.payout(id).await, *payout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_is_requested_approved_and_completed() {
    const WRONG: &str = "PAYOUT_WRONG_STATE";
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, payments) = earner(&mut clients, "paid", 2).await;

    let payout = clients.request_payout(&partner_id, Some(SHARE + 300_000)).await;
    assert_eq!((payout.state(), payout.amount.clone()), (PayoutState::Requested, Some(usdt(SHARE + 300_000))));
    assert_eq!((payout.requester.as_str(), payout.destination.as_str()), (FIRST_CALLER, "an address"));
    let items: Vec<_> =
        payout.items.iter().map(|item| (item.commission_id.as_str(), item.amount.clone().expect("money"))).collect();
    let ids = [format!("{}.1", payments[0]), format!("{}.1", payments[1])];
    assert_eq!(items, [(ids[0].as_str(), usdt(SHARE)), (ids[1].as_str(), usdt(300_000))]);
    assert_eq!(balances(&pair, &partner_id).await, (SHARE - 300_000, SHARE + 300_000));
    let (kind, behind, moved) = booked(&mut clients, &payout.reserve_transaction_id).await;
    assert_eq!((kind, behind), (TransactionKind::PayoutReserved, payout.payout_id.clone()));
    let amount = SHARE + 300_000;
    assert_eq!(moved, entries(&[("PARTNER_AVAILABLE", -amount), ("PARTNER_RESERVED", amount)]));
    refuses(&mut clients, &payout, ["", WRONG, WRONG, ""]).await;

    // Two pairs of eyes: not the one who asked, whatever else it may be called.
    refused(approve(&mut clients, FIRST_CALLER, &payout.payout_id).await, REFUSED, "FOUR_EYES_REQUIRED");
    let approved = clients.approve_payout(&payout.payout_id).await;
    assert_eq!((approved.state(), approved.approver.as_str()), (PayoutState::Approved, SECOND_CALLER));
    assert!(approved.approve_time.is_some() && approved.end_time.is_none());
    assert_eq!(balances(&pair, &partner_id).await, (SHARE - 300_000, amount));
    refuses(&mut clients, &approved, [WRONG, "", "", WRONG]).await;

    let completed = complete(&mut clients, &payout.payout_id, " transfer-1 ").await.expect("a completion");
    let completed = completed.into_inner().payout.expect("a payout");
    assert_eq!((completed.state(), completed.external_ref.as_str()), (PayoutState::Completed, "transfer-1"));
    assert_eq!(completed.items, payout.items);
    assert_eq!(balances(&pair, &partner_id).await, (SHARE - 300_000, 0));
    let (kind, behind, moved) = booked(&mut clients, &completed.end_transaction_id).await;
    assert_eq!((kind, behind), (TransactionKind::PayoutPaid, payout.payout_id.clone()));
    assert_eq!(moved, entries(&[("PARTNER_RESERVED", -amount), ("PLATFORM_CLEARING", amount)]));
    refuses(&mut clients, &completed, [WRONG, WRONG, WRONG, WRONG]).await;
    let states = commissions(&mut clients, &partner_id).await;
    assert_eq!(states, [("PAID".to_owned(), 0, 0, SHARE), ("AVAILABLE".to_owned(), 0, 0, 300_000)]);

    // Under the same reference again, by another request: the same answer, and nothing is done.
    let again = complete(&mut clients, &payout.payout_id, "transfer-1").await.expect("the same answer");
    assert!(!is_marked(&again, "idempotent-replay"));
    assert_eq!(again.into_inner().payout, Some(completed));
    assert_eq!(balances(&pair, &partner_id).await, (SHARE - 300_000, 0));
    assert_eq!(told(&pair, &partner_id).await, ["12.00 USDT requested", "12.00 USDT approved", "12.00 USDT completed"]);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_that_failed_or_was_cancelled_can_be_asked_for_again() {
    const WRONG: &str = "PAYOUT_WRONG_STATE";
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "returned", 1).await;
    for (state, reason) in [(PayoutState::Cancelled, "a wrong address"), (PayoutState::Failed, "the address is closed")]
    {
        let payout = clients.request_payout(&partner_id, None).await;
        assert_eq!((payout.amount, balances(&pair, &partner_id).await), (Some(usdt(SHARE)), (0, SHARE)));
        let ended = if state == PayoutState::Failed {
            clients.approve_payout(&payout.payout_id).await;
            clients.fail_payout(&payout.payout_id).await
        } else {
            clients.cancel_payout(&payout.payout_id).await
        };
        assert_eq!((ended.state(), ended.reason.as_str()), (state, reason));
        assert_eq!(ended.approver.is_empty(), state == PayoutState::Cancelled);
        assert!(ended.end_time.is_some() && ended.external_ref.is_empty());
        let (kind, behind, moved) = booked(&mut clients, &ended.end_transaction_id).await;
        assert_eq!((kind, behind), (TransactionKind::PayoutReturned, payout.payout_id.clone()));
        assert_eq!(moved, entries(&[("PARTNER_RESERVED", -SHARE), ("PARTNER_AVAILABLE", SHARE)]));
        assert_eq!(balances(&pair, &partner_id).await, (SHARE, 0));
        assert_eq!(commissions(&mut clients, &partner_id).await, [("AVAILABLE".to_owned(), 0, 0, 0)]);
        refuses(&mut clients, &ended, [WRONG; 4]).await;
    }
    let expected =
        ["requested", "cancelled", "requested", "approved", "failed"].map(|state| format!("11.70 USDT {state}"));
    assert_eq!(told(&pair, &partner_id).await, expected);
    clients.pay_out(&partner_id, None).await;
    assert_eq!(balances(&pair, &partner_id).await, (0, 0));
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_needs_money_enough_and_a_payout_a_reference_of_its_own() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "short", 1).await;
    let (poor, _) = earner(&mut clients, "poor", 0).await;
    let minimum = "PAYOUT_BELOW_MINIMUM";
    for (who, units, reason) in [
        (&partner_id, Some(9_999_999), minimum),
        (&partner_id, Some(SHARE + 1), "INSUFFICIENT_BALANCE"),
        (&poor, Some(9_999_999), minimum),
        (&poor, Some(10_000_000), "INSUFFICIENT_BALANCE"),
        (&poor, None, "INSUFFICIENT_BALANCE"),
    ] {
        refused(request(&mut clients, FIRST_CALLER, who, units).await, REFUSED, reason);
    }
    clients.adjust(&poor, 9_999_999).await;
    let below = refused(request(&mut clients, FIRST_CALLER, &poor, None).await, REFUSED, minimum);
    assert!(below.message().contains("10.00 USDT"), "{}", below.message());
    clients.adjust(&poor, 1).await;
    let first = clients.request_payout(&poor, None).await;
    refused(request(&mut clients, FIRST_CALLER, &poor, None).await, REFUSED, "INSUFFICIENT_BALANCE");

    let nobody = request_id();
    refused(request(&mut clients, FIRST_CALLER, &nobody, None).await, Code::NotFound, "PARTNER_NOT_FOUND");
    refused(approve(&mut clients, FIRST_CALLER, &nobody).await, Code::NotFound, "PAYOUT_NOT_FOUND");
    refused(complete(&mut clients, &nobody, "x").await, Code::NotFound, "PAYOUT_NOT_FOUND");
    refused(fail(&mut clients, &nobody).await, Code::NotFound, "PAYOUT_NOT_FOUND");
    refused(cancel(&mut clients, &nobody).await, Code::NotFound, "PAYOUT_NOT_FOUND");
    let get = clients.payouts.get_payout(GetPayoutRequest { payout_id: nobody }).await;
    refused(get, Code::NotFound, "PAYOUT_NOT_FOUND");
    let mut zero = payout_request(&partner_id, Some(0));
    let answer = clients.payouts.request_payout(zero.clone()).await;
    assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["amount.minor_units"]);
    zero.amount = None;
    zero.destination = "x".repeat(257);
    let answer = clients.payouts.request_payout(zero).await;
    assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["destination"]);

    let second = clients.request_payout(&partner_id, None).await;
    for payout in [&first, &second] {
        clients.approve_payout(&payout.payout_id).await;
    }
    // A hash in another dress is the same reference.
    let hash = "fb".repeat(32);
    complete(&mut clients, &first.payout_id, &hash).await.expect("a completion");
    let taken = complete(&mut clients, &second.payout_id, &format!("0x{}", hash.to_uppercase())).await;
    refused(taken, Code::AlreadyExists, "EXTERNAL_REF_USED");
    complete(&mut clients, &second.payout_id, "of its own").await.expect("a completion");
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

/// The first answer comes again, also after the payout has moved on; and every decision is on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_asked_again_reserves_once() {
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "again", 2).await;
    let asked = payout_request(&partner_id, Some(SHARE));
    let first = clients.payouts.request_payout(by(FIRST_CALLER, asked.clone())).await.expect("a payout").into_inner();
    let payout_id = first.payout.clone().expect("a payout").payout_id;
    clients.approve_payout(&payout_id).await;
    let completion = payout_completion(&payout_id, "transfer");
    let completed = clients.payouts.complete_payout(completion.clone()).await.expect("a completion").into_inner();

    let again = clients.payouts.request_payout(by(FIRST_CALLER, asked.clone())).await.expect("the first answer");
    assert!(is_marked(&again, "idempotent-replay"));
    assert_eq!(again.into_inner(), first);
    let again = clients.payouts.complete_payout(completion).await.expect("the first answer");
    assert!(is_marked(&again, "idempotent-replay"));
    assert_eq!(again.into_inner(), completed);
    assert_eq!(balances(&pair, &partner_id).await, (SHARE, 0));
    // Another caller's request IDs are others.
    clients.payouts.request_payout(by(SECOND_CALLER, asked)).await.expect("a payout of its own");
    assert_eq!(balances(&pair, &partner_id).await, (0, SHARE));

    let events = ListAuditEventsRequest { subject_id: payout_id, ..Default::default() };
    let events = clients.audit.list_audit_events(events).await.expect("an answer").into_inner().audit_events;
    let events: Vec<_> = events.iter().rev().map(|event| (event.action.as_str(), event.actor.as_str())).collect();
    let expected = [("RequestPayout", FIRST_CALLER), ("ApprovePayout", SECOND_CALLER), ("CompletePayout", "local")];
    assert_eq!(events, expected);
    wait::until("four notifications of payouts, delivered", async || {
        let filter = ListNotificationsRequest {
            recipient_id: partner_id.clone(),
            kind: NotificationKind::PayoutState.into(),
            state: NotificationState::Delivered.into(),
            ..Default::default()
        };
        let found = clients.notifications.list_notifications(filter).await.expect("an answer").into_inner();
        (found.notifications.len() == 4).then_some(())
    })
    .await;
    pair.finish().await;
}
