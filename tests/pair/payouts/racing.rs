//! Payouts against each other and against refunds, at once and on two instances: every result is one that some order explains.

use p2phub_proto::referral::v1::{CompletePayoutResponse, PayoutState};
use p2phub_tests::{
    builders::{FIRST_CALLER, SECOND_CALLER, refund},
    hold::Hold,
    pair::Options,
    postgres::Role,
    prometheus::Scrape,
    wait,
};
use tonic::Code;

use super::{SHARE, approve, balances, complete, earner, request, told};
use crate::{
    PAIR_PROCESS,
    concurrency::{Twice, assert_books_balance, at_once, failure, number},
};

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_never_overdraw() {
    let twice = Twice::start().await;
    let mut clients = twice.by_turns(0);
    let (partner_id, _) = earner(&mut clients, "overdrawn", 3).await;
    let answers = at_once((0..16).map(|turn| {
        let (mut clients, partner_id) = (twice.by_turns(turn), partner_id.clone());
        async move { request(&mut clients, FIRST_CALLER, &partner_id, Some(SHARE)).await }
    }))
    .await;
    let refused: Vec<_> = answers.iter().filter_map(failure).collect();
    assert_eq!(refused, vec![(Code::FailedPrecondition, "INSUFFICIENT_BALANCE".to_owned()); 13]);
    assert_eq!(balances(&twice.pair, &partner_id).await, (0, 3 * SHARE));
    // Each commission is paid once.
    let mut claims: Vec<_> = answers
        .into_iter()
        .flatten()
        .flat_map(|answer| answer.into_inner().payout.expect("a payout").items)
        .map(|item| (item.commission_id, item.amount.expect("money").minor_units))
        .collect();
    claims.sort();
    claims.dedup();
    assert!(claims.len() == 3 && claims.iter().all(|(_, units)| *units == SHARE), "{claims:?}");
    assert_books_balance(&mut clients).await;
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_refund_come_in_either_order() {
    let twice = Twice::start().await;
    let mut clients = twice.by_turns(0);
    for round in 0..12 {
        let (partner_id, sales) = earner(&mut clients, &format!("raced-{round}"), 1).await;
        let refund = refund(&sales[0], None);
        let (mut refunder, mut requester) = (twice.by_turns(round), twice.by_turns(round / 2));
        let refunding = tokio::spawn(async move { refunder.payments.refund_payment(refund).await });
        let asked = request(&mut requester, FIRST_CALLER, &partner_id, None).await;
        refunding.await.expect("no panic").expect("a refund");
        match asked {
            Ok(answer) => {
                assert_eq!(balances(&twice.pair, &partner_id).await, (-SHARE, SHARE), "first the request");
                let payout = answer.into_inner().payout.expect("a payout");
                let denied = approve(&mut clients, SECOND_CALLER, &payout.payout_id).await;
                assert_eq!(failure(&denied), Some((Code::FailedPrecondition, "ACCOUNT_IN_DEBT".to_owned())));
            }
            Err(status) => {
                assert_eq!(p2phub_tests::refusal::reason(&status), "INSUFFICIENT_BALANCE");
                assert_eq!(balances(&twice.pair, &partner_id).await, (0, 0), "first the refund");
            }
        }
    }
    assert_books_balance(&mut clients).await;
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reference_completes_one_payout_once() {
    let twice = Twice::start().await;
    let mut clients = twice.by_turns(0);
    let mut payouts = Vec::new();
    for turn in 0..2 {
        let (partner_id, _) = earner(&mut clients, &format!("completed-{turn}"), 1).await;
        let payout_id = clients.request_payout(&partner_id, None).await.payout_id;
        clients.approve_payout(&payout_id).await;
        payouts.push(payout_id);
    }
    let answers = at_once((0..16).map(|turn| {
        let (mut clients, payout_id) = (twice.by_turns(turn), payouts[turn / 2 % 2].clone());
        async move { complete(&mut clients, &payout_id, "one transfer").await }
    }))
    .await;
    // One payout has it, by whichever of its calls; the other one can't.
    let refused: Vec<_> = answers.iter().filter_map(failure).collect();
    assert_eq!(refused, vec![(Code::AlreadyExists, "EXTERNAL_REF_USED".to_owned()); 8]);
    let done: Vec<CompletePayoutResponse> = answers.into_iter().flatten().map(|answer| answer.into_inner()).collect();
    assert!(done.iter().all(|answer| *answer == done[0]));
    let sql = twice.pair.referral_sql(Role::Owner).await;
    assert_eq!(number(&sql, "SELECT count(*) FROM ledger_transactions WHERE kind = 'PAYOUT_PAID'").await, 1);
    assert_eq!(number(&sql, "SELECT count(*) FROM payouts WHERE state = 'APPROVED'").await, 1);
    assert_books_balance(&mut clients).await;
    twice.finish().await;
}

/// One payout's whole way in one batch: the database sees only where it began and where it ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_and_a_completion_may_commit_together() {
    let pair = Options::default().processes(PAIR_PROCESS).start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, _) = earner(&mut clients, "together", 1).await;
    let (other, _) = earner(&mut clients, "held-up", 1).await;
    let payout_id = clients.request_payout(&partner_id, None).await.payout_id;
    let superuser = pair.referral_sql(Role::Superuser).await;
    let lock = format!("SELECT FROM accounts WHERE owner_id = '{other}' FOR UPDATE");
    let hold = Hold::take(superuser, pair.referral_sql(Role::Superuser).await, &lock).await;
    let mut caller = clients.clone();
    let blocked = tokio::spawn(async move { request(&mut caller, FIRST_CALLER, &other, None).await });
    hold.blocks_someone().await;

    // Whatever comes now waits for the next batch, in its order.
    let http = pair.referral.as_ref().expect("it runs").http;
    let queued = async |count: f64| {
        wait::until("commands to queue", async || {
            let depth = Scrape::of(http).await.value("p2phub_commit_queue_depth", &[]);
            (depth == Some(count)).then_some(())
        })
        .await;
    };
    let (mut caller, id) = (clients.clone(), payout_id.clone());
    let approving = tokio::spawn(async move { approve(&mut caller, SECOND_CALLER, &id).await });
    queued(1.0).await;
    let (mut caller, id) = (clients.clone(), payout_id.clone());
    let completing = tokio::spawn(async move { complete(&mut caller, &id, "a transfer").await });
    queued(2.0).await;
    hold.release().await;
    blocked.await.expect("no panic").expect("a payout");
    let approved = approving.await.expect("no panic").expect("an approval").into_inner().payout;
    assert_eq!(approved.expect("a payout").state(), PayoutState::Approved);
    completing.await.expect("no panic").expect("a completion");
    assert_eq!(clients.payout(&payout_id).await.state(), PayoutState::Completed);
    let together =
        "SELECT count(DISTINCT xmin::text) FROM audit_events WHERE action IN ('ApprovePayout', 'CompletePayout')";
    assert_eq!(number(&pair.referral_sql(Role::Owner).await, together).await, 1, "one transaction");
    assert_eq!(told(&pair, &partner_id).await.len(), 3);
    assert_eq!(balances(&pair, &partner_id).await, (0, 0));
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}
