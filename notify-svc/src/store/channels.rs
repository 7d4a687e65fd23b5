//! Channels and gates as operators see them: pausing, resuming, what waits.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Bool, Integer, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::channel::Channel;

use super::feed;

/// What is known of a channel that has a pause or somebody waiting.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct ChannelRow {
    #[diesel(sql_type = Text)]
    pub(crate) channel: String,
    #[diesel(sql_type = Bool)]
    pub(crate) paused: bool,
    #[diesel(sql_type = Text)]
    pub(crate) note: String,
    #[diesel(sql_type = Text)]
    pub(crate) closed_by: String,
    #[diesel(sql_type = BigInt)]
    pub(crate) queued: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) held: i64,
}

/// A gate.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct GateRow {
    #[diesel(sql_type = Text)]
    pub(crate) gate: String,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) open_time: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    pub(crate) reason: String,
    #[diesel(sql_type = Integer)]
    pub(crate) failure_count: i32,
    #[diesel(sql_type = Bool)]
    pub(crate) waiting: bool,
}

/// The gate of a whole channel.
fn gate(channel: Channel) -> String {
    format!("channel/{}", channel.as_str())
}

/// Nothing is sent over the channel from now on.
pub(crate) async fn pause(
    connection: &mut AsyncPgConnection,
    channel: Channel,
    caller: &str,
    note: &str,
) -> QueryResult<()> {
    sql_query(
        "INSERT INTO gates (gate, closed_until, open_time, reason, closed_by, note)
         VALUES ($1, '9999-12-31Z', '9999-12-31Z', 'PAUSED', $2, $3)
         ON CONFLICT (gate) DO UPDATE
            SET closed_until = excluded.closed_until, open_time = excluded.open_time, reason = excluded.reason,
                closed_by = excluded.closed_by, note = excluded.note",
    )
    .bind::<Text, _>(gate(channel))
    .bind::<Text, _>(caller)
    .bind::<Text, _>(note)
    .execute(connection)
    .await?;
    Ok(())
}

/// The channel sends again. Returns whether it had been paused.
pub(crate) async fn resume(connection: &mut AsyncPgConnection, channel: Channel) -> QueryResult<bool> {
    let resumed = sql_query(
        "UPDATE gates
            SET closed_until = to_timestamp(0), open_time = to_timestamp(0), reason = '', closed_by = '', note = ''
          WHERE gate = $1 AND closed_by <> ''",
    )
    .bind::<Text, _>(gate(channel))
    .execute(connection)
    .await?;
    feed::wake(connection).await?;
    Ok(resumed > 0)
}

/// Those of all channels of which there is something to say.
pub(crate) async fn list(connection: &mut AsyncPgConnection) -> QueryResult<Vec<ChannelRow>> {
    // What is open is few, and found by its own index, whatever else there is.
    sql_query(
        "WITH open AS (
             SELECT channel, count(*) AS queued, count(*) FILTER (WHERE parked_on = 'channel/' || channel) AS held
               FROM deliveries WHERE settle_time IS NULL AND state = 'QUEUED' GROUP BY channel),
         pauses AS (
             SELECT substr(gate, 9) AS channel, note, closed_by FROM gates
              WHERE gate LIKE 'channel/%' AND closed_by <> '')
         SELECT channel, p.channel IS NOT NULL AS paused, coalesce(p.note, '') AS note,
                coalesce(p.closed_by, '') AS closed_by, coalesce(o.queued, 0) AS queued, coalesce(o.held, 0) AS held
           FROM open o FULL JOIN pauses p USING (channel)",
    )
    .load(connection)
    .await
}

/// Up to `limit` gates that are closed or have somebody waiting, those that open last first.
pub(crate) async fn gates(connection: &mut AsyncPgConnection, limit: i64) -> QueryResult<Vec<GateRow>> {
    sql_query(
        "SELECT gate, greatest(closed_until, open_time) AS open_time, failure_count, waiting,
                CASE WHEN closed_until > now() THEN reason ELSE '' END AS reason
           FROM gates
          WHERE closed_until > now() OR waiting
          ORDER BY greatest(closed_until, open_time) DESC, gate
          LIMIT $1",
    )
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}
