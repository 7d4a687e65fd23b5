//! The database itself refuses what must never become of payouts and adjustments, whoever asks.

mod facts;

use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Role,
};

use super::{SHARE, earner};

const DENIED: &str = "42501";
const CHECK: &str = "23514";
const UNIQUE: &str = "23505";
const FOREIGN_KEY: &str = "23503";

const BOTH: [Role; 2] = [Role::Service, Role::Owner];

/// `{partner}` has `{asked}` requested, `{approved}` approved, `{done}` completed, one share of `{payment}` each, and
/// 5 USDT left by `{credit}`; `{proposed}` is a proposal. `{new}` is an ID that nothing has.
struct Fixture {
    pair: Pair,
    names: Vec<(&'static str, String)>,
}

impl Fixture {
    async fn start() -> Self {
        let pair = Options::default().start_alone().await;
        let mut clients = pair.clients.clone();
        let (partner, sales) = earner(&mut clients, "guarded", 3).await;
        let done = clients.pay_out(&partner, Some(SHARE)).await.payout_id;
        let approved = clients.request_payout(&partner, Some(SHARE)).await.payout_id;
        clients.approve_payout(&approved).await;
        let asked = clients.request_payout(&partner, Some(SHARE)).await.payout_id;
        let credit = clients.adjust(&partner, 5_000_000).await.adjustment_id;
        let proposed = clients.propose_adjustment(&partner, 5).await.adjustment_id;
        let new = "00000000-0000-4000-8000-000000000001".to_owned();
        let names = [
            ("{partner}", partner),
            ("{payment}", sales[0].clone()),
            ("{done}", done),
            ("{approved}", approved),
            ("{asked}", asked),
            ("{credit}", credit),
            ("{proposed}", proposed),
            ("{new}", new),
        ];
        Self { pair, names: names.into() }
    }

    /// Tries each in a transaction of its own, as each role: SQLSTATE and constraint must be these; none: it is sound.
    async fn tries(&self, roles: &[Role], cases: &[(&str, &str, &str)]) {
        for role in roles {
            let client = self.pair.referral_sql(*role).await;
            for (sql, state, constraint) in cases {
                let filled = self.names.iter().fold((*sql).to_owned(), |sql, (name, value)| sql.replace(name, value));
                client.batch_execute("BEGIN").await.expect("a transaction");
                let tried = client.batch_execute(&filled).await;
                let error = tried.as_ref().err().map(|error| error.as_db_error().expect("an error of the database"));
                let fault =
                    error.map_or(("", ""), |error| (error.code().code(), error.constraint().unwrap_or_default()));
                assert_eq!(fault, (*state, *constraint), "as {role:?}: {sql}: {tried:?}");
                client.batch_execute("ROLLBACK").await.expect("the transaction's end");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_go_forward_by_two_callers_and_stay() {
    let fixture = Fixture::start().await;
    let cases = [
        (
            "UPDATE payouts SET state = 'APPROVED', approver = 'operator-2', approve_time = now() WHERE payout_id = '{asked}'",
            "",
            "",
        ),
        (
            "UPDATE payouts SET state = 'APPROVED', approver = requester, approve_time = now() WHERE payout_id = '{asked}'",
            CHECK,
            "payouts_four_eyes",
        ),
        ("UPDATE payouts SET state = 'APPROVED' WHERE payout_id = '{asked}'", CHECK, "payouts_approved"),
        (
            "UPDATE payouts SET state = 'COMPLETED', external_ref = 'x', end_time = now(), end_transaction_id = '{new}'
             WHERE payout_id = '{asked}'",
            CHECK,
            "payouts_approved",
        ),
        (
            "UPDATE payouts SET state = 'CANCELLED', reason = 'x', end_time = now(), end_transaction_id = '{new}'
             WHERE payout_id = '{approved}'",
            CHECK,
            "payouts_stay",
        ),
        (
            "UPDATE payouts SET state = 'REQUESTED', approver = NULL, approve_time = NULL WHERE payout_id = '{approved}'",
            CHECK,
            "payouts_stay",
        ),
        ("UPDATE payouts SET approver = 'operator-3' WHERE payout_id = '{approved}'", CHECK, "payouts_stay"),
        ("UPDATE payouts SET external_ref = 'another' WHERE payout_id = '{done}'", CHECK, "payouts_stay"),
        (
            "UPDATE payouts SET state = 'FAILED', reason = 'x', external_ref = NULL WHERE payout_id = '{done}'",
            CHECK,
            "payouts_stay",
        ),
        (
            "UPDATE payouts SET state = 'COMPLETED', external_ref = 'x' WHERE payout_id = '{approved}'",
            CHECK,
            "payouts_ended",
        ),
        (
            "UPDATE payouts SET state = 'FAILED', end_time = now(), end_transaction_id = '{new}' WHERE payout_id = '{approved}'",
            CHECK,
            "payouts_returned",
        ),
        (
            "UPDATE payouts SET state = 'COMPLETED', end_time = now(), end_transaction_id = '{new}' WHERE payout_id = '{approved}'",
            CHECK,
            "payouts_completed",
        ),
        (
            "UPDATE payouts SET state = 'COMPLETED', end_time = now(), end_transaction_id = '{new}',
                external_ref = 'transfer-{done}' WHERE payout_id = '{approved}'",
            UNIQUE,
            "payouts_external_ref_key",
        ),
        (
            "UPDATE payouts SET state = 'COMPLETED', end_time = now(), end_transaction_id = '{new}', external_ref = 'x'
             WHERE payout_id = '{approved}'; SET CONSTRAINTS ALL IMMEDIATE",
            FOREIGN_KEY,
            "payouts_end_transaction_id_fkey",
        ),
        ("DELETE FROM payouts", DENIED, ""),
        ("UPDATE payout_items SET amount = amount", DENIED, ""),
        ("DELETE FROM payout_items", DENIED, ""),
        (
            "INSERT INTO payout_items VALUES ('{asked}', 9, '{payment}', 1, '{credit}', 5)",
            CHECK,
            "payout_items_one_claim",
        ),
        (
            "INSERT INTO payout_items VALUES ('{asked}', 9, NULL, NULL, '{credit}', 0)",
            CHECK,
            "payout_items_amount_check",
        ),
    ];
    fixture.tries(&BOTH, &cases).await;
    fixture.tries(&[Role::Service], &[("UPDATE payouts SET amount = 1 WHERE payout_id = '{asked}'", DENIED, "")]).await;
    fixture
        .tries(
            &[Role::Owner],
            &[(
                "UPDATE payouts SET amount = 1, state = 'APPROVED', approver = 'x', approve_time = now()
        WHERE payout_id = '{asked}'",
                CHECK,
                "payouts_stay",
            )],
        )
        .await;
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adjustments_are_decided_once_by_two_callers() {
    let fixture = Fixture::start().await;
    let approve = "UPDATE adjustments SET state = 'APPROVED', decide_time = now(), transaction_id = '{new}', decider =";
    let (alone, unbooked) = (
        format!("{approve} proposer WHERE adjustment_id = '{{proposed}}'"),
        format!("{approve} 'operator-2' WHERE adjustment_id = '{{proposed}}'; SET CONSTRAINTS ALL IMMEDIATE"),
    );
    let cases = [
        (alone.as_str(), CHECK, "adjustments_four_eyes"),
        (unbooked.as_str(), FOREIGN_KEY, "adjustments_transaction_id_fkey"),
        ("UPDATE adjustments SET state = 'APPROVED' WHERE adjustment_id = '{proposed}'", CHECK, "adjustments_booked"),
        (
            "UPDATE adjustments SET state = 'REJECTED', decider = 'x', decide_time = now() WHERE adjustment_id = '{proposed}'",
            CHECK,
            "adjustments_rejected",
        ),
        ("UPDATE adjustments SET reserved = 5 WHERE adjustment_id = '{proposed}'", CHECK, "adjustments_paid"),
        ("UPDATE adjustments SET paid = 5000001 WHERE adjustment_id = '{credit}'", CHECK, "adjustments_paid"),
        ("UPDATE adjustments SET transaction_id = '{new}' WHERE adjustment_id = '{credit}'", CHECK, "adjustments_stay"),
        (
            "UPDATE adjustments SET state = 'REJECTED', reject_reason = 'x', transaction_id = NULL
             WHERE adjustment_id = '{credit}'",
            CHECK,
            "adjustments_stay",
        ),
        ("DELETE FROM adjustments", DENIED, ""),
    ];
    fixture.tries(&BOTH, &cases).await;
    fixture.tries(&[Role::Service], &[("UPDATE adjustments SET amount = 1", DENIED, "")]).await;
    let more = "UPDATE adjustments SET amount = 6000000 WHERE adjustment_id = '{credit}'";
    fixture.tries(&[Role::Owner], &[(more, CHECK, "adjustments_stay")]).await;
    fixture.pair.finish().await;
}

/// A payout of `amount`, written raw, and the transaction that reserves it; then these entries of the partner's accounts and
/// the platform's, as (purpose, amount).
fn reservation(amount: i64, moved: &[(&str, i64)]) -> String {
    let values: Vec<_> = moved.iter().map(|(purpose, amount)| format!("('{purpose}', {amount})")).collect();
    format!(
        "INSERT INTO payouts (payout_id, partner_id, asset, amount, destination, requester, create_time, reserve_transaction_id)
         VALUES ('{{new}}', '{{partner}}', 'USDT', {amount}, '', 'raw', now(), '{{new}}');
         INSERT INTO ledger_transactions (transaction_id, kind, payout_id, create_time)
         VALUES ('{{new}}', 'PAYOUT_RESERVED', '{{new}}', now());
         INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
         SELECT a.account_id, a.version + 1, v.amount, a.balance + v.amount, '{{new}}'
         FROM (VALUES {}) AS v (purpose, amount) JOIN accounts a ON a.purpose = v.purpose
         WHERE a.owner_id IS NULL OR a.owner_id = '{{partner}}'",
        values.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_takes_only_what_payouts_and_adjustments_say() {
    let fixture = Fixture::start().await;
    const LEFT: i64 = 5_000_000;
    let both = |amount: i64| [("PARTNER_AVAILABLE", -amount), ("PARTNER_RESERVED", amount)];
    let item = format!("INSERT INTO payout_items VALUES ('{{new}}', 1, NULL, NULL, '{{credit}}', {LEFT})");
    let sound = format!("{}; {item}; SET CONSTRAINTS ALL IMMEDIATE", reservation(LEFT, &both(LEFT)));
    let overdrawn = reservation(LEFT + 1, &both(LEFT + 1));
    let unbalanced = reservation(LEFT, &[("PARTNER_AVAILABLE", -LEFT), ("PARTNER_RESERVED", LEFT - 1)]);
    let other_amount = reservation(LEFT, &both(LEFT - 1));
    let from_elsewhere = reservation(LEFT, &[("PLATFORM_REVENUE", -LEFT), ("PARTNER_RESERVED", LEFT)]);
    let nothing = "INSERT INTO ledger_transactions (transaction_id, kind, payout_id, create_time) VALUES";
    let again = format!("{nothing} ('{{new}}', 'PAYOUT_RESERVED', '{{asked}}', now())");
    let paid_early = format!("{nothing} ('{{new}}', 'PAYOUT_PAID', '{{approved}}', now())");
    let returned_early = format!("{nothing} ('{{new}}', 'PAYOUT_RETURNED', '{{asked}}', now())");
    let paid_twice = format!("{nothing} ('{{new}}', 'PAYOUT_PAID', '{{done}}', now())");
    let subjectless = format!("{nothing} ('{{new}}', 'PAYOUT_PAID', NULL, now())");
    let unapproved = "INSERT INTO ledger_transactions (transaction_id, kind, adjustment_id, create_time)
        VALUES ('{new}', 'ADJUSTMENT', '{proposed}', now())";
    let approved =
        "UPDATE adjustments SET state = 'APPROVED', decide_time = now(), transaction_id = '{new}', decider = 'raw'
        WHERE adjustment_id = '{proposed}';";
    let other_credit = format!(
        "{approved} {unapproved};
         INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
         SELECT a.account_id, a.version + 1, v.amount, a.balance + v.amount, '{{new}}'
         FROM (VALUES ('PARTNER_AVAILABLE', 6), ('PLATFORM_ADJUSTMENTS', -6)) AS v (purpose, amount)
         JOIN accounts a ON a.purpose = v.purpose WHERE a.owner_id IS NULL OR a.owner_id = '{{partner}}'"
    );
    let right_credit = other_credit.replace("6)", "5)") + "; SET CONSTRAINTS ALL IMMEDIATE";
    let others_cost = right_credit.replace("PLATFORM_ADJUSTMENTS", "PLATFORM_REVENUE");
    fixture
        .tries(
            &BOTH,
            &[
                (&sound, "", ""),
                (&overdrawn, CHECK, "ledger_entries_fact"),
                (&unbalanced, CHECK, "ledger_entries_balance"),
                (&other_amount, CHECK, "ledger_entries_fact"),
                (&from_elsewhere, CHECK, "ledger_entries_fact"),
                (&again, UNIQUE, "ledger_transactions_one_reservation"),
                (&paid_early, CHECK, "ledger_transactions_named"),
                (&returned_early, CHECK, "ledger_transactions_named"),
                (&paid_twice, UNIQUE, "ledger_transactions_one_end"),
                (&subjectless, CHECK, "ledger_transactions_subject"),
                (unapproved, CHECK, "ledger_transactions_named"),
                (&other_credit, CHECK, "ledger_entries_fact"),
                (&right_credit, "", ""),
                (&others_cost, CHECK, "adjustments_by_platform"),
            ],
        )
        .await;
    fixture.pair.finish().await;
}
