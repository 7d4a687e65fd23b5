//! Keys that all instances share, made by whichever needs one first.

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Binary, Text},
};
use diesel_async::RunQueryDsl;
use service::database::Connection;

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Binary)]
    key: Vec<u8>,
}

/// The key for a purpose.
pub(crate) async fn key(connection: &mut Connection, purpose: &str) -> QueryResult<[u8; 32]> {
    sql_query("INSERT INTO signing_keys (purpose, key) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind::<Text, _>(purpose)
        .bind::<Binary, _>(rand::random::<[u8; 32]>().as_slice())
        .execute(connection)
        .await?;
    let row: KeyRow = sql_query("SELECT key FROM signing_keys WHERE purpose = $1")
        .bind::<Text, _>(purpose)
        .get_result(connection)
        .await?;
    row.key.try_into().map_err(|_| diesel::result::Error::NotFound)
}
