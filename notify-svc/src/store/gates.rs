//! Table `gates`: limits in use, pauses, failures. Locked in the order of their names, after deliveries.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Bool, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::gate::Gate;

/// Gates that are looked at in one turn because deliveries wait for them.
const WAITING_MAX: i32 = 32;

#[derive(QueryableByName)]
struct GateRow {
    #[diesel(sql_type = Text)]
    gate: String,
    #[diesel(sql_type = Timestamptz)]
    full_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    closed_until: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Integer)]
    failure_count: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    failing_since: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    tripped: bool,
    #[diesel(sql_type = Bool)]
    waiting: bool,
}

const COLUMNS: &str = "gate, full_time, closed_until, reason, failure_count, failing_since, tripped, waiting";

fn by_name(rows: Vec<GateRow>) -> BTreeMap<String, Gate> {
    rows.into_iter()
        .map(|row| {
            let gate = Gate {
                full_time: row.full_time,
                closed_until: row.closed_until,
                failure_count: u32::try_from(row.failure_count).unwrap_or_default(),
                failing_since: row.failing_since,
                tripped: row.tripped,
                reason: row.reason,
                waiting: row.waiting,
            };
            (row.gate, gate)
        })
        .collect()
}

/// Gates that have deliveries waiting and are open now, those in `but` excepted; not locked.
pub(super) async fn open(connection: &mut AsyncPgConnection, but: &[&str]) -> QueryResult<BTreeMap<String, Gate>> {
    let query = format!(
        "SELECT {COLUMNS} FROM gates WHERE waiting AND open_time <= now() AND gate <> ALL ($1) ORDER BY open_time LIMIT $2"
    );
    let rows = sql_query(query).bind::<Array<Text>, _>(but).bind::<Integer, _>(WAITING_MAX).load(connection).await?;
    Ok(by_name(rows))
}

/// Locks gates. Those in `noted`, of which there will be something to remember, are made first if need be: only what is locked
/// may be saved, or two who make the same gate at once would forget what the first one noted. Of the others there may be
/// nothing.
pub(super) async fn lock(
    connection: &mut AsyncPgConnection,
    noted: &[&str],
    names: &[&str],
) -> QueryResult<BTreeMap<String, Gate>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let query = format!("SELECT {COLUMNS} FROM gates WHERE gate = ANY ($1) ORDER BY gate FOR UPDATE");
    loop {
        if !noted.is_empty() {
            sql_query(
                "INSERT INTO gates (gate) SELECT DISTINCT g FROM unnest($1) AS g ORDER BY g ON CONFLICT DO NOTHING",
            )
            .bind::<Array<Text>, _>(noted)
            .execute(connection)
            .await?;
        }
        let locked = by_name(sql_query(&query).bind::<Array<Text>, _>(names).load(connection).await?);
        // One that was idle may have been removed between the two statements.
        if noted.iter().all(|name| locked.contains_key(*name)) {
            return Ok(locked);
        }
    }
}

/// Remembers gates that this transaction has locked, each with the time from which something may pass.
pub(super) async fn save(
    connection: &mut AsyncPgConnection,
    gates: &[(&str, &Gate, DateTime<Utc>)],
) -> QueryResult<()> {
    if gates.is_empty() {
        return Ok(());
    }
    let failure_count = |gate: &Gate| i32::try_from(gate.failure_count).unwrap_or(i32::MAX);
    sql_query(
        "UPDATE gates g
            SET full_time = s.full_time, closed_until = s.closed_until, reason = s.reason, failure_count = s.failure_count,
                failing_since = s.failing_since, tripped = s.tripped, waiting = s.waiting, open_time = s.open_time
           FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
                AS s (gate, full_time, closed_until, reason, failure_count, failing_since, tripped, waiting, open_time)
          WHERE g.gate = s.gate",
    )
    .bind::<Array<Text>, _>(gates.iter().map(|(name, ..)| *name).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(gates.iter().map(|(_, gate, _)| gate.full_time).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(gates.iter().map(|(_, gate, _)| gate.closed_until).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(gates.iter().map(|(_, gate, _)| gate.reason.as_str()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(gates.iter().map(|(_, gate, _)| failure_count(gate)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(gates.iter().map(|(_, gate, _)| gate.failing_since).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(gates.iter().map(|(_, gate, _)| gate.tripped).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(gates.iter().map(|(_, gate, _)| gate.waiting).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(gates.iter().map(|(.., open_time)| *open_time).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Of gates that this transaction has locked: those that nobody waits for any more have nobody waiting.
pub(super) async fn settle_waiting(connection: &mut AsyncPgConnection, names: &[&str]) -> QueryResult<()> {
    if names.is_empty() {
        return Ok(());
    }
    sql_query(
        "UPDATE gates g SET waiting = false
          WHERE gate = ANY ($1) AND waiting AND NOT EXISTS (SELECT FROM deliveries d WHERE d.parked_on = g.gate AND d.state = 'QUEUED')",
    )
    .bind::<Array<Text>, _>(names)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes gates that there is nothing to remember of.
pub(crate) async fn remove_idle(connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    sql_query(
        "DELETE FROM gates WHERE gate IN (
             SELECT gate FROM gates
              WHERE NOT waiting AND closed_until < now() AND full_time < now() - interval '1 hour'
                AND coalesce(failing_since < now() - interval '1 day', failure_count = 0)
              ORDER BY gate LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    )
    .execute(connection)
    .await
}
