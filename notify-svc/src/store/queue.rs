//! The durable queue: deliveries that are due, leased to a worker under a fencing token.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    OptionalExtension, QueryResult, QueryableByName, sql_query,
    sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    channel::Choice,
    delivery::{LEASE_LOST, Outcome, Step},
    state::{DeliveryState, OutcomeClass},
};
use service::database::Connection;
use uuid::Uuid;

use super::settle::{self, Settlement};

/// A delivery to be queued, due at once.
#[derive(Clone, Debug)]
pub(crate) struct NewDelivery {
    pub(crate) notification_id: Uuid,
    pub(crate) choice: Choice,
}

/// A delivery that is due, with all that sending it takes.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct Due {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) notification_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub(crate) position: i32,
    #[diesel(sql_type = Text)]
    pub(crate) channel: String,
    #[diesel(sql_type = Text)]
    pub(crate) address: String,
    #[diesel(sql_type = Text)]
    pub(crate) state: String,
    /// Attempts begun; once claimed, the running one's number and the fencing token.
    #[diesel(sql_type = Integer)]
    pub(crate) attempt_count: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) tries_used: i32,
    /// Whether anything was ever sent, on any channel.
    #[diesel(sql_type = Bool)]
    pub(crate) attempted: bool,
    #[diesel(sql_type = Text)]
    pub(crate) recipient_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) kind: String,
    #[diesel(sql_type = Text)]
    pub(crate) locale: String,
    #[diesel(sql_type = Jsonb)]
    pub(crate) arguments: serde_json::Value,
    #[diesel(sql_type = Jsonb)]
    pub(crate) contacts: serde_json::Value,
    #[diesel(sql_type = Text)]
    pub(crate) trace_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) traceparent: String,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) create_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) expire_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) now: DateTime<Utc>,
}

/// What a claim brought.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// To be sent, each with its attempt on record.
    pub(crate) leased: Vec<Due>,
    /// Settled without a try.
    pub(crate) settled: Vec<(Due, Step)>,
}

/// Who claims, how much, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) owner: &'a str,
    pub(crate) limit: i64,
    pub(crate) lease: Duration,
}

/// Queues deliveries.
pub(super) async fn enqueue(connection: &mut AsyncPgConnection, deliveries: &[NewDelivery]) -> QueryResult<()> {
    let column = |value: fn(&NewDelivery) -> &str| deliveries.iter().map(value).collect::<Vec<_>>();
    sql_query(
        "INSERT INTO deliveries (notification_id, position, channel, address, next_attempt_time)
         SELECT d.*, now() FROM unnest($1, $2, $3, $4) AS d",
    )
    .bind::<Array<SqlUuid>, _>(deliveries.iter().map(|d| d.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(deliveries.iter().map(|d| d.choice.position).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|d| d.choice.channel.as_str()))
    .bind::<Array<Text>, _>(column(|d| &d.choice.address))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes deliveries that are due, lost leases included, in one transaction. `decide` says which are settled without a try;
/// the rest is leased, and its attempts begin.
pub(crate) async fn claim(
    connection: &mut Connection,
    terms: Terms<'_>,
    decide: impl Fn(&Due) -> Option<Step> + Send + Sync,
) -> QueryResult<Claim> {
    let decide = &decide;
    connection
        .transaction(async |connection| {
            let due = lock_due(connection, terms.limit).await?;
            close_lost(connection, &due).await?;
            let mut claim = Claim::default();
            for delivery in due {
                match decide(&delivery) {
                    Some(step) => claim.settled.push((delivery, step)),
                    None => claim.leased.push(delivery),
                }
            }
            let settlements: Vec<_> = claim.settled.iter().map(|(due, step)| Settlement::untried(due, step)).collect();
            settle::apply(connection, &settlements).await?;
            lease(connection, terms, &mut claim.leased).await?;
            Ok(claim)
        })
        .await
}

async fn lock_due(connection: &mut AsyncPgConnection, limit: i64) -> QueryResult<Vec<Due>> {
    sql_query(
        "SELECT d.notification_id, d.position, d.channel, d.address, d.state, d.attempt_count, d.tries_used,
                EXISTS (SELECT FROM attempts a WHERE a.notification_id = d.notification_id) AS attempted,
                n.recipient_id, n.kind, n.locale, n.arguments, n.contacts, n.trace_id, n.traceparent,
                n.create_time, n.expire_time, now() AS now
           FROM deliveries d JOIN notifications n USING (notification_id)
          WHERE d.due_time <= now()
          ORDER BY d.due_time
          LIMIT $1
            FOR UPDATE OF d SKIP LOCKED",
    )
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}

/// Attempts whose worker let the lease run out may have arrived: on record as ambiguous.
async fn close_lost(connection: &mut AsyncPgConnection, due: &[Due]) -> QueryResult<()> {
    let outcome = Outcome::new(OutcomeClass::Ambiguous, LEASE_LOST);
    let lost: Vec<_> = due
        .iter()
        .filter(|delivery| delivery.state == DeliveryState::Sending.as_str())
        .map(|delivery| (delivery.held(), &outcome))
        .collect();
    settle::close_attempts(connection, &lost).await
}

async fn lease(connection: &mut AsyncPgConnection, terms: Terms<'_>, due: &mut [Due]) -> QueryResult<()> {
    if due.is_empty() {
        return Ok(());
    }
    for delivery in due.iter_mut() {
        delivery.attempt_count += 1;
        delivery.tries_used += 1;
    }
    let lease = TimeDelta::from_std(terms.lease).unwrap_or(TimeDelta::MAX);
    sql_query(
        "WITH leased AS (
             UPDATE deliveries d
                SET state = 'SENDING', next_attempt_time = NULL, lease_until = now() + $4, lease_owner = $5,
                    attempt_count = attempt_count + 1, tries_used = tries_used + 1
               FROM unnest($1, $2, $3) AS c (notification_id, position, trace_id)
              WHERE (d.notification_id, d.position) = (c.notification_id, c.position)
          RETURNING d.notification_id, d.position, d.attempt_count, c.trace_id)
         INSERT INTO attempts (notification_id, position, number, start_time, trace_id)
         SELECT notification_id, position, attempt_count, now(), trace_id FROM leased",
    )
    .bind::<Array<SqlUuid>, _>(due.iter().map(|d| d.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(due.iter().map(|d| d.position).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(due.iter().map(|d| d.trace_id.as_str()).collect::<Vec<_>>())
    .bind::<diesel::sql_types::Interval, _>(lease)
    .bind::<Text, _>(terms.owner)
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts off the first delivery that is due, found as a claim of one finds it.
pub(crate) async fn put_off(connection: &mut Connection, pause: Duration) -> QueryResult<Option<Uuid>> {
    #[derive(QueryableByName)]
    struct PutOff {
        #[diesel(sql_type = SqlUuid)]
        notification_id: Uuid,
    }
    let put_off: Option<PutOff> = sql_query(
        "WITH first AS (
             SELECT d.notification_id, d.position
               FROM deliveries d JOIN notifications n USING (notification_id)
              WHERE d.due_time <= now()
              ORDER BY d.due_time
              LIMIT 1
                FOR UPDATE OF d SKIP LOCKED)
         UPDATE deliveries d
            SET next_attempt_time = CASE d.state WHEN 'QUEUED' THEN now() + $1 END,
                lease_until = CASE d.state WHEN 'SENDING' THEN now() + $1 END
           FROM first
          WHERE (d.notification_id, d.position) = (first.notification_id, first.position)
      RETURNING d.notification_id",
    )
    .bind::<diesel::sql_types::Interval, _>(TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX))
    .get_result(connection)
    .await
    .optional()?;
    Ok(put_off.map(|put_off| put_off.notification_id))
}

/// How long until the queue has to be looked at again; `None`: nothing waits.
pub(crate) async fn next_due(connection: &mut Connection) -> QueryResult<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        due_time: Option<DateTime<Utc>>,
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
    }
    let next: Option<Next> =
        sql_query("SELECT min(due_time) AS due_time, now() AS now FROM deliveries WHERE due_time IS NOT NULL")
            .get_result(connection)
            .await
            .optional()?;
    Ok(next.and_then(|next| Some((next.due_time? - next.now).to_std().unwrap_or_default())))
}
