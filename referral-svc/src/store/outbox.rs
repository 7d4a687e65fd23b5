//! Table `outbox`: events that notify-svc has not acknowledged yet.

use chrono::{DateTime, Utc};
use diesel::{
    Queryable, QueryableByName, Selectable,
    sql_types::{Array, BigInt, Binary, Bool, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Result, schema::outbox, sql::Sql, transaction::Transaction};

/// One event: all that one command has to tell.
#[derive(Clone, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = outbox)]
pub(crate) struct OutboxEvent {
    pub(crate) event_id: Uuid,
    pub(crate) create_time: DateTime<Utc>,
    pub(crate) traceparent: String,
    pub(crate) baggage: String,
    pub(crate) event: Vec<u8>,
}

/// Events of commands; `chain_id` is that of the block that seals these.
pub(crate) async fn insert(transaction: &mut Transaction, chain_id: Uuid, rows: &[OutboxEvent]) -> Result<()> {
    Sql::new(
        "INSERT INTO outbox (chain_id, event_id, create_time, traceparent, baggage, event)
         SELECT {}, * FROM unnest({}, {}, {}, {}, {})",
    )
    .bind::<SqlUuid, _>(chain_id)
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| row.event_id).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.traceparent.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.baggage.as_str()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.event.as_slice()).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// An event of a broadcast: it waits behind all others.
pub(crate) async fn insert_bulk(transaction: &mut Transaction, event: &OutboxEvent) -> Result<()> {
    Sql::new("INSERT INTO outbox (event_id, create_time, traceparent, event, bulk) VALUES ({}, {}, {}, {}, true)")
        .bind::<SqlUuid, _>(event.event_id)
        .bind::<Timestamptz, _>(event.create_time)
        .bind::<Text, _>(event.traceparent.as_str())
        .bind::<Binary, _>(event.event.as_slice())
        .execute(transaction.connection())
        .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many events of broadcasts are unsettled.
pub(crate) async fn bulk_waiting(transaction: &mut Transaction) -> Result<i64> {
    let row: Waiting = Sql::new("SELECT count(*) AS count FROM outbox WHERE bulk AND reject_time IS NULL")
        .get_result(transaction.connection())
        .await?;
    Ok(row.count)
}

#[derive(QueryableByName)]
struct Elected {
    #[diesel(sql_type = Bool)]
    elected: bool,
}

/// Whether this session is, from now on, the one that publishes; it stays so while the connection lives.
///
/// Two publishers would do no harm, since the inbox takes each event once; one saves the second's work.
pub(crate) async fn elect(connection: &mut AsyncPgConnection) -> Result<bool> {
    let row: Elected = Sql::new("SELECT pg_try_advisory_lock(3, 0) AS elected").get_result(connection).await?;
    Ok(row.elected)
}

/// Unsettled events that are not in flight: broadcasts last, the oldest first. Asked for as a set, never as "after the last one seen".
pub(crate) async fn unsettled(
    connection: &mut AsyncPgConnection,
    in_flight: &[Uuid],
    limit: i64,
) -> Result<Vec<OutboxEvent>> {
    Sql::new(
        "SELECT event_id, create_time, traceparent, baggage, event FROM outbox
         WHERE reject_time IS NULL AND event_id <> ALL ({})
         ORDER BY bulk, event_id LIMIT {}",
    )
    .bind::<Array<SqlUuid>, _>(in_flight)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}

/// Removes events that notify-svc has committed.
pub(crate) async fn settle(connection: &mut AsyncPgConnection, event_ids: &[Uuid]) -> Result<()> {
    Sql::new("SELECT settle_events({})").bind::<Array<SqlUuid>, _>(event_ids).execute(connection).await?;
    Ok(())
}

/// Sets an event aside that notify-svc can never take.
pub(crate) async fn reject(
    connection: &mut AsyncPgConnection,
    event_id: Uuid,
    reason: &str,
    detail: &str,
) -> Result<()> {
    Sql::new(
        "UPDATE outbox SET reject_time = now(), reject_reason = {}, reject_detail = {}
         WHERE event_id = {} AND reject_time IS NULL",
    )
    .bind::<Text, _>(reason)
    .bind::<Text, _>(detail)
    .bind::<SqlUuid, _>(event_id)
    .execute(connection)
    .await?;
    Ok(())
}
