//! The plan is data: a later version never rewrites history, and one that makes no sense stops the start.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use p2phub_proto::referral::v1::{Commission, ListCommissionsRequest};
use p2phub_tests::{
    builders::{confirmation, usdt},
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The built-in plan with some fields changed, in a file.
pub(crate) fn plan_file(directory: &TempDir, changes: &Value) -> PathBuf {
    let mut plan = json!({
        "version": 1, "asset": "USDT", "pro_price_minor_units": 39_000_000, "pro_duration_days": 30,
        "payment_window_seconds": 3600, "attribution_window_seconds": 86400,
        "commission_rates_bps": [3000, 500, 300, 100, 100, 100, 100, 100, 100],
        "signup_xp": [35, 10, 1, 1, 1, 1, 1, 1, 1], "pro_xp_multiplier": 5
    });
    for (field, value) in changes.as_object().expect("fields") {
        plan[field] = value.clone();
    }
    let path = directory.path().join("plan.json");
    fs::write(&path, plan.to_string()).expect("a plan file");
    path
}

async fn commissions(clients: &mut Clients, payment_id: &str) -> Vec<Commission> {
    let request = ListCommissionsRequest { payment_id: payment_id.to_owned(), ..Default::default() };
    clients.payments.list_commissions(request).await.expect("an answer").into_inner().commissions
}

/// Level, rate, plan version, base, and amount.
fn terms(commissions: &[Commission]) -> Vec<(i32, i32, i32, i64, i64)> {
    let units = |amount: &Option<p2phub_proto::referral::v1::Amount>| amount.as_ref().expect("an amount").minor_units;
    commissions
        .iter()
        .map(|one| (one.level, one.rate_bps, one.plan_version, units(&one.base), units(&one.amount)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_plan_does_not_rewrite_what_was_earned() {
    let directory = tempfile::tempdir().expect("a directory");
    let file: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let chosen = file.clone();
    let options =
        Options::default().referral(move |config| config.plan_file.clone_from(&chosen.lock().expect("a plan")));
    let mut pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    let (first, earned) = clients.buy_pro(&chain[2].partner_id).await;
    let old_terms = [(1, 3000, 1, 39_000_000, 11_700_000), (2, 500, 1, 39_000_000, 1_950_000)];
    assert_eq!(terms(&earned), old_terms);

    let opened_before = clients.open_payment(&chain[2].partner_id).await;

    pair.stop_referral().await;
    let changes = json!({
        "version": 2, "pro_price_minor_units": 10_000_001, "pro_duration_days": 10,
        "commission_rates_bps": [1000, 333, 0, 0, 0, 0, 0, 0, 0], "signup_xp": [7, 3, 0, 0, 0, 0, 0, 0, 0]
    });
    *file.lock().expect("a plan") = Some(plan_file(&directory, &changes));
    pair.start_referral().await;

    let (second, new_earned) = clients.buy_pro(&chain[2].partner_id).await;
    assert_eq!((second.amount.clone(), second.plan_version), (Some(usdt(10_000_001)), 2));
    // Shares are rounded down; what is left stays with the platform.
    assert_eq!(terms(&new_earned), [(1, 1000, 2, 10_000_001, 1_000_000), (2, 333, 2, 10_000_001, 333_000)]);
    let mut found = commissions(&mut clients, &first.payment_id).await;
    found.sort_by_key(|commission| commission.level);
    assert_eq!(found, earned, "history was rewritten");
    let end = |payment: &p2phub_proto::referral::v1::Payment| payment.pro_end_time.expect("a time").seconds;
    assert_eq!(end(&second) - end(&first), 10 * 24 * 60 * 60);
    let xp = clients.partner(&chain[0].partner_id).await.xp;
    clients.register("later", &chain[0].referral_code).await;
    assert_eq!(clients.partner(&chain[0].partner_id).await.xp, xp + 7);
    assert_eq!(clients.balance(&chain[1].partner_id).await, 12_700_000);

    // The price is the one it was opened at; the rates are the sale's, and each commission says whose.
    let request = confirmation(&opened_before.payment_id, "opened before");
    let answer = clients.payments.confirm_payment(request).await.expect("a confirmation").into_inner();
    assert_eq!(answer.payment.expect("a payment").amount, Some(usdt(39_000_000)));
    let new_terms = [(1, 1000, 2, 39_000_000, 3_900_000), (2, 333, 2, 39_000_000, 1_298_700)];
    assert_eq!(terms(&answer.commissions), new_terms);

    // Back to the first version: it is known, with this very content.
    pair.stop_referral().await;
    *file.lock().expect("a plan") = None;
    pair.start_referral().await;
    let (third, _) = clients.buy_pro(&chain[2].partner_id).await;
    assert_eq!((third.amount, third.plan_version), (Some(usdt(39_000_000)), 1));
    pair.finish().await;
}

/// Why referral-svc does not start with this plan.
async fn refusal_to_start(pair: &Pair, plan: PathBuf) -> String {
    let mut config = referral_svc::Config::new(pair.server.referral_url(&pair.databases, Role::Service));
    config.migration_url = Some(pair.server.referral_url(&pair.databases, Role::Owner));
    config.listen = ([127, 0, 0, 1], 0).into();
    config.plan_file = Some(plan);
    let stop = CancellationToken::new();
    match referral_svc::start(config, stop.clone()).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_makes_no_sense_stops_the_start_and_the_field_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let pair = Options::default().prepare().await;
    let nine = |first: i32| json!([first, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (field, value) in [
        ("commission_rates_bps", json!([9000, 500, 300, 100, 100, 100, 100, 100, 100])),
        ("commission_rates_bps", nine(10_001)),
        ("commission_rates_bps", nine(-1)),
        ("commission_rates_bps", json!([3000, 0, 300, 0, 0, 0, 0, 0, 0])),
        ("commission_rates_bps", json!([3000, 500])),
        ("signup_xp", nine(-35)),
        ("signup_xp", json!([35, 0, 1, 0, 0, 0, 0, 0, 0])),
        ("pro_price_minor_units", json!(0)),
        ("pro_price_minor_units", json!(-39)),
        ("pro_duration_days", json!(0)),
        ("payment_window_seconds", json!(0)),
        ("pro_xp_multiplier", json!(0)),
        ("version", json!(0)),
    ] {
        let error = refusal_to_start(&pair, plan_file(&directory, &json!({ "version": 2, field: value }))).await;
        assert!(error.contains("PLAN_FILE") && error.contains(field), "{field}: {value}: {error}");
    }
    // Unknown fields, floats, and other types are told too, by name or place.
    for (changes, named) in [(json!({ "discount": 1 }), "discount"), (json!({ "pro_price_minor_units": 39.5 }), "39.5")]
    {
        let error = refusal_to_start(&pair, plan_file(&directory, &changes)).await;
        assert!(error.contains("PLAN_FILE") && error.contains(named), "{changes}: {error}");
    }
    let missing = refusal_to_start(&pair, directory.path().join("nowhere.json")).await;
    assert!(missing.contains("PLAN_FILE") && missing.contains("nowhere.json"), "{missing}");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_version_with_other_content_stops_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut pair = Options::default().start_alone().await;
    let other = plan_file(&directory, &json!({ "pro_price_minor_units": 1 }));
    let error = refusal_to_start(&pair, other).await;
    assert!(error.contains("PLAN_FILE") && error.contains("version 1"), "{error}");
    // The one that runs is not disturbed, and starts again with the content that is known.
    pair.stop_referral().await;
    pair.start_referral().await;
    let buyer = pair.clients.register("buyer", "").await;
    assert_eq!(pair.clients.open_payment(&buyer.partner_id).await.amount, Some(usdt(39_000_000)));
    pair.finish().await;
}
