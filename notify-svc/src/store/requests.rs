//! Table `requests`: the first answer to each request ID.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable, Selectable, SelectableHelper, insert_into,
    sql_query, sql_types::BigInt,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::schema::requests;

/// A request ID is its caller's own.
#[derive(Clone, Debug)]
pub(crate) struct RequestKey {
    pub(crate) caller: String,
    pub(crate) request_id: Uuid,
}

/// What was asked first under a request ID, and answered.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = requests)]
pub(crate) struct Answered {
    pub(crate) method: String,
    pub(crate) content_digest: Vec<u8>,
    pub(crate) response: Option<Vec<u8>>,
    pub(crate) refusal_code: Option<i32>,
    pub(crate) refusal_reason: Option<String>,
    pub(crate) refusal_message: Option<String>,
}

/// The first answer under this ID, if there is one. Whoever else asks under it waits until this transaction has ended.
pub(crate) async fn claim(connection: &mut AsyncPgConnection, key: &RequestKey) -> QueryResult<Option<Answered>> {
    sql_query("SELECT pg_advisory_xact_lock($1)").bind::<BigInt, _>(lock(key)).execute(connection).await?;
    requests::table.find((&key.caller, key.request_id)).select(Answered::as_select()).first(connection).await.optional()
}

/// Keeps the first answer.
pub(crate) async fn insert(connection: &mut AsyncPgConnection, key: &RequestKey, first: &Answered) -> QueryResult<()> {
    insert_into(requests::table)
        .values((
            requests::caller.eq(&key.caller),
            requests::request_id.eq(key.request_id),
            requests::method.eq(&first.method),
            requests::content_digest.eq(&first.content_digest),
            requests::response.eq(&first.response),
            requests::refusal_code.eq(first.refusal_code),
            requests::refusal_reason.eq(&first.refusal_reason),
            requests::refusal_message.eq(&first.refusal_message),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Keys that share a lock by chance only wait for each other.
fn lock(key: &RequestKey) -> i64 {
    let hash = Sha256::new().chain_update(key.request_id).chain_update(&key.caller).finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(head)
}
