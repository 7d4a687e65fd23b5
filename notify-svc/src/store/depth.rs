//! How much waits in the queue, counted only as far as it is worth.

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, BigInt, Double, SmallInt},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use notify_domain::lane::Lane;

/// Beyond it nobody needs to know how many there are.
const COUNT_MAX: i64 = 100_000;
/// Where most of a long queue matches, the planner would read and sort all of it.
const IN_ORDER: &str = "SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off";

/// The queue at one moment, of all instances.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(crate) struct Depth {
    /// Time has come: of an attempt, of an expiry, of a lease's end.
    #[diesel(sql_type = BigInt)]
    pub(crate) due: i64,
    /// Until their next attempt is due.
    #[diesel(sql_type = BigInt)]
    pub(crate) waiting: i64,
    /// Until the gates open that they are held by.
    #[diesel(sql_type = BigInt)]
    pub(crate) parked: i64,
    /// Seconds since the first of those that are due became so; 0: none is.
    #[diesel(sql_type = Double)]
    pub(crate) oldest_age: f64,
}

/// Looks, in a transaction of its own.
pub(crate) async fn look(connection: &mut AsyncPgConnection) -> QueryResult<Depth> {
    connection
        .transaction(async |connection| {
            connection.batch_execute(IN_ORDER).await?;
            read(connection).await
        })
        .await
}

/// Each part reads an index in its order, and no more of it than it counts. What is parked is due at its expiry, mostly behind
/// all that waits.
async fn read(connection: &mut AsyncPgConnection) -> QueryResult<Depth> {
    sql_query(
        "SELECT (SELECT count(*) FROM (
                     SELECT FROM unnest($1) AS l (lane) CROSS JOIN LATERAL (
                         SELECT FROM deliveries d WHERE d.lane = l.lane AND d.due_time <= now()
                          ORDER BY d.due_time LIMIT $2) AS found LIMIT $2) AS counted) AS due,
                (SELECT count(*) FILTER (WHERE state = 'QUEUED' AND parked_on IS NULL) FROM (
                     SELECT found.* FROM unnest($1) AS l (lane) CROSS JOIN LATERAL (
                         SELECT d.state, d.parked_on FROM deliveries d WHERE d.lane = l.lane AND d.due_time > now()
                          ORDER BY d.due_time LIMIT $2) AS found LIMIT $2) AS counted) AS waiting,
                (SELECT count(*) FROM (
                     SELECT FROM deliveries WHERE parked_on IS NOT NULL
                      ORDER BY parked_on, lane, notification_id LIMIT $2) AS counted) AS parked,
                (SELECT coalesce(extract(epoch FROM greatest(now() - min(first.due_time), interval '0')), 0)::double precision
                   FROM unnest($1) AS l (lane) CROSS JOIN LATERAL (
                       SELECT due_time FROM deliveries d WHERE d.lane = l.lane AND d.due_time <= now()
                        ORDER BY d.due_time LIMIT 1) AS first) AS oldest_age",
    )
    .bind::<Array<SmallInt>, _>(Lane::ALL.map(Lane::number).to_vec())
    .bind::<BigInt, _>(COUNT_MAX)
    .get_result(connection)
    .await
}
