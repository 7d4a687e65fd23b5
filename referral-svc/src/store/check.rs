//! The proof of the books: everything recomputed from its source and compared, in one snapshot.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Result, sql::Sql};

/// One check's result.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) rows: i64,
    /// How many offend.
    pub(crate) offenders: i64,
    /// The first few of them.
    pub(crate) examples: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    offenders: i64,
    #[diesel(sql_type = Text)]
    examples: String,
}

/// Each query yields one row a thing looked at: its name, and whether it is as it should be.
macro_rules! check {
    ($query:literal) => {
        concat!(
            "WITH looked AS (",
            $query,
            ") SELECT count(*) AS rows, count(*) FILTER (WHERE fine IS NOT TRUE) AS offenders,
               coalesce((SELECT string_agg(who, ', ') FROM (SELECT who FROM looked WHERE fine IS NOT TRUE ORDER BY who LIMIT 5) f), '')
               AS examples FROM looked"
        )
    };
}

const CHECKS: [(&str, &str); 10] = [
    (
        "transactions_sum_to_zero",
        check!(
            "SELECT t.transaction_id::text AS who, e.total = 0 AS fine FROM ledger_transactions t
             LEFT JOIN (SELECT transaction_id, asset, sum(amount) AS total FROM ledger_entries
                        JOIN accounts USING (account_id) GROUP BY 1, 2) e USING (transaction_id)"
        ),
    ),
    (
        "entries_belong_to_transactions",
        check!(
            "SELECT DISTINCT e.transaction_id::text AS who, t.transaction_id IS NOT NULL AS fine
             FROM ledger_entries e LEFT JOIN ledger_transactions t USING (transaction_id)"
        ),
    ),
    (
        "balances_equal_entries",
        check!(
            "SELECT coalesce(a.account_id, e.account_id)::text AS who,
                 a.balance = coalesce(e.total, 0) AND a.version = coalesce(e.number, 0) AS fine
             FROM accounts a FULL JOIN (SELECT account_id, sum(amount) AS total, count(*) AS number
                                        FROM ledger_entries GROUP BY 1) e USING (account_id)"
        ),
    ),
    (
        "entries_follow_one_another",
        check!(
            "SELECT account_id || ' version ' || version AS who,
                 version = coalesce(lag(version) OVER w, 0) + 1
                 AND balance_after = coalesce(lag(balance_after) OVER w, 0) + amount AS fine
             FROM ledger_entries WINDOW w AS (PARTITION BY account_id ORDER BY version)"
        ),
    ),
    (
        "sales_are_whole",
        check!(
            "SELECT p.payment_id::text AS who,
                 t.transaction_id = p.transaction_id AND e.clearing = -p.amount AND e.earned = coalesce(c.earned, 0)
                 AND e.revenue = p.amount - coalesce(c.earned, 0) AS fine
             FROM payments p
             LEFT JOIN ledger_transactions t ON t.payment_id = p.payment_id AND t.kind = 'PRO_SALE'
             LEFT JOIN (SELECT transaction_id,
                            coalesce(sum(amount) FILTER (WHERE purpose = 'PLATFORM_CLEARING'), 0) AS clearing,
                            coalesce(sum(amount) FILTER (WHERE purpose = 'PLATFORM_REVENUE'), 0) AS revenue,
                            coalesce(sum(amount) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0) AS earned
                        FROM ledger_entries JOIN accounts USING (account_id) GROUP BY 1) e ON e.transaction_id = t.transaction_id
             LEFT JOIN (SELECT payment_id, sum(amount) AS earned, count(*) AS levels FROM commissions GROUP BY 1) c
                 ON c.payment_id = p.payment_id
             WHERE p.state = 'SUCCEEDED'"
        ),
    ),
    (
        "transactions_have_payments",
        check!(
            "SELECT t.transaction_id::text AS who, p.state = 'SUCCEEDED' AND p.transaction_id = t.transaction_id AS fine
             FROM ledger_transactions t LEFT JOIN payments p USING (payment_id)"
        ),
    ),
    (
        "commissions_are_booked",
        check!(
            "SELECT c.payment_id || ' level ' || c.level AS who, e.amount = c.amount OR (c.amount = 0 AND e.amount IS NULL) AS fine
             FROM commissions c
             LEFT JOIN (SELECT e.transaction_id, a.owner_id, a.asset, e.amount FROM ledger_entries e
                        JOIN accounts a USING (account_id) WHERE a.purpose = 'PARTNER_AVAILABLE') e
                 ON e.transaction_id = c.transaction_id AND e.owner_id = c.earner_id AND e.asset = c.asset"
        ),
    ),
    (
        "networks_equal_the_tree",
        check!(
            "SELECT s.partner_id::text AS who, s.members = coalesce(t.members, '{0,0,0,0,0,0,0,0,0}') AS fine FROM standings s
             LEFT JOIN (
                 SELECT partner_id, array_agg(coalesce(members, 0) ORDER BY level) AS members
                 FROM (SELECT DISTINCT a.partner_id FROM partners p, unnest(p.lineage) AS a (partner_id)) n
                 CROSS JOIN generate_series(1, 9) AS level
                 LEFT JOIN (SELECT a.partner_id, a.level, count(*) AS members
                            FROM partners p, unnest(p.lineage) WITH ORDINALITY AS a (partner_id, level) GROUP BY 1, 2) c
                     USING (partner_id, level)
                 GROUP BY 1
             ) t USING (partner_id)"
        ),
    ),
    (
        "pro_equals_periods",
        check!(
            "SELECT s.partner_id::text AS who, s.pro_expires_at IS NOT DISTINCT FROM p.last AS fine FROM standings s
             LEFT JOIN (SELECT partner_id, max(pro_end) AS last FROM payments GROUP BY 1) p USING (partner_id)"
        ),
    ),
    (
        "xp_equals_awards",
        check!(
            "SELECT s.partner_id::text AS who, s.xp = coalesce(a.total, 0) AS fine FROM standings s
             LEFT JOIN (SELECT partner_id, sum(xp) AS total FROM xp_awards GROUP BY 1) a USING (partner_id)"
        ),
    ),
];

#[derive(QueryableByName)]
struct Elected {
    #[diesel(sql_type = Bool)]
    elected: bool,
}

/// Whether this session is, while it lives, the one that checks by itself.
pub(crate) async fn elect(connection: &mut AsyncPgConnection) -> Result<bool> {
    let row: Elected = Sql::new("SELECT pg_try_advisory_lock(4, 0) AS elected").get_result(connection).await?;
    Ok(row.elected)
}

/// Runs every check in one read-only snapshot.
pub(crate) async fn run(connection: &mut AsyncPgConnection) -> Result<Vec<Check>> {
    connection
        .build_transaction()
        .read_only()
        .repeatable_read()
        .run(async |connection| {
            // The books may take longer to read than any other statement should, but not once nobody waits any more.
            let limits = "SELECT set_config('statement_timeout', '2min', true),
                              set_config('client_connection_check_interval', '1s', true)";
            Sql::new(limits).execute(connection).await?;
            let mut results = Vec::with_capacity(CHECKS.len());
            for (name, query) in CHECKS {
                let found: Found = Sql::new(query).get_result(connection).await?;
                let Found { rows, offenders, examples } = found;
                results.push(Check { name, rows, offenders, examples });
            }
            Ok(results)
        })
        .await
}
