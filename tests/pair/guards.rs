//! The database itself refuses what must never be, whoever asks: raw SQL as the service's own role, and as the owner.

mod tree;

use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Role,
};

const DENIED: &str = "42501";
const CHECK: &str = "23514";
const UNIQUE: &str = "23505";
const FOREIGN_KEY: &str = "23503";

/// Real data, by name: `{first}`, `{second}`, `{third}` are a chain whose third bought PRO (`{paid}`, by `{sale}`);
/// `{lone}` has no referrer, and `{below}` stands below it; `{open}` is a payment still open.
struct Fixture {
    pair: Pair,
    names: Vec<(&'static str, String)>,
}

impl Fixture {
    async fn start() -> Self {
        let pair = Options::default().start_alone().await;
        let mut clients = pair.clients.clone();
        let chain = clients.chain("chain", 3).await;
        let alone = clients.chain("lone", 2).await;
        let (paid, commissions) = clients.buy_pro(&chain[2].partner_id).await;
        assert_eq!(commissions.len(), 2);
        let open = clients.open_payment(&chain[1].partner_id).await;
        let names = vec![
            ("{first}", chain[0].partner_id.clone()),
            ("{second}", chain[1].partner_id.clone()),
            ("{third}", chain[2].partner_id.clone()),
            ("{lone}", alone[0].partner_id.clone()),
            ("{below}", alone[1].partner_id.clone()),
            ("{paid}", paid.payment_id.clone()),
            ("{sale}", paid.transaction_id.clone()),
            ("{open}", open.payment_id),
            ("{new}", "00000000-0000-4000-8000-000000000001".to_owned()),
        ];
        Self { pair, names }
    }

    fn fill(&self, sql: &str) -> String {
        self.names.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value))
    }

    /// Tries each statement in a transaction of its own, as each role, and expects SQLSTATE and constraint.
    async fn refuses(&self, roles: &[Role], cases: &[(&str, &str, &str)]) {
        for role in roles {
            let client = self.pair.referral_sql(*role).await;
            for (sql, state, constraint) in cases {
                client.batch_execute("BEGIN").await.expect("a transaction");
                let tried = client.batch_execute(&self.fill(sql)).await;
                assert_eq!(fault(&tried), (*state, *constraint), "as {role:?}: {sql}: {tried:?}");
                client.batch_execute("ROLLBACK").await.expect("the transaction's end");
            }
        }
    }
}

/// SQLSTATE and constraint; both empty if nothing was refused.
fn fault(tried: &Result<(), tokio_postgres::Error>) -> (&str, &str) {
    let error = tried.as_ref().err().map(|error| error.as_db_error().expect("an error of the database"));
    error.map_or(("", ""), |error| (error.code().code(), error.constraint().unwrap_or_default()))
}

/// The open payment succeeds, by the ledger transaction `{new}`.
const PAID: &str =
    "UPDATE payments SET state = 'SUCCEEDED', confirmed_ref = 'raw', confirm_time = now(), pro_start = now(),
        pro_end = now() + interval '30 days', transaction_id = '{new}' WHERE payment_id = '{open}';
    INSERT INTO ledger_transactions VALUES ('{new}', 'PRO_SALE', '{open}', now());";

/// Entries of `{new}`, each as (purpose, version, amount, balance), the last two relative to the account's.
fn entries(values: &str) -> String {
    format!(
        "INSERT INTO ledger_entries SELECT a.account_id, a.version + v.step, v.amount, a.balance + v.total, '{{new}}'
         FROM (VALUES {values}) AS v (purpose, step, amount, total) JOIN accounts a ON a.purpose = v.purpose"
    )
}

/// The whole sale, with these entries besides the 39 USDT that came in.
fn booking(values: &str) -> String {
    format!("{PAID} {}", entries(&format!("('PLATFORM_CLEARING', 1, -39000000, -39000000), {values}")))
}

const BOTH: [Role; 2] = [Role::Service, Role::Owner];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_once_is_neither_changed_nor_removed() {
    let fixture = Fixture::start().await;
    let mut statements: Vec<String> = Vec::new();
    for (table, column) in [
        ("ledger_entries", "amount"),
        ("ledger_transactions", "create_time"),
        ("audit_events", "outcome"),
        ("audit_blocks", "hash"),
        ("requests", "answer"),
        ("plans", "content"),
        ("xp_awards", "xp"),
        ("accounts", "balance"),
    ] {
        statements.push(format!("UPDATE {table} SET {column} = {column}"));
    }
    for table in [
        "ledger_entries",
        "ledger_transactions",
        "audit_events",
        "audit_blocks",
        "requests",
        "plans",
        "xp_awards",
        "accounts",
        "commissions",
        "payments",
        "partners",
        "standings",
        "broadcasts",
    ] {
        statements.push(format!("DELETE FROM {table}"));
        statements.push(format!("TRUNCATE {table} CASCADE"));
    }
    let cases: Vec<_> = statements.iter().map(|sql| (sql.as_str(), DENIED, "")).collect();
    fixture.refuses(&BOTH, &cases).await;
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_has_no_right_beyond_its_work() {
    let fixture = Fixture::start().await;
    let statements = [
        "UPDATE accounts SET balance = balance + 1, version = version + 1",
        "UPDATE xp_counts SET partners = partners + 1",
        "SELECT recount_xp()",
        "INSERT INTO accounts (purpose, asset) VALUES ('PLATFORM_REVENUE', 'USDT')",
        "UPDATE commissions SET amount = amount",
        "UPDATE payments SET amount = 1 WHERE payment_id = '{open}'",
        "UPDATE payments SET partner_id = '{lone}' WHERE payment_id = '{open}'",
        "UPDATE partners SET external_id = 'other'",
        "UPDATE partners SET referral_code = 'P2P-OTHER001'",
        "DELETE FROM standings",
        "DELETE FROM late_references",
        "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON ledger_entries",
        "SET session_replication_role = replica",
        "SET ROLE referral_owner",
        "CREATE TABLE public.mine (n int)",
        "SELECT grant_service_rights('referral_svc')",
    ];
    let client = fixture.pair.referral_sql(Role::Service).await;
    for sql in statements {
        client.batch_execute("BEGIN").await.expect("a transaction");
        let tried = client.batch_execute(&fixture.fill(sql)).await;
        assert_eq!(fault(&tried).0, DENIED, "{sql}: {tried:?}");
        client.batch_execute("ROLLBACK").await.expect("the transaction's end");
    }
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_takes_only_entries_that_balance_and_continue() {
    let fixture = Fixture::start().await;
    let good = booking("('PLATFORM_REVENUE', 1, 39000000, 39000000)");
    let client = fixture.pair.referral_sql(Role::Service).await;
    client.batch_execute("BEGIN").await.expect("a transaction");
    let sound = format!("{good}; SET CONSTRAINTS ALL IMMEDIATE");
    client.batch_execute(&fixture.fill(&sound)).await.expect("a sound sale: the cases below differ in one thing each");
    client.batch_execute("ROLLBACK").await.expect("the transaction's end");

    let unbalanced = booking("('PLATFORM_REVENUE', 1, 39000001, 39000001)");
    let one_sided = format!("{PAID} {}", entries("('PLATFORM_REVENUE', 1, 5, 5)"));
    let gap = booking("('PLATFORM_REVENUE', 2, 39000000, 39000000)");
    let repeated = booking("('PLATFORM_REVENUE', 0, 39000000, 39000000)");
    let wrong_balance = booking("('PLATFORM_REVENUE', 1, 39000000, 39000001)");
    let inner_gap = booking("('PLATFORM_REVENUE', 1, 2, 2), ('PLATFORM_REVENUE', 3, 38999998, 39000000)");
    let inner_balance = booking("('PLATFORM_REVENUE', 1, 2, 3), ('PLATFORM_REVENUE', 2, 38999998, 39000000)");
    let nothing = booking("('PLATFORM_REVENUE', 1, 0, 0)");
    let loose = entries("('PLATFORM_CLEARING', 1, -5, -5), ('PLATFORM_REVENUE', 1, 5, 5)");
    let other_sum = format!("{PAID} {loose}");
    let later = loose.replace("{new}", "{sale}");
    let twice = format!("{good}; {loose}");
    let nobodys = format!(
        "{PAID} INSERT INTO ledger_entries VALUES (987654, 1, 5, 5, '{{new}}'), (987655, 1, -5, -5, '{{new}}')"
    );
    let (only_paid, _) = PAID.split_once(';').expect("two statements");
    let unbooked = format!("{only_paid}; SET CONSTRAINTS ALL IMMEDIATE");
    fixture
        .refuses(
            &BOTH,
            &[
                (&unbalanced, CHECK, "ledger_entries_balance"),
                (&one_sided, CHECK, "ledger_entries_balance"),
                (&loose, CHECK, "ledger_entries_sealed"),
                (&later, CHECK, "ledger_entries_sealed"),
                (&twice, CHECK, "ledger_entries_sealed"),
                (&gap, CHECK, "ledger_entries_chain"),
                (&inner_gap, CHECK, "ledger_entries_chain"),
                (&wrong_balance, CHECK, "ledger_entries_chain"),
                (&inner_balance, CHECK, "ledger_entries_chain"),
                (&nobodys, CHECK, "ledger_entries_chain"),
                (&other_sum, CHECK, "ledger_entries_received"),
                (&unbooked, FOREIGN_KEY, "payments_transaction_id_fkey"),
                (
                    "INSERT INTO ledger_transactions VALUES ('{new}', 'PRO_SALE', '{open}', now())",
                    CHECK,
                    "ledger_transactions_paid",
                ),
                (&repeated, UNIQUE, "ledger_entries_pkey"),
                (&nothing, CHECK, "ledger_entries_amount_check"),
                (
                    "INSERT INTO ledger_transactions VALUES ('{new}', 'PRO_SALE', '{paid}', now())",
                    UNIQUE,
                    "ledger_transactions_one_sale",
                ),
            ],
        )
        .await;
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_succeeds_once_and_its_reference_and_commissions_stay() {
    let fixture = Fixture::start().await;
    let succeed = "UPDATE payments SET state = 'SUCCEEDED', confirm_time = now(), pro_start = now(),
        pro_end = now() + interval '30 days', transaction_id = '{new}', confirmed_ref =";
    let used = format!("{succeed} 'ref-{{paid}}' WHERE payment_id = '{{open}}'");
    let backwards = format!("{succeed} 'other', pro_end = now() WHERE payment_id = '{{open}}'")
        .replace("pro_end = now() + interval '30 days',", "");
    let commission = |level: &str, rate: &str, amount: &str| {
        format!(
            "INSERT INTO commissions (payment_id, level, earner_id, rate_bps, plan_version, asset, base, amount,
                transaction_id, create_time)
             VALUES ('{{paid}}', {level}, '{{lone}}', {rate}, 1, 'USDT', 1999, {amount}, '{{sale}}', now())"
        )
    };
    let (rounded_up, level_ten) = (commission("3", "300", "60"), commission("10", "300", "59"));
    let (again, no_rate) = (commission("1", "300", "59"), commission("3", "0", "0"));
    let other_base = commission("3", "300", "59");
    let (unrelated, of_all) = (other_base.replace("1999, 59", "39000000, 1170000"), "39000000, 11700000");
    let wrong_level = commission("3", "3000", "599").replace("{lone}", "{first}").replace("1999, 599", of_all);
    let unpaid = unrelated.replace("{paid}", "{open}");
    let unplanned = unrelated.replace("300, 1, 'USDT'", "300, 77, 'USDT'");
    fixture
        .refuses(
            &BOTH,
            &[
                (&used, UNIQUE, "payments_confirmed_ref_key"),
                (&backwards, CHECK, "payments_period"),
                (
                    "UPDATE payments SET state = 'PENDING', confirmed_ref = NULL, confirm_time = NULL, pro_start = NULL,
                        pro_end = NULL, transaction_id = NULL WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
                (
                    "UPDATE payments SET confirmed_ref = 'another' WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
                (
                    "UPDATE payments SET transaction_id = '{new}' WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
                (
                    "UPDATE payments SET pro_end = pro_end + interval '1 year' WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
                ("UPDATE payments SET state = 'PENDING' WHERE payment_id = '{paid}'", CHECK, "payments_success_stays"),
                ("UPDATE payments SET state = 'SUCCEEDED' WHERE payment_id = '{open}'", CHECK, "payments_succeeded"),
                ("UPDATE payments SET state = 'REJECTED' WHERE payment_id = '{open}'", CHECK, "payments_rejected"),
                ("UPDATE payments SET state = 'IN_REVIEW' WHERE payment_id = '{open}'", CHECK, "payments_in_review"),
                (&rounded_up, CHECK, "commissions_amount"),
                (&level_ten, CHECK, "commissions_level_check"),
                (&no_rate, CHECK, "commissions_rate_bps_check"),
                (&again, UNIQUE, "commissions_pkey"),
                (&other_base, CHECK, "commissions_payment"),
                (&unpaid, CHECK, "commissions_payment"),
                (&unplanned, CHECK, "commissions_payment"),
                (&unrelated, CHECK, "commissions_earner"),
                (&wrong_level, UNIQUE, "commissions_earner_id_transaction_id_key"),
                ("INSERT INTO xp_awards VALUES ('{lone}', '{third}', 1, 1, 35, now())", CHECK, "xp_awards_ancestor"),
                ("INSERT INTO xp_awards VALUES ('{lone}', '{new}', 1, 1, 35, now())", CHECK, "xp_awards_ancestor"),
                (
                    "INSERT INTO xp_awards VALUES ('{second}', '{third}', 1, 1, 35, now())",
                    UNIQUE,
                    "xp_awards_pkey",
                ),
            ],
        )
        .await;
    fixture
        .refuses(
            &[Role::Owner],
            &[
                ("UPDATE payments SET amount = 1 WHERE payment_id = '{paid}'", CHECK, "payments_success_stays"),
                (
                    "UPDATE payments SET payment_id = '{new}' WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
                (
                    "UPDATE payments SET partner_id = '{lone}' WHERE payment_id = '{paid}'",
                    CHECK,
                    "payments_success_stays",
                ),
            ],
        )
        .await;
    fixture.pair.finish().await;
}
