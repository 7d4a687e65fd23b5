//! A history with a bit of everything.

use std::{fs, path::PathBuf};

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{AttachReferrerRequest, Partner, RejectPaymentRequest};
use p2phub_tests::{
    builders::request_id,
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use referral_svc::Clock;
use serde_json::json;

/// One payout of each end: paid, failed, cancelled; and one that stays open.
pub(crate) async fn payouts(clients: &mut Clients, partner_id: &str) {
    clients.pay_out(partner_id, Some(10_000_000)).await;
    let failed = clients.request_payout(partner_id, Some(11_000_000)).await;
    clients.approve_payout(&failed.payout_id).await;
    clients.fail_payout(&failed.payout_id).await;
    let cancelled = clients.request_payout(partner_id, Some(12_000_000)).await;
    clients.cancel_payout(&cancelled.payout_id).await;
    clients.request_payout(partner_id, Some(13_000_000)).await;
}

async fn reject(clients: &mut Clients, partner_id: &str) {
    let payment_id = clients.open_payment(partner_id).await.payment_id;
    let request = RejectPaymentRequest { request_id: request_id(), payment_id, reason: "no money".to_owned() };
    clients.payments.reject_payment(request).await.expect("a rejection");
}

/// A chain of four in which the third and the fourth buy, and a root of its own that comes below the first one later.
pub(super) struct History {
    pub(super) pair: Pair,
    pub(super) chain: Vec<Partner>,
    pub(super) apart: Partner,
}

/// Sales, refunds, payouts in every state, an adjustment, an attachment: the service has nothing left to do.
pub(super) async fn mixed() -> History {
    let history = begin(None, &Clock::default()).await;
    let mut clients = history.pair.clients.clone();
    payouts(&mut clients, &history.chain[2].partner_id).await;
    clients.adjust(&history.chain[1].partner_id, 5_000_000).await;
    reject(&mut clients, &history.chain[1].partner_id).await;
    // Into a debt: most of it is paid out or reserved.
    let (payment, _) = clients.buy_pro(&history.chain[3].partner_id).await;
    clients.refund(&payment.payment_id, None).await;
    counted(&history.pair).await;
    history
}

/// The same under a plan that holds commissions, some of which were released.
pub(super) async fn held() -> History {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("plan.json");
    let plan = json!({
        "version": 2, "asset": "USDT", "pro_price_minor_units": 39_000_000, "pro_duration_days": 30,
        "payment_window_seconds": 3600, "attribution_window_seconds": 86400,
        "commission_rates_bps": [3000, 500, 300, 100, 100, 100, 100, 100, 100],
        "signup_xp": [35, 10, 1, 1, 1, 1, 1, 1, 1], "pro_xp_multiplier": 5,
        "commission_holding_days": 7, "payout_minimum_minor_units": 10_000_000
    });
    fs::write(&path, plan.to_string()).expect("a plan file");
    let clock = Clock::default();
    let history = begin(Some(path), &clock).await;
    clock.set_ahead(TimeDelta::days(8));
    let sql = history.pair.referral_sql(Role::Superuser).await;
    wait::until("every commission to be released", async || {
        let query = "SELECT FROM commissions WHERE state = 'PENDING'";
        sql.query(query, &[]).await.expect("an answer").is_empty().then_some(())
    })
    .await;
    let mut clients = history.pair.clients.clone();
    let (payment, _) = clients.buy_pro(&history.chain[3].partner_id).await;
    clients.refund(&payment.payment_id, Some(1_000_000)).await;
    let of_released =
        "SELECT payment_id::text FROM payments WHERE refunded = 0 AND state = 'SUCCEEDED' ORDER BY 1 LIMIT 1";
    let payment_id: String = sql.query_one(of_released, &[]).await.expect("a payment").get(0);
    clients.refund(&payment_id, Some(7_654_321)).await;
    counted(&history.pair).await;
    history
}

async fn begin(plan_file: Option<PathBuf>, clock: &Clock) -> History {
    let clock = clock.clone();
    let options = Options::default().referral(move |config| {
        config.clock = clock.clone();
        config.plan_file.clone_from(&plan_file);
    });
    let pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 4).await;
    let apart = clients.register("apart", "").await;
    let below = clients.register("below", &apart.referral_code).await;
    let mut bought = Vec::new();
    for buyer in [3, 3, 3, 3, 3, 2] {
        bought.push(clients.buy_pro(&chain[buyer].partner_id).await.0.payment_id);
    }
    clients.buy_pro(&below.partner_id).await;
    let request = AttachReferrerRequest {
        request_id: request_id(),
        partner_id: apart.partner_id.clone(),
        referral_code: chain[0].referral_code.clone(),
    };
    clients.partners.attach_referrer(request).await.expect("an attachment");
    clients.refund(&bought[0], Some(1_234_567)).await;
    clients.refund(&bought[0], Some(1)).await;
    clients.refund(&bought[1], Some(20_000_000)).await;
    clients.refund(&bought[1], None).await;
    History { pair, chain, apart }
}

/// Waits until all who are PRO are counted as such: until then a job will still write.
async fn counted(pair: &Pair) {
    let sql = pair.referral_sql(Role::Superuser).await;
    wait::until("whoever is PRO to be counted", async || {
        let query = "SELECT FROM standings WHERE NOT counted_as_pro AND pro_expires_at > now()";
        sql.query(query, &[]).await.expect("an answer").is_empty().then_some(())
    })
    .await;
}
