//! Table `addresses`: what attempts have taught about them. The claim reads it together with what is due.

use chrono::TimeDelta;
use diesel::{
    QueryResult, sql_query,
    sql_types::{Array, Integer, Interval, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// Something learnt about an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark<'a> {
    pub(super) channel: &'a str,
    pub(super) address: &'a str,
    pub(super) reason: &'a str,
    /// `None`: nothing is to be sent there any more.
    pub(super) moved_to: Option<&'a str>,
    /// Whose attempt told it.
    pub(super) notification_id: Uuid,
}

/// Remembers marks; later ones replace earlier ones.
pub(super) async fn mark(connection: &mut AsyncPgConnection, mut marks: Vec<Mark<'_>>) -> QueryResult<()> {
    if marks.is_empty() {
        return Ok(());
    }
    // In order, so that transactions wait for each other in one order; one row each, as the statement demands.
    marks.sort();
    marks.dedup_by(|a, b| (a.channel, a.address) == (b.channel, b.address));
    sql_query(
        "INSERT INTO addresses (channel, address, reason, moved_to, notification_id)
         SELECT * FROM unnest($1, $2, $3, $4, $5)
             ON CONFLICT (channel, address) DO UPDATE
            SET reason = excluded.reason, moved_to = excluded.moved_to, mark_time = now(),
                notification_id = excluded.notification_id",
    )
    .bind::<Array<Text>, _>(marks.iter().map(|mark| mark.channel).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(marks.iter().map(|mark| mark.address).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(marks.iter().map(|mark| mark.reason).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(marks.iter().map(|mark| mark.moved_to).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(marks.iter().map(|mark| mark.notification_id).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes up to `most` marks that are older than `keep`, and stop nothing any more; how many went. Where an address has moved
/// to stays known.
pub(crate) async fn remove_old_marks(
    connection: &mut AsyncPgConnection,
    keep: TimeDelta,
    most: i32,
) -> QueryResult<i64> {
    let removed = sql_query(
        "DELETE FROM addresses WHERE (channel, address) IN (
             SELECT channel, address FROM addresses
              WHERE moved_to IS NULL AND mark_time < now() - $1
              ORDER BY channel, address LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<Interval, _>(keep)
    .bind::<Integer, _>(most)
    .execute(connection)
    .await?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
