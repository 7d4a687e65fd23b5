//! What payouts, refunds and releases say of themselves is what was done, at the latest when it commits.

use p2phub_tests::{pair::Options, postgres::Role};
use serde_json::json;

use super::{BOTH, CHECK, FOREIGN_KEY, Fixture, earner, reservation};
use crate::payments::plan::plan_file;

const NOW: &str = "; SET CONSTRAINTS ALL IMMEDIATE";

/// A payout of all that is left, 5 USDT, with these items.
fn payout(items: &[String]) -> String {
    const LEFT: i64 = 5_000_000;
    let reserved = reservation(LEFT, &[("PARTNER_AVAILABLE", -LEFT), ("PARTNER_RESERVED", LEFT)]);
    [&[reserved], items].concat().join("; ") + NOW
}

fn item(payout: &str, number: i32, claim: &str, amount: i64) -> String {
    format!("INSERT INTO payout_items VALUES ('{payout}', {number}, {claim}, {amount})")
}

#[tokio::test(flavor = "multi_thread")]
async fn items_come_with_their_payout_are_its_partners_and_sum_to_it() {
    let mut fixture = Fixture::start().await;
    let mut clients = fixture.pair.clients.clone();
    let other = clients.register("somebody-else", "").await.partner_id;
    fixture.names.push(("{others}", clients.adjust(&other, 5_000_000).await.adjustment_id));
    let credit = "NULL, NULL, '{credit}'";
    let sound = payout(&[item("{new}", 1, credit, 5_000_000)]);
    let two = payout(&[item("{new}", 1, credit, 5_000_001), item("{new}", 2, "'{payment}', 1, NULL", -1)]);
    let (none, less, more) = (
        payout(&[]),
        payout(&[item("{new}", 1, credit, 4_999_999)]),
        payout(&[item("{new}", 1, credit, 5_000_000), item("{new}", 2, "'{payment}', 1, NULL", 1)]),
    );
    let anothers = payout(&[item("{new}", 1, "NULL, NULL, '{others}'", 5_000_000)]);
    let [asked, approved, done] = ["{asked}", "{approved}", "{done}"]
        .map(|payout| [item(payout, 8, credit, 5), item(payout, 9, credit, -5)].join("; "));
    fixture
        .tries(
            &BOTH,
            &[
                (&sound, "", ""),
                (&two, "", ""),
                (&none, CHECK, "payouts_equal_items"),
                (&less, CHECK, "payouts_equal_items"),
                (&more, CHECK, "payouts_equal_items"),
                (&anothers, CHECK, "payout_items_own_claims"),
                (&asked, CHECK, "payout_items_at_request"),
                (&approved, CHECK, "payout_items_at_request"),
                (&done, CHECK, "payout_items_at_request"),
            ],
        )
        .await;
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_sum_to_what_their_payment_says() {
    let fixture = Fixture::start().await;
    let mut clients = fixture.pair.clients.clone();
    let payment = fixture.names.iter().find(|(name, _)| *name == "{payment}").expect("a payment").1.clone();
    clients.refund(&payment, Some(1_000_000)).await;
    // The revenue pays for it alone, which the entries' own guards let pass.
    let refund = |amount: i64| {
        format!(
            "INSERT INTO refunds VALUES ('{{new}}', '{{payment}}', 'USDT', {amount}, 'raw', '{{new}}', now());
             INSERT INTO ledger_transactions (transaction_id, kind, payment_id, create_time)
             VALUES ('{{new}}', 'REFUND', '{{payment}}', now());
             INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
             SELECT a.account_id, a.version + 1, v.amount, a.balance + v.amount, '{{new}}'
             FROM (VALUES ('PLATFORM_CLEARING', {amount}), ('PLATFORM_REVENUE', -{amount})) AS v (purpose, amount)
             JOIN accounts a ON a.purpose = v.purpose"
        )
    };
    let say = |more: i64| format!("UPDATE payments SET refunded = refunded + {more} WHERE payment_id = '{{payment}}'");
    let sound = [say(5), refund(5)].join("; ") + NOW;
    let (unsaid, more, unbooked) = (refund(5) + NOW, [say(6), refund(5)].join("; ") + NOW, say(5) + NOW);
    fixture
        .tries(
            &BOTH,
            &[
                (&sound, "", ""),
                (&unsaid, CHECK, "payments_equal_refunds"),
                (&more, CHECK, "payments_equal_refunds"),
                (&unbooked, CHECK, "payments_equal_refunds"),
            ],
        )
        .await;
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_moves_what_is_left_of_its_own_commissions() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan_file(&directory, &json!({ "version": 2, "commission_holding_days": 10 }));
    let pair = Options::default().referral(move |config| config.plan_file = Some(plan.clone())).start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner, sales) = earner(&mut clients, "held", 3).await;
    clients.refund(&sales[0], Some(13_000_000)).await;
    let shares = [7_800_000, 11_700_000];
    assert_eq!(clients.balances(&partner).await[1], shares[0] + 2 * shares[1]);
    // The first two, released by `{new}`; so it was with the third by `{old}`.
    let release = |id: &str, amount: i64, sales: &str| {
        format!(
            "INSERT INTO ledger_transactions (transaction_id, kind, create_time) VALUES ('{id}', 'RELEASE', now());
             INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
             SELECT a.account_id, a.version + 1, v.amount, a.balance + v.amount, '{id}'
             FROM (VALUES ('PARTNER_PENDING', -{amount}), ('PARTNER_AVAILABLE', {amount})) AS v (purpose, amount)
             JOIN accounts a ON a.purpose = v.purpose AND a.owner_id = '{{partner}}';
             UPDATE commissions SET state = 'AVAILABLE', release_transaction_id = '{id}' WHERE payment_id IN ({sales})"
        )
    };
    let (first_two, third) = ("'{first}', '{second}'", "'{third}'");
    let names = [
        ("{partner}", partner),
        ("{first}", sales[0].clone()),
        ("{second}", sales[1].clone()),
        ("{third}", sales[2].clone()),
        ("{new}", "00000000-0000-4000-8000-000000000001".to_owned()),
        ("{old}", "00000000-0000-4000-8000-000000000002".to_owned()),
    ];
    let fixture = Fixture { pair, names: names.into() };
    let sql = fixture.pair.referral_sql(Role::Owner).await;
    let old = release("{old}", shares[1], third);
    let old = fixture.names.iter().fold(old, |sql, (name, value)| sql.replace(name, value));
    sql.batch_execute(&format!("BEGIN; {old}; COMMIT")).await.expect("a sound release");

    let both = shares[0] + shares[1];
    let sound = release("{new}", both, first_two) + NOW;
    let (less, one) = (release("{new}", both - 1, first_two) + NOW, release("{new}", both, "'{second}'") + NOW);
    let unnamed = release("{new}", shares[1], "'{old}'") + NOW;
    let freed = |id: &str| {
        format!(
            "UPDATE commissions SET state = 'AVAILABLE', release_transaction_id = {id} WHERE payment_id = '{{second}}'"
        )
    };
    let (late, of_sale, unbooked) = (
        freed("'{old}'"),
        freed("(SELECT transaction_id FROM commissions WHERE payment_id = '{second}')"),
        freed("NULL"),
    );
    let nobodys = "INSERT INTO ledger_transactions (transaction_id, kind, create_time, audit_event_id)
        VALUES ('{new}', 'RELEASE', now(), '{new}'); SET CONSTRAINTS ALL IMMEDIATE";
    fixture
        .tries(
            &BOTH,
            &[
                (&sound, "", ""),
                (&less, CHECK, "releases_equal_commissions"),
                (&one, CHECK, "releases_equal_commissions"),
                (&unnamed, CHECK, "releases_equal_commissions"),
                (&late, CHECK, "commissions_release"),
                (&of_sale, CHECK, "commissions_release"),
                (&unbooked, CHECK, "commissions_released"),
                (nobodys, FOREIGN_KEY, "ledger_transactions_audit_event_id_fkey"),
            ],
        )
        .await;
    fixture.pair.finish().await;
}
