//! Balances at a time.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{ListPayoutsRequest, Payout, PayoutState};
use p2phub_tests::{
    builders::usdt,
    clients::Clients,
    pair::Options,
    postgres::Role,
    refusal::{fields, refused},
    wait,
};
use prost_types::Timestamp;
use referral_svc::Clock;
use tonic::{Code, Response};

use super::{balance_at, micros, now, refund, start, timestamp};
use crate::books::history::payouts;

/// Available, pending, and the version.
async fn amounts(clients: &mut Clients, partner_id: &str, time: Option<Timestamp>) -> (i64, i64, i64) {
    let balance = balance_at(clients, partner_id, time).await.expect("a balance");
    let units = |amount: Option<p2phub_proto::referral::v1::Amount>| amount.expect("an amount").minor_units;
    (units(balance.available), units(balance.pending), balance.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_answers_history_to_the_microsecond() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let (earner, buyer) = (chain[0].partner_id.as_str(), chain[1].partner_id.as_str());
    let before = now(&pair.referral_sql(Role::Owner).await, 0).await;

    // When, and what was available from then on.
    let mut history = vec![(before, 0)];
    for day in 1..=9 {
        clock.set_ahead(TimeDelta::days(day));
        let (payment, commissions) = clients.buy_pro(buyer).await;
        history.push((micros(&commissions[0].create_time), history[history.len() - 1].1 + 11_700_000));
        let (part, taken) = if day % 2 == 0 { (Some(13_000_000), 3_900_000) } else { (None, 11_700_000) };
        let refunded = refund(&mut clients, &payment, part).await.refund.expect("a refund");
        history.push((micros(&refunded.create_time), history[history.len() - 1].1 - taken));
    }

    for (version, (time, available)) in (0..).zip(&history) {
        assert_eq!(amounts(&mut clients, earner, Some(timestamp(*time))).await, (*available, 0, version));
        if let Some((next, _)) = history.get(usize::try_from(version).expect("an index") + 1) {
            // Nanoseconds before the next.
            let mut moment = timestamp(next - 1);
            moment.nanos += 999;
            assert_eq!(amounts(&mut clients, earner, Some(moment)).await, (*available, 0, version));
        }
    }
    let last = history[history.len() - 1].1;
    assert_eq!(amounts(&mut clients, earner, None).await, (last, 0, 18));
    assert_eq!(amounts(&mut clients, earner, Some(timestamp(0))).await, (0, 0, 0));
    assert_eq!(amounts(&mut clients, buyer, Some(timestamp(before))).await, (0, 0, 0));

    let future = timestamp(before + TimeDelta::days(10).num_microseconds().expect("not that long"));
    let answer = balance_at(&mut clients, earner, Some(future)).await.map(Response::new);
    let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["at_time"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_then_is_pending_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = directory.path().join("plan.json");
    let held = include_str!("../../../referral-svc/domain/src/plan.json")
        .replace("\"version\": 1", "\"version\": 2")
        .replace("\"commission_holding_days\": 0", "\"commission_holding_days\": 14");
    std::fs::write(&plan, held).expect("a plan file");
    let clock = Clock::default();
    let shared = clock.clone();
    let options = Options::default().referral(move |config| {
        config.clock = shared.clone();
        config.plan_file = Some(plan.clone());
    });
    let pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let earner = chain[0].partner_id.as_str();
    let (_, commissions) = clients.buy_pro(&chain[1].partner_id).await;
    let sold = micros(&commissions[0].create_time);
    assert_eq!(amounts(&mut clients, earner, None).await, (0, 11_700_000, 0));

    clock.set_ahead(TimeDelta::days(15));
    wait::until("the release", async || {
        (amounts(&mut clients, earner, None).await == (11_700_000, 0, 1)).then_some(())
    })
    .await;
    assert_eq!(amounts(&mut clients, earner, Some(timestamp(sold))).await, (0, 11_700_000, 0));
    assert_eq!(amounts(&mut clients, earner, Some(timestamp(sold - 1))).await, (0, 0, 0));
    pair.finish().await;
}

/// What of the payouts was open, and what paid, at a time: as each payout tells it itself.
fn reserved_and_paid(payouts: &[Payout], time: i64) -> (i64, i64) {
    let (mut reserved, mut paid) = (0, 0);
    for payout in payouts {
        let amount = payout.amount.as_ref().expect("an amount").minor_units;
        let has_ended = payout.end_time.is_some() && micros(&payout.end_time) <= time;
        match (micros(&payout.create_time) <= time, has_ended) {
            (true, false) => reserved += amount,
            (true, true) if payout.state() == PayoutState::Completed => paid += amount,
            _ => {}
        }
    }
    (reserved, paid)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_payouts_reserved_and_paid_is_told_of_every_moment() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let earner = chain[0].partner_id.as_str();
    for _ in 0..4 {
        clients.buy_pro(&chain[1].partner_id).await;
    }
    let sold = now(&pair.referral_sql(Role::Owner).await, 0).await;
    payouts(&mut clients, earner).await;
    let request = ListPayoutsRequest { partner_id: earner.to_owned(), ..Default::default() };
    let made = clients.payouts.list_payouts(request).await.expect("a page").into_inner().payouts;
    let changes = made.iter().flat_map(|payout| [payout.create_time, payout.end_time]).flatten();
    let changes: Vec<i64> = changes.map(|time| micros(&Some(time))).collect();
    assert_eq!(changes.len(), 7, "four payouts, of which one is open");

    let moments = changes.iter().flat_map(|time| [time - 1, *time]).chain([sold]);
    for (at_time, time) in moments.map(|time| (Some(timestamp(time)), time)).chain([(None, i64::MAX)]) {
        let (reserved, paid) = reserved_and_paid(&made, time);
        let balance = balance_at(&mut clients, earner, at_time).await.expect("a balance");
        assert_eq!(balance.reserved, Some(usdt(reserved)), "{time}");
        assert_eq!(balance.paid, Some(usdt(paid)), "{time}");
        assert_eq!(balance.available, Some(usdt(4 * 11_700_000 - reserved - paid)), "{time}");
    }
    pair.finish().await;
}
