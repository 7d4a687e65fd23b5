//! Queueing notifications again that ended without delivery, step by step: a step and its record are one transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Integer, Jsonb, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    channel::{self, Channels, Choice},
    event::Contact,
    state::DeliveryState,
};
use service::database::Connection;
use uuid::Uuid;

use super::{
    audit::{self, AuditEvent},
    clock,
    feed::{self, Change},
    jobs::{self, Job},
    notifications::Filter,
    schema::notifications,
};

/// The name under which a job stands in the audit record.
pub(crate) const ACTION: &str = "RedriveNotifications";
/// Steps per second; slower jobs take one notification a step.
const STEPS_PER_SECOND: i32 = 5;

/// What a step has done.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) job: Job,
    pub(crate) queued: usize,
    /// Whether that was the last.
    pub(crate) ended: bool,
}

/// Takes the next step of a job that is due; `None`: none is, or others hold it.
pub(crate) async fn step(connection: &mut Connection, channels: &Channels) -> QueryResult<Option<Taken>> {
    connection
        .transaction(async |connection| {
            let Some(job) = jobs::lock_due(connection).await? else {
                return Ok(None);
            };
            // Whoever understands it goes on with it: a newer instance put it there.
            let filter = job.filter().ok_or(diesel::result::Error::NotFound)?;
            Ok(Some(take(connection, job, &filter, channels).await?))
        })
        .await
}

async fn take(
    connection: &mut AsyncPgConnection,
    job: Job,
    filter: &Filter,
    channels: &Channels,
) -> QueryResult<Taken> {
    let limit = (job.per_second / STEPS_PER_SECOND).max(1);
    let ids = next(connection, &job, filter, limit).await?;
    let ended = i32::try_from(ids.len()).is_ok_and(|found| found < limit);
    let requeued = requeue(connection, &ids, &job, channels).await?;
    let pause = Duration::from_secs(1) * u32::try_from(limit).unwrap_or(1) / u32::try_from(job.per_second).unwrap_or(1);
    let done = i64::try_from(requeued.len()).unwrap_or(i64::MAX);
    jobs::advance(connection, job.job_id, done, ids.last().copied(), pause).await?;
    if !requeued.is_empty() {
        let changes: Vec<Change> = requeued.into_iter().map(|(one, choice)| one.change(&choice)).collect();
        feed::tell(connection, &changes).await?;
        feed::wake(connection).await?;
    }
    let job = if ended { finish(connection, job.job_id).await? } else { job };
    Ok(Taken { job, queued: usize::try_from(done).unwrap_or_default(), ended })
}

/// The next notifications by ID, of those that had ended when the job began: what ends again is not taken twice.
async fn next(connection: &mut AsyncPgConnection, job: &Job, filter: &Filter, limit: i32) -> QueryResult<Vec<Uuid>> {
    filter
        .matching()
        .filter(notifications::notification_id.gt(job.progress.unwrap_or_default()))
        .filter(notifications::settle_time.lt(job.create_time))
        .order(notifications::notification_id)
        .limit(limit.into())
        .select(notifications::notification_id)
        .load(connection)
        .await
}

#[derive(QueryableByName)]
struct Requeued {
    #[diesel(sql_type = SqlUuid)]
    notification_id: Uuid,
    #[diesel(sql_type = Text)]
    recipient_id: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    trace_id: String,
    #[diesel(sql_type = Jsonb)]
    contacts: serde_json::Value,
    /// Of its last delivery.
    #[diesel(sql_type = Integer)]
    position: i32,
    #[diesel(sql_type = SmallInt)]
    lane: i16,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// Queues those of them again that nobody else has queued meanwhile.
async fn requeue(
    connection: &mut AsyncPgConnection,
    ids: &[Uuid],
    job: &Job,
    channels: &Channels,
) -> QueryResult<Vec<(Requeued, Choice)>> {
    sql_query("SELECT FROM notifications WHERE notification_id = ANY ($1) ORDER BY notification_id FOR UPDATE")
        .bind::<Array<SqlUuid>, _>(ids)
        .execute(connection)
        .await?;
    let requeued: Vec<Requeued> = sql_query(
        "UPDATE notifications n
            SET state = 'QUEUED', settle_time = NULL, expire_time = greatest(n.expire_time, now() + interval '7 days')
           FROM (SELECT DISTINCT ON (notification_id) notification_id, position, lane FROM deliveries
                  WHERE notification_id = ANY ($1) ORDER BY notification_id, position DESC) AS last
          WHERE n.notification_id = last.notification_id
            AND n.settle_time < $2 AND n.state IN ('DEAD', 'EXPIRED', 'CANCELLED')
      RETURNING n.notification_id, n.recipient_id, n.kind, n.trace_id, n.contacts, last.position, last.lane,
                now() AS now",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Timestamptz, _>(job.create_time)
    .load(connection)
    .await?;
    let choices: Vec<Choice> = requeued
        .iter()
        .map(|one| {
            let contacts: Vec<Contact> = serde_json::from_value(one.contacts.clone()).unwrap_or_default();
            channel::first(&contacts, channels)
        })
        .collect();
    sql_query(
        "INSERT INTO deliveries (notification_id, position, contact_place, channel, address, lane, next_attempt_time)
         SELECT d.*, now() FROM unnest($1, $2, $3, $4, $5, $6) AS d",
    )
    .bind::<Array<SqlUuid>, _>(requeued.iter().map(|one| one.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(requeued.iter().map(|one| one.position.saturating_add(1)).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(choices.iter().map(|choice| choice.place).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(choices.iter().map(|choice| choice.channel.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(choices.iter().map(|choice| choice.address.as_str()).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(requeued.iter().map(|one| one.lane).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(requeued.into_iter().zip(choices).collect())
}

impl Requeued {
    fn change(self, choice: &Choice) -> Change {
        Change {
            notification_id: self.notification_id,
            recipient_id: self.recipient_id,
            kind: self.kind,
            channel: choice.channel.as_str().to_owned(),
            state: DeliveryState::Queued.as_str().to_owned(),
            reason: String::new(),
            attempt: 0,
            trace_id: self.trace_id,
            change_time: self.now,
        }
    }
}

async fn finish(connection: &mut AsyncPgConnection, job_id: Uuid) -> QueryResult<Job> {
    let job = jobs::end(connection, job_id, jobs::DONE).await?;
    let now = clock::now(connection).await?;
    let event = AuditEvent {
        audit_event_id: clock::id_at(now),
        create_time: now,
        actor: job.caller.clone(),
        action: ACTION.to_owned(),
        subject_id: job_id.to_string(),
        outcome: audit::OK.to_owned(),
        trace_id: job.trace_id.clone(),
        request_id: String::new(),
        detail: format!("ended: {} of {} queued again", job.done, job.matched),
    };
    audit::insert(connection, &event).await?;
    Ok(job)
}

/// How many match now.
pub(crate) async fn count(connection: &mut AsyncPgConnection, filter: &Filter) -> QueryResult<i64> {
    filter.matching().count().get_result(connection).await
}
