//! Commissions that are held: pending until their time, refunded meanwhile, released once.

use std::path::PathBuf;

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{
    AccountPurpose, Commission, CommissionState, ListCommissionsRequest, ListEntriesRequest, TransactionKind,
};
use p2phub_tests::{
    builders::ASSET,
    clients::Clients,
    instance::Instance,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    wait,
};
use referral_svc::Clock;
use serde_json::json;
use tempfile::TempDir;

use super::{earned, reversed};
use crate::{
    concurrency::{assert_books_balance, number},
    payments::plan::plan_file,
};

/// Two instances that share a clock and a plan with ten days' holding.
struct Stage {
    pair: Pair,
    other: Instance,
    clients: Clients,
    clock: Clock,
    _directory: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let plan: PathBuf = plan_file(&directory, &json!({ "version": 2, "commission_holding_days": 10 }));
        let clock = Clock::default();
        let shared = clock.clone();
        let options = Options::default().referral(move |config| {
            config.clock = shared.clone();
            config.plan_file = Some(plan.clone());
        });
        let pair = options.start_alone().await;
        let other = pair.another_referral(ports::free()).await;
        Self { clients: pair.clients.clone(), pair, other, clock, _directory: directory }
    }

    fn at_day(&self, day: i64) {
        self.clock.set_ahead(TimeDelta::days(day));
    }

    /// Waits until so much is pending: the release is a job's.
    async fn pending(&self, partner_id: &str, expected: i64) {
        wait::until("the release", async || {
            (self.clients.clone().balances(partner_id).await[1] == expected).then_some(())
        })
        .await;
    }

    async fn of_earner(&self, earner_id: &str) -> Vec<Commission> {
        let request = ListCommissionsRequest { earner_id: earner_id.to_owned(), ..Default::default() };
        self.clients.clone().payments.list_commissions(request).await.expect("an answer").into_inner().commissions
    }

    /// The available account's entries of this kind, newest first.
    async fn entries(&self, partner_id: &str, purpose: AccountPurpose, kind: TransactionKind) -> Vec<i64> {
        let request = ListEntriesRequest {
            partner_id: partner_id.to_owned(),
            asset: ASSET.to_owned(),
            purpose: purpose.into(),
            kind: kind.into(),
            ..Default::default()
        };
        let answer = self.clients.clone().ledger.list_entries(request).await.expect("an answer").into_inner();
        answer.entries.into_iter().map(|entry| entry.amount.expect("an amount").minor_units).collect()
    }

    async fn finish(mut self) {
        assert_books_balance(&mut self.clients).await;
        self.other.stop().await;
        self.pair.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_commission_is_pending_until_its_time_and_then_released_once() {
    let stage = Stage::set().await;
    let mut clients = stage.clients.clone();
    let chain = clients.chain("held", 3).await;
    for _ in 0..3 {
        let (payment, sold) = clients.buy_pro(&chain[2].partner_id).await;
        for commission in &sold {
            assert_eq!(commission.state(), CommissionState::Pending);
            let held = commission.release_time.expect("a time").seconds - payment.confirm_time.expect("a time").seconds;
            assert_eq!((held, commission.release_transaction_id.as_str()), (10 * 24 * 60 * 60, ""));
        }
    }
    let [parent, grandparent] = [&chain[1].partner_id, &chain[0].partner_id];
    assert_eq!(clients.balances(parent).await, [0, 3 * 11_700_000, 0, 0]);
    stage.at_day(9);
    // The sweepers look whenever the clock is set; a commission that isn't due is never found by them.
    let due = "SELECT count(*) FROM audit_events WHERE action = 'ReleaseCommissions'";
    let sql = stage.pair.referral_sql(Role::Owner).await;
    let counted = "SELECT count(*) FROM audit_events WHERE action = 'CountProMembers'";
    wait::until("a sweep", async || (number(&sql, counted).await > 0).then_some(())).await;
    assert_eq!(number(&sql, due).await, 0);
    assert_eq!(clients.balances(parent).await, [0, 3 * 11_700_000, 0, 0]);

    stage.at_day(11);
    stage.pending(parent, 0).await;
    assert_eq!(clients.balances(parent).await, [3 * 11_700_000, 0, 0, 0]);
    stage.pending(grandparent, 0).await;
    assert_eq!(clients.balances(grandparent).await, [3 * 1_950_000, 0, 0, 0]);
    for commission in stage.of_earner(parent).await {
        assert_eq!(commission.state(), CommissionState::Available);
        assert!(!commission.release_transaction_id.is_empty());
    }
    for (partner_id, all) in [(parent, 3 * 11_700_000), (grandparent, 3 * 1_950_000)] {
        let released = stage.entries(partner_id, AccountPurpose::PartnerAvailable, TransactionKind::Release).await;
        assert_eq!(released.iter().sum::<i64>(), all, "{released:?}");
    }
    // Back and forth: what is released stays so, once.
    stage.at_day(2);
    stage.at_day(400);
    clients.buy_pro(&chain[2].partner_id).await;
    assert_eq!(clients.balances(parent).await, [3 * 11_700_000, 11_700_000, 0, 0]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_what_is_held_takes_from_what_is_pending() {
    let stage = Stage::set().await;
    let mut clients = stage.clients.clone();
    let chain = clients.chain("taken", 2).await;
    let earner = &chain[0].partner_id;
    let mut payments = Vec::new();
    for _ in 0..3 {
        payments.push(clients.buy_pro(&chain[1].partner_id).await.0.payment_id);
    }
    clients.refund(&payments[0], Some(13_000_000)).await;
    clients.refund(&payments[1], None).await;
    assert_eq!(clients.balances(earner).await, [0, 3 * 11_700_000 - 3_900_000 - 11_700_000, 0, 0]);
    let states: Vec<_> = stage.of_earner(earner).await.iter().rev().map(|one| (one.state(), reversed(one))).collect();
    let pending = CommissionState::Pending;
    assert_eq!(states, [(pending, 3_900_000), (CommissionState::Reversed, 11_700_000), (pending, 0)]);

    stage.at_day(11);
    stage.pending(earner, 0).await;
    assert_eq!(clients.balances(earner).await, [7_800_000 + 11_700_000, 0, 0, 0]);
    // What was taken back whole had nothing to release.
    let whole = &clients.commissions(&payments[1]).await[0];
    assert_eq!((whole.state(), whole.release_transaction_id.as_str()), (CommissionState::Reversed, ""));

    // And after the release from what is available.
    clients.refund(&payments[0], None).await;
    assert_eq!(clients.balances(earner).await, [11_700_000, 0, 0, 0]);
    let all = stage.of_earner(earner).await;
    assert_eq!(all.iter().map(|one| earned(one) - reversed(one)).sum::<i64>(), 11_700_000);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commissions_are_released_once_by_two_instances() {
    let stage = Stage::set().await;
    let mut clients = stage.clients.clone();
    // More than one command takes: 9 commissions each of 60 sales.
    let chain = clients.chain("many", 10).await;
    for _ in 0..60 {
        clients.buy_pro(&chain[9].partner_id).await;
    }
    stage.at_day(11);
    for (level, earner) in chain.iter().take(9).rev().enumerate() {
        stage.pending(&earner.partner_id, 0).await;
        let share = [11_700_000, 1_950_000, 1_170_000][level.min(2)] - if level > 2 { 780_000 } else { 0 };
        assert_eq!(clients.balance(&earner.partner_id).await, 60 * share, "level {}", level + 1);
    }
    let sql = stage.pair.referral_sql(Role::Owner).await;
    let unreleased = "SELECT count(*) FROM commissions WHERE state <> 'AVAILABLE' OR release_transaction_id IS NULL";
    assert_eq!(number(&sql, unreleased).await, 0);
    stage.finish().await;
}
