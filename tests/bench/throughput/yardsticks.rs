//! What PostgreSQL itself can do with the same rows.

use std::time::{Duration, Instant};

use p2phub_tests::{pair::Pair, postgres::Role};
use tokio::process::Command;
use tokio_postgres::Client;

use super::{Sizes, load::calls, network::Payments};
use crate::table::row;

const FUNCTION: &str = include_str!("confirm.sql");
const SOLD: &str = include_str!("copy.sql");
const CLIENTS: [usize; 4] = [1, 8, 32, 64];
/// More than can be confirmed in a second.
const PER_SECOND_MAX: f64 = 8_000.0;
/// What is copied: so many sales, in so many transactions.
const SALES: i64 = 40_000;
const BATCHES: i64 = 4;

/// What a sale leaves in each table, by what is known of it.
const TABLES: [(&str, &str); 8] = [
    ("payments", "JOIN bench.sold s USING (payment_id)"),
    ("ledger_transactions", "JOIN bench.sold s USING (transaction_id)"),
    ("ledger_entries", "JOIN bench.sold s USING (transaction_id)"),
    ("commissions", "JOIN bench.sold s USING (payment_id)"),
    ("audit_events", "JOIN bench.sold s USING (audit_event_id)"),
    ("requests", "JOIN audit_events d ON d.request_id = t.request_id JOIN bench.sold s USING (audit_event_id)"),
    ("outbox", "JOIN (SELECT *, row_number() OVER () AS n FROM bench.sold) s ON s.n = t.n"),
    ("audit_blocks", "JOIN (SELECT DISTINCT ON (b.chain_id, b.position) b.chain_id, b.position, s.batch
        FROM bench.sold s JOIN audit_events d USING (audit_event_id) JOIN audit_blocks b ON b.create_time = d.create_time) s
        USING (chain_id, position)"),
];

/// Makes the function that confirms a payment; one must have been confirmed, whose answer and event are its model.
pub(super) async fn prepare(sql: &Client) {
    sql.batch_execute(FUNCTION).await.expect("the function");
}

/// The most confirmations a second over numbers of clients.
pub(super) async fn pgbench(pair: &Pair, sizes: Sizes) -> f64 {
    let sql = pair.referral_sql(Role::Superuser).await;
    let mut best: f64 = 0.0;
    for clients in CLIENTS {
        let payments = Payments::open(pair, calls(PER_SECOND_MAX, sizes.duration())).await;
        sql.batch_execute("TRUNCATE bench.pending RESTART IDENTITY; ALTER SEQUENCE bench.turn RESTART")
            .await
            .expect("an empty table");
        let insert = "INSERT INTO bench.pending (payment_id) SELECT unnest($1::text[]::uuid[])";
        sql.execute(insert, &[&payments.into_ids()]).await.expect("payments");
        sql.batch_execute("ANALYZE bench.pending").await.expect("statistics");
        let per_second = run_pgbench(pair, clients, sizes.duration()).await;
        row(format!("{clients} clients"), per_second, "sales/s");
        best = best.max(per_second);
    }
    best
}

async fn run_pgbench(pair: &Pair, clients: usize, duration: Duration) -> f64 {
    let script = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(script.path(), "SELECT bench.confirm_next();\n").expect("a script");
    let output = Command::new(pair.server.program("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={clients}"))
        .arg(format!("--time={}", duration.as_secs()))
        .arg("--file")
        .arg(script.path())
        .arg(pair.server.referral_url(&pair.databases, Role::Superuser))
        .output()
        .await
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let per_second = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    per_second.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// How many confirmations' rows PostgreSQL can take a second.
pub(super) async fn copy(pair: &Pair) -> f64 {
    let sql = pair.referral_sql(Role::Superuser).await;
    let sold = SOLD.replace("$COUNT", &SALES.to_string()).replace("$BATCHES", &BATCHES.to_string());
    sql.batch_execute(&sold).await.expect("what was sold");
    let sales: i64 = sql.query_one("SELECT count(*) FROM bench.sold", &[]).await.expect("a count").get(0);
    let directory = pair.server.socket().parent().expect("a directory").join(format!("copy-{}", std::process::id()));
    let directory = directory.display();
    let mut rows = 0;
    for (table, of_sale) in TABLES {
        let like = format!("CREATE TABLE bench.copy_{table} (LIKE {table} INCLUDING ALL)");
        sql.batch_execute(&like).await.expect("a table");
        let table_of = if table == "outbox" {
            "(SELECT row_number() OVER () AS n, o.* FROM outbox o)".to_owned()
        } else {
            table.to_owned()
        };
        for batch in 1..=BATCHES {
            let of = sql_columns(&sql, table).await;
            let export = format!(
                "COPY (SELECT {of} FROM {table_of} t {of_sale} WHERE s.batch = {batch})
                 TO '{directory}-{table}-{batch}' (FORMAT binary)"
            );
            rows += sql.execute(&export, &[]).await.expect("an export");
        }
    }
    let begin = Instant::now();
    for batch in 1..=BATCHES {
        let copies = TABLES
            .map(|(table, _)| format!("COPY bench.copy_{table} FROM '{directory}-{table}-{batch}' (FORMAT binary);"));
        sql.batch_execute(&format!("BEGIN; {} COMMIT", copies.concat())).await.expect("copies");
    }
    let per_second = sales as f64 / begin.elapsed().as_secs_f64();
    row("sales copied", sales as f64, "sales");
    row("their rows", rows as f64, "rows");
    row("COPY, one session", per_second, "sales/s");
    per_second
}

async fn sql_columns(sql: &Client, table: &str) -> String {
    let query = "SELECT string_agg('t.' || quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
    sql.query_one(query, &[&table]).await.expect("columns").get(0)
}
