//! Whatever a superuser changes past the triggers is found, and named by the check that is about it.

use p2phub_tests::{pair::Pair, postgres::Role};
use tokio_postgres::Client;

use super::{assert_fine, check, history, violated};

/// A change, and the checks that find it.
struct Tampering {
    change: String,
    finds: &'static [&'static str],
}

fn tampering(change: impl Into<String>, finds: &'static [&'static str]) -> Tampering {
    Tampering { change: change.into(), finds }
}

const TABLES: [&str; 21] = [
    "accounts",
    "adjustments",
    "audit_blocks",
    "audit_events",
    "clawbacks",
    "commissions",
    "ledger_entries",
    "ledger_transactions",
    "outbox",
    "outbox_counted",
    "outbox_settled",
    "partners",
    "payments",
    "payout_items",
    "payouts",
    "pro_notices",
    "refunds",
    "standings",
    "ton_payments",
    "xp_awards",
    "xp_counts",
];

/// The books as they were.
struct Copy {
    sql: Client,
}

impl Copy {
    async fn of(pair: &Pair) -> Self {
        let sql = pair.referral_sql(Role::Superuser).await;
        let copy = TABLES.map(|table| format!("CREATE TABLE sound.{table} AS TABLE {table};")).concat();
        let copy = format!("SET session_replication_role = replica; CREATE SCHEMA sound; {copy}");
        sql.batch_execute(&copy).await.expect("a copy");
        Self { sql }
    }

    async fn spoil(&self, change: &str) {
        self.sql.batch_execute(change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
    }

    async fn mend(&self) {
        let mend = TABLES.map(|table| {
            format!("DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM sound.{table};")
        });
        self.sql.batch_execute(&mend.concat()).await.expect("the copy back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_tampering_is_found_and_named() {
    let history = history::mixed().await;
    let mut clients = history.pair.clients.clone();
    let copy = Copy::of(&history.pair).await;
    let (root, earner) = (&history.chain[0].partner_id, &history.chain[2].partner_id);
    let mut unlike = Vec::new();
    for Tampering { change, finds } in of_the_ledger(earner).into_iter().chain(of_facts()).chain(of_partners(root)) {
        copy.spoil(&change).await;
        let found = check(&mut clients).await;
        if violated(&found) != finds {
            unlike.push(format!(
                "{change}\n found by {:?}",
                found.checks.iter().filter(|check| !check.ok).collect::<Vec<_>>()
            ));
        }
        copy.mend().await;
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
    assert_fine(&check(&mut clients).await);
    history.pair.finish().await;
}

fn of_the_ledger(earner: &str) -> Vec<Tampering> {
    let account =
        format!("(SELECT account_id FROM accounts WHERE owner_id = '{earner}' AND purpose = 'PARTNER_AVAILABLE')");
    let last_sale = "(SELECT transaction_id FROM ledger_transactions WHERE kind = 'PRO_SALE' ORDER BY 1 DESC LIMIT 1)";
    let adjustment = "(SELECT transaction_id FROM ledger_transactions WHERE kind = 'ADJUSTMENT')";
    let in_no_block = format!(
        "DELETE FROM audit_blocks WHERE {last_sale} = ANY (transaction_ids);
         UPDATE ledger_transactions SET audit_event_id = NULL WHERE transaction_id = {last_sale}"
    );
    let first_block_earlier = "UPDATE audit_blocks SET create_time = create_time - interval '24 hours'
        WHERE create_time = (SELECT min(create_time) FROM audit_blocks)";
    let served_before = "UPDATE outbox_counted SET since = 'epoch'";
    let id = "00000000-0000-7000-8000-00000000f0f0";
    let gift = format!(
        "INSERT INTO adjustments (adjustment_id, partner_id, asset, amount, reason, proposer, create_time, state, decider,
             decide_time, transaction_id)
         VALUES ('{id}', '{earner}', 'USDT', 7, 'a gift', 'one', now(), 'APPROVED', 'another', now(), '{id}');
         INSERT INTO ledger_transactions (transaction_id, kind, adjustment_id, create_time)
         SELECT '{id}', 'ADJUSTMENT', '{id}', min(create_time) FROM audit_blocks;
         INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
         SELECT account_id, version + 1, moved, balance + moved, '{id}'
         FROM accounts, LATERAL (SELECT CASE purpose WHEN 'PLATFORM_ADJUSTMENTS' THEN -7 ELSE 7 END) AS m (moved)
         WHERE account_id = {account} OR purpose = 'PLATFORM_ADJUSTMENTS';
         UPDATE accounts a SET version = e.version, balance = e.balance_after
         FROM ledger_entries e WHERE e.transaction_id = '{id}' AND e.account_id = a.account_id"
    );
    // Both sides, the fact, and every balance since.
    let consistent = format!(
        "UPDATE adjustments SET amount = amount + 1;
         UPDATE ledger_entries e SET balance_after = e.balance_after + sign(f.amount)
         FROM ledger_entries f WHERE f.transaction_id = {adjustment} AND f.account_id = e.account_id AND e.version >= f.version;
         UPDATE ledger_entries SET amount = amount + sign(amount) WHERE transaction_id = {adjustment};
         UPDATE accounts a SET balance = e.balance_after FROM ledger_entries e
         WHERE e.account_id = a.account_id AND e.version = a.version"
    );
    vec![
        // One side alone.
        tampering(
            format!("UPDATE ledger_entries SET amount = amount + 1 WHERE account_id = {account} AND version = 1"),
            &[
                "commissions_are_booked",
                "entries_follow_one_another",
                "sales_are_whole",
                "transactions_equal_their_seals",
                "transactions_sum_to_zero",
            ],
        ),
        tampering(consistent.clone(), &["transactions_equal_their_seals"]),
        // As if no block had sealed it.
        tampering(
            format!(
                "{consistent}; UPDATE ledger_transactions
                 SET audit_event_id = NULL, create_time = create_time + interval '1 microsecond' WHERE kind = 'ADJUSTMENT'"
            ),
            &["transactions_equal_their_seals"],
        ),
        tampering(in_no_block.clone(), &["events_are_settled_or_waiting", "transactions_equal_their_seals"]),
        // An older version may have booked it, on the first day.
        tampering(format!("{served_before}; {in_no_block}"), &["events_are_settled_or_waiting"]),
        tampering(
            format!("{served_before}; {first_block_earlier}; {in_no_block}"),
            &["events_are_settled_or_waiting", "transactions_equal_their_seals"],
        ),
        tampering(
            format!("UPDATE ledger_transactions SET create_time = create_time - interval '1 day' WHERE transaction_id = {last_sale}"),
            &["transactions_equal_their_seals"],
        ),
        tampering(
            format!("DELETE FROM ledger_entries WHERE account_id = {account} AND version = 2"),
            &[
                "commissions_are_booked",
                "entries_follow_one_another",
                "sales_are_whole",
                "transactions_equal_their_seals",
                "transactions_sum_to_zero",
            ],
        ),
        // Whole, as if it had never been, but for the payment.
        tampering(
            format!(
                "DELETE FROM ledger_entries WHERE transaction_id = {adjustment};
                 DELETE FROM adjustments; DELETE FROM ledger_transactions WHERE kind = 'ADJUSTMENT'"
            ),
            &[
                "balances_equal_entries",
                "claims_equal_balances",
                "entries_follow_one_another",
                "partners_add_up",
                "sealed_transactions_exist",
            ],
        ),
        tampering(
            format!("DELETE FROM ledger_transactions WHERE transaction_id = {last_sale}"),
            &["entries_belong_to_transactions", "payments_are_booked", "sealed_transactions_exist"],
        ),
        tampering(
            "TRUNCATE ledger_entries",
            &[
                "balances_equal_entries",
                "commissions_are_booked",
                "refunds_are_booked",
                "sales_are_whole",
                "transactions_equal_their_seals",
                "transactions_have_facts",
                "transactions_sum_to_zero",
            ],
        ),
        tampering(
            format!("UPDATE accounts SET balance = balance + 1 WHERE account_id = {account}"),
            &["balances_equal_entries", "claims_equal_balances", "partners_add_up"],
        ),
        tampering("UPDATE accounts SET version = version + 1 WHERE purpose = 'PLATFORM_REVENUE'", &["balances_equal_entries"]),
        // A gift that adds up, as if booked on the first day.
        tampering(gift, &["transactions_equal_their_seals"]),
        // One that no block has.
        tampering(
            "INSERT INTO ledger_transactions (transaction_id, kind, create_time, audit_event_id)
             SELECT gen_random_uuid(), 'RELEASE', create_time, audit_event_id FROM ledger_transactions LIMIT 1",
            &["transactions_equal_their_seals", "transactions_have_facts", "transactions_sum_to_zero"],
        ),
        tampering(
            format!("UPDATE ledger_transactions SET kind = 'RELEASE', payment_id = NULL WHERE transaction_id = {last_sale}"),
            &["payments_are_booked", "transactions_equal_their_seals", "transactions_have_facts"],
        ),
    ]
}

fn of_facts() -> Vec<Tampering> {
    vec![
        tampering(
            "UPDATE commissions SET reversed = reversed + 1 WHERE level = 1 AND reversed = 0 AND paid = 0 AND reserved = 0",
            &["claims_equal_balances", "partners_add_up", "reversals_equal_refunds"],
        ),
        tampering(
            "UPDATE commissions SET paid = paid - 1 WHERE paid > 0 AND level = 1",
            &["claims_equal_balances", "commissions_equal_payouts"],
        ),
        tampering(
            "UPDATE payments SET confirmed_ref = repeat('ab', 32) WHERE payment_id = (SELECT max(payment_id::text)::uuid
                 FROM payments WHERE state = 'SUCCEEDED');
             INSERT INTO ton_payments (payment_id, address, nanotons, memo, tolerance_bps, rate_minor_units, rate_source,
                 rate_time, incoming_ref)
             SELECT min(payment_id::text)::uuid, '0:' || repeat('0', 64), 1, 'memo', 0, 1, 'rates', now(), repeat('ab', 32)
             FROM payments WHERE state = 'SUCCEEDED'",
            &["references_used_once"],
        ),
        tampering(
            "UPDATE payments SET refunded = refunded - 100 WHERE refunded BETWEEN 1 AND amount - 1",
            &["refunds_equal_payments", "reversals_equal_refunds"],
        ),
        tampering(
            "UPDATE payments SET refunded = refunded + 1 WHERE refunded BETWEEN 1 AND amount - 1",
            &["refunds_equal_payments"],
        ),
        tampering(
            "UPDATE refunds SET amount = amount + 1 WHERE amount = 1234567",
            &["refunds_are_booked", "refunds_equal_payments", "transactions_have_facts"],
        ),
        tampering(
            "DELETE FROM clawbacks WHERE level = 1 AND amount > 1000",
            &["facts_have_their_notices", "refunds_are_booked", "reversals_equal_refunds"],
        ),
        tampering(
            "DELETE FROM commissions WHERE (payment_id, level) = (SELECT payment_id, level FROM commissions
                 WHERE level = 2 AND reversed = 0 ORDER BY 1 LIMIT 1)",
            &["claims_equal_balances", "facts_have_their_notices", "partners_add_up", "sales_are_whole"],
        ),
        tampering(
            "UPDATE payouts SET amount = amount + 1 WHERE state = 'REQUESTED'",
            &["payouts_are_whole", "payouts_equal_reservations", "transactions_have_facts"],
        ),
        tampering(
            "UPDATE payout_items SET amount = amount - 1 WHERE payout_id IN (SELECT payout_id FROM payouts WHERE state = 'COMPLETED')
                 AND number = 1",
            &["commissions_equal_payouts", "payouts_are_whole"],
        ),
        tampering("UPDATE adjustments SET transaction_id = gen_random_uuid()", &["adjustments_are_whole", "transactions_have_facts"]),
        tampering(
            "UPDATE audit_events SET notices = notices - 1 WHERE audit_event_id = (SELECT audit_event_id FROM ledger_transactions
                 WHERE kind = 'PRO_SALE' ORDER BY transaction_id LIMIT 1)",
            &["facts_have_their_notices"],
        ),
        tampering(
            "UPDATE audit_events SET notices = 0 WHERE audit_event_id IN (SELECT audit_event_id FROM ledger_transactions
                 WHERE kind IN ('REFUND', 'PAYOUT_PAID'))",
            &["events_are_settled_or_waiting", "facts_have_their_notices"],
        ),
        tampering(
            "UPDATE audit_events SET notices = 0 WHERE action = 'RegisterPartner'",
            &["events_are_settled_or_waiting", "signups_have_their_notices"],
        ),
        tampering(
            "DELETE FROM audit_events WHERE action = 'RefundPayment'",
            &["events_are_settled_or_waiting", "facts_have_their_notices"],
        ),
        tampering(
            "UPDATE audit_events SET notices = 0 WHERE action = 'ApprovePayout'",
            &["events_are_settled_or_waiting", "facts_have_their_notices"],
        ),
        tampering(
            "UPDATE audit_events SET action = 'SubmitPayment' WHERE action = 'RejectPayment'",
            &["facts_have_their_notices"],
        ),
        tampering(
            "DELETE FROM outbox WHERE event_id = (SELECT event_id FROM outbox ORDER BY event_id LIMIT 1)",
            &["events_are_settled_or_waiting"],
        ),
        tampering("TRUNCATE outbox", &["events_are_settled_or_waiting"]),
        tampering(
            "INSERT INTO outbox_settled SELECT chain_id, 1 FROM audit_blocks LIMIT 1",
            &["events_are_settled_or_waiting"],
        ),
    ]
}

fn of_partners(root: &str) -> Vec<Tampering> {
    vec![
        // A cycle that looks like one more generation.
        tampering(
            format!(
                "UPDATE partners r SET referrer_id = c.partner_id, depth = c.depth + 1, lineage = (c.partner_id || c.lineage)[1:9]
                 FROM partners c WHERE r.partner_id = '{root}' AND c.external_id = 'chain-3'"
            ),
            &["lineages_equal_the_tree", "networks_equal_the_tree"],
        ),
        tampering(
            "UPDATE partners SET lineage[2] = partner_id WHERE external_id = 'chain-2'",
            &["lineages_equal_the_tree"],
        ),
        tampering(
            format!("UPDATE standings SET members[3] = members[3] + 1 WHERE partner_id = '{root}'"),
            &["networks_equal_the_tree"],
        ),
        tampering(
            format!("UPDATE standings SET pro_members[9] = 1 WHERE partner_id = '{root}'"),
            &["networks_equal_the_tree"],
        ),
        tampering(
            format!("UPDATE standings SET xp = xp - 1 WHERE partner_id = '{root}'"),
            &["ranks_equal_standings", "xp_equals_awards"],
        ),
        tampering("UPDATE xp_counts SET partners = partners + 1 WHERE tier = 0", &["ranks_equal_standings"]),
        tampering("UPDATE xp_counts SET partners = partners + 1 WHERE tier = 4", &["ranks_equal_standings"]),
        tampering("DELETE FROM xp_counts WHERE tier > 0", &["ranks_equal_standings"]),
        tampering("DELETE FROM xp_counts WHERE tier = 4", &["ranks_equal_standings"]),
        tampering("DELETE FROM xp_counts", &["ranks_equal_standings"]),
        tampering(format!("DELETE FROM xp_awards WHERE partner_id = '{root}' AND level = 2"), &["xp_equals_awards"]),
        tampering(
            "UPDATE standings SET pro_expires_at = pro_expires_at + interval '1 day' WHERE pro_expires_at IS NOT NULL",
            &["pro_equals_periods"],
        ),
        tampering(
            "UPDATE standings SET notices_sent = 3 WHERE notices_sent < 3 AND pro_expires_at IS NOT NULL",
            &["notices_equal_their_count"],
        ),
        tampering(
            "INSERT INTO pro_notices (partner_id, pro_end, notice, audit_event_id)
             SELECT partner_id, pro_expires_at, 3, (SELECT max(audit_event_id::text)::uuid FROM audit_events)
             FROM standings WHERE pro_expires_at > now()",
            &["notices_equal_their_count"],
        ),
        tampering(
            "INSERT INTO pro_notices (partner_id, pro_end, notice)
             SELECT partner_id, pro_expires_at, 3 FROM standings WHERE pro_expires_at > now()",
            &["notices_equal_their_count"],
        ),
        tampering(
            "UPDATE payments SET pro_start = pro_start - interval '1 hour' WHERE refunded = 0 AND state = 'SUCCEEDED'",
            &["pro_equals_periods"],
        ),
    ]
}
