//! Table `requests`: the first answer to each request ID.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    Queryable, QueryableByName, Selectable,
    sql_types::{Array, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Result, schema::requests, sql::Sql, transaction::Transaction};

/// A request ID is its caller's own.
pub(crate) type RequestKey = (String, Uuid);

/// What was asked first under a request ID, and answered.
#[derive(Clone, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = requests)]
pub(crate) struct Answered {
    pub(crate) request_id: Uuid,
    pub(crate) caller: String,
    pub(crate) method: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) refusal: Option<String>,
    pub(crate) answer: Vec<u8>,
}

pub(crate) async fn load(transaction: &mut Transaction, keys: &[RequestKey]) -> Result<HashMap<RequestKey, Answered>> {
    let rows: Vec<Answered> = Sql::new(
        "SELECT r.request_id, r.caller, r.method, r.fingerprint, r.refusal, r.answer
         FROM unnest({}, {}) AS k (request_id, caller)
         JOIN requests r ON r.request_id = k.request_id AND r.caller = k.caller",
    )
    .bind::<Array<SqlUuid>, _>(keys.iter().map(|key| key.1).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
    .load(transaction.connection())
    .await?;
    Ok(rows.into_iter().map(|row| ((row.caller.clone(), row.request_id), row)).collect())
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[Answered], now: DateTime<Utc>) -> Result<()> {
    Sql::new(
        "INSERT INTO requests (request_id, caller, method, fingerprint, refusal, answer, create_time)
         SELECT n.*, {} FROM unnest({}, {}, {}, {}, {}, {}) AS n",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| row.request_id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.caller.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.method.as_str()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.fingerprint.as_slice()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(rows.iter().map(|row| row.refusal.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.answer.as_slice()).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}
