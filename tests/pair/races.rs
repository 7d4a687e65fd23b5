//! Money wanted from many sides at once, over two instances: each result is one that some order of the calls explains, and
//! the books balance.

mod payouts;
mod refunds;

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{Partner, RefundPaymentResponse};
use p2phub_tests::{builders::refund, clients::Clients, pair::Options};
use referral_svc::Clock;
use serde_json::json;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    concurrency::{Twice, assert_books_balance, failure},
    payments::plan::plan_file,
};

/// What a direct referrer earns on a sale.
const SHARE: i64 = 11_700_000;

/// Two instances under one clock, which hold commissions for some days, or not at all.
struct Stage {
    twice: Twice,
    clock: Clock,
    _directory: TempDir,
}

impl Stage {
    async fn set(holding_days: i32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let plan = plan_file(&directory, &json!({ "version": 2, "commission_holding_days": holding_days }));
        let clock = Clock::default();
        let shared = clock.clone();
        let options = Options::default().referral(move |config| {
            config.clock = shared.clone();
            config.plan_file = Some(plan.clone());
        });
        Self { twice: Twice::of(options.start_alone().await).await, clock, _directory: directory }
    }

    fn at_day(&self, day: i64) {
        self.clock.set_ahead(TimeDelta::days(day));
    }

    fn clients(&self, turn: usize) -> Clients {
        self.twice.by_turns(turn)
    }

    /// Somebody who earned on so many sales, and the payments.
    async fn earner(&self, name: &str, sales: usize) -> (Partner, Vec<String>) {
        let mut clients = self.clients(0);
        let chain = clients.chain(name, 2).await;
        let mut payments = Vec::new();
        for _ in 0..sales {
            payments.push(clients.buy_pro(&chain[1].partner_id).await.0.payment_id);
        }
        (chain[0].clone(), payments)
    }

    async fn balances(&self, partner_id: &str) -> [i64; 4] {
        self.clients(1).balances(partner_id).await
    }

    async fn finish(self) {
        assert_books_balance(&mut self.clients(0)).await;
        self.twice.finish().await;
    }
}

async fn refunded(
    mut clients: Clients,
    payment_id: String,
    amount: Option<i64>,
) -> Result<RefundPaymentResponse, Status> {
    Ok(clients.payments.refund_payment(refund(&payment_id, amount)).await?.into_inner())
}

/// Whether it was done; a refusal must be this one.
#[track_caller]
fn done<T>(answer: &Result<T, Status>, refusal: &str) -> bool {
    match failure(answer) {
        None => true,
        Some((Code::FailedPrecondition, reason)) if reason == refusal => false,
        Some(other) => panic!("neither done nor {refusal}: {other:?}"),
    }
}
