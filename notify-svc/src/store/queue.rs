//! The durable queue: deliveries in, leases renewed, poison put off, and when to look again. `claim` takes them out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    OptionalExtension, QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Integer, Interval, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::{channel::Choice, lane::Lane};
use service::database::Connection;
use uuid::Uuid;

use super::due::Held;

/// A delivery to be queued, due at once.
#[derive(Clone, Debug)]
pub(crate) struct NewDelivery {
    pub(crate) notification_id: Uuid,
    /// The contact's place, as versions before have it; more if the deliveries before it have got so far.
    pub(crate) position: i32,
    /// A lane's number.
    pub(crate) lane: i16,
    pub(crate) choice: Choice,
}

/// Queues deliveries.
pub(super) async fn enqueue(connection: &mut AsyncPgConnection, deliveries: &[NewDelivery]) -> QueryResult<()> {
    let column = |value: fn(&NewDelivery) -> &str| deliveries.iter().map(value).collect::<Vec<_>>();
    sql_query(
        "INSERT INTO deliveries (notification_id, position, lane, contact_place, channel, address, next_attempt_time)
         SELECT d.*, now() FROM unnest($1, $2, $3, $4, $5, $6) AS d",
    )
    .bind::<Array<SqlUuid>, _>(deliveries.iter().map(|d| d.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(deliveries.iter().map(|d| d.position).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(deliveries.iter().map(|d| d.lane).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(deliveries.iter().map(|d| d.choice.place).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|d| d.choice.channel.as_str()))
    .bind::<Array<Text>, _>(column(|d| &d.choice.address))
    .execute(connection)
    .await?;
    Ok(())
}

/// Renews leases. Returns those that are still held: the others were taken over, or cancelled.
pub(crate) async fn renew(connection: &mut Connection, held: &[Held], lease: Duration) -> QueryResult<Vec<Held>> {
    sql_query(
        "UPDATE deliveries d SET lease_until = now() + $4
           FROM unnest($1, $2, $3) AS h (notification_id, position, token)
          WHERE (d.notification_id, d.position, d.attempt_count) = (h.notification_id, h.position, h.token)
            AND d.state = 'SENDING'
      RETURNING d.notification_id, d.position, d.attempt_count AS token",
    )
    .bind::<Array<SqlUuid>, _>(held.iter().map(|held| held.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(held.iter().map(|held| held.position).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(held.iter().map(|held| held.token).collect::<Vec<_>>())
    .bind::<Interval, _>(interval(lease))
    .load(connection)
    .await
}

/// Puts off a delivery that can't even be claimed; its trace.
pub(crate) async fn put_off(
    connection: &mut Connection,
    notification_id: Uuid,
    position: i32,
    pause: Duration,
) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct PutOff {
        #[diesel(sql_type = Text)]
        trace_id: String,
    }
    let put_off: Option<PutOff> = sql_query(
        "UPDATE deliveries d
            SET next_attempt_time = CASE state WHEN 'QUEUED' THEN now() + $3 END,
                lease_until = CASE state WHEN 'SENDING' THEN now() + $3 END, parked_on = NULL, waiting_since = NULL
          WHERE (notification_id, position) = ($1, $2) AND (due_time <= now() OR parked_on IS NOT NULL)
      RETURNING (SELECT trace_id FROM notifications n WHERE n.notification_id = d.notification_id)",
    )
    .bind::<SqlUuid, _>(notification_id)
    .bind::<Integer, _>(position)
    .bind::<Interval, _>(interval(pause))
    .get_result(connection)
    .await
    .optional()?;
    Ok(put_off.map(|put_off| put_off.trace_id))
}

/// How long until the queue has to be looked at again: something becomes due, or a gate that somebody waits for opens, those
/// in `but` excepted. `None`: nothing waits.
pub(crate) async fn next_due(connection: &mut Connection, but: &[&str]) -> QueryResult<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        due_time: Option<DateTime<Utc>>,
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
    }
    // The first of each lane by itself: the index has them in this order.
    let next: Next = sql_query(
        "SELECT now() AS now, least(
             (SELECT min(first.due_time) FROM unnest($1) AS l (lane) CROSS JOIN LATERAL (
                  SELECT due_time FROM deliveries d WHERE d.lane = l.lane AND due_time IS NOT NULL
                   ORDER BY due_time LIMIT 1) AS first),
             (SELECT min(open_time) FROM gates WHERE waiting AND gate <> ALL ($2))) AS due_time",
    )
    .bind::<Array<SmallInt>, _>(Lane::ALL.map(Lane::number).to_vec())
    .bind::<Array<Text>, _>(but)
    .get_result(connection)
    .await?;
    Ok(next.due_time.map(|due_time| (due_time - next.now).to_std().unwrap_or_default()))
}

pub(super) fn interval(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
