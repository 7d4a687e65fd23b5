//! Removing what settled long ago: the database's own function decides what may go.

use chrono::TimeDelta;
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Integer, Interval},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Removes up to `most` notifications that settled longer ago than `keep`, the oldest first; how many went.
pub(crate) async fn remove_settled(connection: &mut AsyncPgConnection, keep: TimeDelta, most: i32) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Removed {
        #[diesel(sql_type = BigInt)]
        removed: i64,
    }
    let row: Removed = sql_query("SELECT remove_settled(now() - $1, $2) AS removed")
        .bind::<Interval, _>(keep)
        .bind::<Integer, _>(most)
        .get_result(connection)
        .await?;
    Ok(row.removed)
}
