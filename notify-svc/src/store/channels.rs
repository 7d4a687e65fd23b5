//! Channels and gates as operators see them: pausing, resuming, what waits.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use notify_domain::channel::Channel;

use super::feed;

/// How long a pause or its end waits for the count of what is open.
const COUNT_IN_TIME: &str = "SET LOCAL statement_timeout = '2s'";

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

/// The channel sends again, in its turn among the gates that have opened, and its provider is taken to be well: somebody has
/// seen to it. Returns whether it had been paused.
pub(crate) async fn resume(connection: &mut AsyncPgConnection, channel: Channel) -> QueryResult<bool> {
    let resumed = sql_query(
        "UPDATE gates
            SET closed_until = to_timestamp(0), open_time = now(), reason = '', closed_by = '', note = ''
          WHERE gate = $1 AND closed_by <> ''",
    )
    .bind::<Text, _>(gate(channel))
    .execute(connection)
    .await?;
    sql_query(
        "UPDATE gates
            SET closed_until = to_timestamp(0), open_time = now(), reason = '', failure_count = 0, failing_since = NULL,
                tripped = false
          WHERE gate = $1 AND tripped",
    )
    .bind::<Text, _>(format!("provider/{}", channel.as_str()))
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

/// The same for a transaction that goes on to do something else, which must not fail because counting does: `None` if it
/// took too long or failed. To be asked before a gate is written, for whose row every claim would wait.
pub(crate) async fn try_list(connection: &mut AsyncPgConnection) -> Option<Vec<ChannelRow>> {
    let mut rows = None;
    let undone = connection
        .transaction(async |connection| {
            connection.batch_execute(COUNT_IN_TIME).await?;
            rows = Some(list(connection).await?);
            // Takes the shorter limit back with it.
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        })
        .await;
    if let Err(error) = undone
        && rows.is_none()
    {
        tracing::warn!(%error, "what waits for the channels can't be counted");
    }
    rows
}

/// Up to `limit` gates that are closed or have somebody waiting, those that open last first, after the one that opens then and
/// has this name.
pub(crate) async fn gates(
    connection: &mut AsyncPgConnection,
    after: Option<(DateTime<Utc>, String)>,
    limit: i64,
) -> QueryResult<Vec<GateRow>> {
    let (open_time, name) = after.unzip();
    sql_query(
        "SELECT * FROM (
             SELECT gate, greatest(closed_until, open_time) AS open_time, failure_count, waiting,
                    CASE WHEN closed_until > now() THEN reason ELSE '' END AS reason
               FROM gates WHERE closed_until > now() OR waiting) AS g
          WHERE $1 IS NULL OR g.open_time < $1 OR (g.open_time = $1 AND g.gate > $2)
          ORDER BY g.open_time DESC, g.gate
          LIMIT $3",
    )
    .bind::<Nullable<Timestamptz>, _>(open_time)
    .bind::<Nullable<Text>, _>(name)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}
