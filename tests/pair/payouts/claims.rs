//! What payouts pay: the oldest first, debts settled by the next one, and commissions' states along the way.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::Payout;
use p2phub_tests::{
    builders::{FIRST_CALLER, SECOND_CALLER},
    pair::Options,
    refusal::refused,
    wait,
};
use referral_svc::Clock;
use serde_json::json;
use tonic::Code;

use super::{SHARE, approve, balances, commissions, earner, request};
use crate::{concurrency::assert_books_balance, payments::plan::plan_file};

/// A payout's items: what they are about, and how much.
fn items(payout: &Payout) -> Vec<(String, i64)> {
    let of = |item: &p2phub_proto::referral::v1::PayoutItem| {
        let units = item.amount.as_ref().expect("an amount").minor_units;
        (format!("{}{}", item.commission_id, item.adjustment_id), units)
    };
    payout.items.iter().map(of).collect()
}

fn state(name: &str, reversed: i64, reserved: i64, paid: i64) -> (String, i64, i64, i64) {
    (name.to_owned(), reversed, reserved, paid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_the_payout_is_settled_by_the_next_one() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, mut sales) = earner(&mut clients, "owes", 1).await;
    let first = clients.pay_out(&partner_id, None).await;
    assert_eq!(items(&first), [(format!("{}.1", sales[0]), SHARE)]);
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("PAID", 0, 0, SHARE)]);

    // A third is taken back: a debt, which what is earned next repays first.
    clients.refund(&sales[0], Some(13_000_000)).await;
    let debt = SHARE / 3;
    assert_eq!(balances(&pair, &partner_id).await, (-debt, 0));
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("AVAILABLE", debt, 0, SHARE)]);
    let in_debt = request(&mut clients, FIRST_CALLER, &partner_id, None).await;
    refused(in_debt, Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    let code = clients.partner(&partner_id).await.referral_code;
    let buyer = clients.register("buys", &code).await;
    for _ in 0..2 {
        sales.push(clients.buy_pro(&buyer.partner_id).await.0.payment_id);
    }
    assert_eq!(balances(&pair, &partner_id).await, (2 * SHARE - debt, 0));

    let second = clients.request_payout(&partner_id, Some(15_000_000)).await;
    let rest = 15_000_000 + debt - SHARE;
    let expected =
        [(format!("{}.1", sales[0]), -debt), (format!("{}.1", sales[1]), SHARE), (format!("{}.1", sales[2]), rest)];
    assert_eq!(items(&second), expected);
    let reserved =
        [state("AVAILABLE", debt, -debt, SHARE), state("AVAILABLE", 0, SHARE, 0), state("AVAILABLE", 0, rest, 0)];
    assert_eq!(commissions(&mut clients, &partner_id).await, reserved);
    clients.approve_payout(&second.payout_id).await;
    clients.complete_payout(&second.payout_id).await;
    assert_eq!(items(&clients.payout(&second.payout_id).await), expected);
    let settled = [state("PAID", debt, 0, SHARE - debt), state("PAID", 0, 0, SHARE), state("AVAILABLE", 0, 0, rest)];
    assert_eq!(commissions(&mut clients, &partner_id).await, settled);

    // What is left of a sale goes back too: nothing of it may stay with anybody.
    clients.refund(&sales[0], None).await;
    let reversed = commissions(&mut clients, &partner_id).await[0].clone();
    assert_eq!(reversed, state("REVERSED", SHARE, 0, SHARE - debt));
    assert_eq!(balances(&pair, &partner_id).await, (2 * SHARE - debt - 15_000_000 - (SHARE - debt), 0));
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_reserved_for_one_payout_and_refunded_meanwhile_ends_where_it_should() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, sales) = earner(&mut clients, "between", 1).await;
    let first = clients.request_payout(&partner_id, None).await;
    clients.refund(&sales[0], None).await;
    assert_eq!(balances(&pair, &partner_id).await, (-SHARE, SHARE));
    let denied = approve(&mut clients, SECOND_CALLER, &first.payout_id).await;
    refused(denied, Code::FailedPrecondition, "ACCOUNT_IN_DEBT");

    // Another payout settles the debt; only then the first one can go on, and fails.
    let credit = clients.adjust(&partner_id, 2 * SHARE).await;
    let second = clients.request_payout(&partner_id, None).await;
    let expected = [(format!("{}.1", sales[0]), -SHARE), (credit.adjustment_id.clone(), 2 * SHARE)];
    assert_eq!(items(&second), expected);
    assert_eq!(balances(&pair, &partner_id).await, (0, 2 * SHARE));
    clients.approve_payout(&first.payout_id).await;
    clients.fail_payout(&first.payout_id).await;
    // The debt was settled, and wasn't one after all: it is the partner's again.
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("REVERSED", SHARE, -SHARE, 0)]);
    assert_eq!(balances(&pair, &partner_id).await, (SHARE, SHARE));
    clients.approve_payout(&second.payout_id).await;
    clients.complete_payout(&second.payout_id).await;
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("REVERSED", SHARE, 0, -SHARE)]);
    let third = clients.pay_out(&partner_id, None).await;
    assert_eq!(items(&third), [(format!("{}.1", sales[0]), SHARE)]);
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("REVERSED", SHARE, 0, 0)]);
    assert_eq!(balances(&pair, &partner_id).await, (0, 0));
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_paid_once_it_is_released() {
    let directory = tempfile::tempdir().expect("a directory");
    let numbers = json!({ "version": 2, "commission_holding_days": 10, "payout_minimum_minor_units": 11_000_000 });
    let (plan, clock) = (plan_file(&directory, &numbers), Clock::default());
    let shared = clock.clone();
    let options = Options::default().referral(move |config| {
        config.clock = shared.clone();
        config.plan_file = Some(plan.clone());
    });
    let pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, sales) = earner(&mut clients, "held", 1).await;
    let held = request(&mut clients, FIRST_CALLER, &partner_id, None).await;
    refused(held, Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("PENDING", 0, 0, 0)]);

    clock.set_ahead(TimeDelta::days(11));
    wait::until("the release", async || (clients.balance(&partner_id).await == SHARE).then_some(())).await;
    let below = request(&mut clients, FIRST_CALLER, &partner_id, Some(10_999_999)).await;
    refused(below, Code::FailedPrecondition, "PAYOUT_BELOW_MINIMUM");
    let paid = clients.pay_out(&partner_id, None).await;
    assert_eq!(items(&paid), [(format!("{}.1", sales[0]), SHARE)]);
    assert_eq!(commissions(&mut clients, &partner_id).await, [state("PAID", 0, 0, SHARE)]);
    assert_eq!(clients.balances(&partner_id).await, [0, 0, 0, SHARE]);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}
