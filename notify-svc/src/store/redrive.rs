//! Queueing notifications again that ended without delivery, step by step: a step and its record are one transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Bool, Integer, Jsonb, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    channel::{self, Choice},
    event::Contact,
    kind::Kind,
    state::DeliveryState,
};
use service::database::Connection;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    audit::{self, AuditEvent},
    clock,
    feed::{self, Change},
    inbox::Rules,
    jobs::{self, Job},
    notifications::Filter,
    queue::{self, NewDelivery},
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
pub(crate) async fn step(connection: &mut Connection, rules: &Rules) -> QueryResult<Option<Taken>> {
    connection
        .transaction(async |connection| {
            let Some(job) = jobs::lock_due(connection).await? else {
                return Ok(None);
            };
            // Whoever understands it goes on with it: a newer instance put it there.
            let filter = job.filter().ok_or(diesel::result::Error::NotFound)?;
            // Under the trace of whoever asked for it.
            let span = tracing::info_span!(parent: None, "redrive", job_id = %job.job_id, trace_id = job.trace_id);
            Ok(Some(take(connection, job, &filter, rules).instrument(span).await?))
        })
        .await
}

async fn take(connection: &mut AsyncPgConnection, job: Job, filter: &Filter, rules: &Rules) -> QueryResult<Taken> {
    let limit = (job.per_second / STEPS_PER_SECOND).max(1);
    let ids = next(connection, &job, filter, limit).await?;
    let ended = i32::try_from(ids.len()).is_ok_and(|found| found < limit);
    let ended_ones = lock_ended(connection, &ids, &job).await?;
    // Those that no channel is left for are dealt with too: they stay as they are.
    let done = i64::try_from(ended_ones.len()).unwrap_or(i64::MAX);
    let again: Vec<(Ended, Choice)> =
        ended_ones.into_iter().filter_map(|one| one.choice(rules).map(|choice| (one, choice))).collect();
    let queued = again.len();
    let pause = Duration::from_secs(1) * u32::try_from(limit).unwrap_or(1) / u32::try_from(job.per_second).unwrap_or(1);
    jobs::advance(connection, job.job_id, done, ids.last().copied(), pause).await?;
    if !again.is_empty() {
        requeue(connection, &again, rules).await?;
        let changes: Vec<Change> = again.into_iter().map(|(one, choice)| one.change(&choice)).collect();
        feed::tell(connection, &changes).await?;
        feed::wake(connection).await?;
    }
    let job = if ended { finish(connection, job.job_id).await? } else { job };
    Ok(Taken { job, queued, ended })
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

/// One that ended without delivery.
#[derive(QueryableByName)]
struct Ended {
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
    #[diesel(sql_type = Timestamptz)]
    expire_time: DateTime<Utc>,
    /// Whether anything was ever sent, on any channel.
    #[diesel(sql_type = Bool)]
    attempted: bool,
    /// Of its last delivery.
    #[diesel(sql_type = Integer)]
    position: i32,
    #[diesel(sql_type = SmallInt)]
    lane: i16,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// Locks them, those excepted that somebody else has queued meanwhile.
async fn lock_ended(connection: &mut AsyncPgConnection, ids: &[Uuid], job: &Job) -> QueryResult<Vec<Ended>> {
    sql_query("SELECT FROM notifications WHERE notification_id = ANY ($1) ORDER BY notification_id FOR UPDATE")
        .bind::<Array<SqlUuid>, _>(ids)
        .execute(connection)
        .await?;
    sql_query(
        "SELECT n.notification_id, n.recipient_id, n.kind, n.trace_id, n.contacts, n.expire_time,
                EXISTS (SELECT FROM attempts a WHERE a.notification_id = n.notification_id) AS attempted,
                last.position, last.lane, now() AS now
           FROM notifications n
           JOIN LATERAL (SELECT position, lane FROM deliveries d WHERE d.notification_id = n.notification_id
                          ORDER BY position DESC LIMIT 1) AS last ON true
          WHERE n.notification_id = ANY ($1) AND n.settle_time < $2 AND n.state IN ('DEAD', 'EXPIRED', 'CANCELLED')
          ORDER BY n.notification_id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Timestamptz, _>(job.create_time)
    .load(connection)
    .await
}

/// Queues them again, each with as much time as one of its kind gets.
async fn requeue(connection: &mut AsyncPgConnection, again: &[(Ended, Choice)], rules: &Rules) -> QueryResult<()> {
    sql_query(
        "UPDATE notifications n SET state = 'QUEUED', settle_time = NULL, expire_time = a.expire_time
           FROM unnest($1, $2) AS a (notification_id, expire_time)
          WHERE n.notification_id = a.notification_id",
    )
    .bind::<Array<SqlUuid>, _>(again.iter().map(|(one, _)| one.notification_id).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(again.iter().map(|(one, _)| one.new_expiry(rules)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    let deliveries: Vec<NewDelivery> = again.iter().map(|(one, choice)| one.delivery(choice)).collect();
    queue::enqueue(connection, &deliveries).await
}

impl Ended {
    /// Where it goes; `None`: nowhere. `log` is for those who couldn't be reached otherwise from the start, not for what has
    /// failed.
    fn choice(&self, rules: &Rules) -> Option<Choice> {
        let contacts: Vec<Contact> = serde_json::from_value(self.contacts.clone()).unwrap_or_default();
        channel::after(&contacts, 0, |channel| rules.channels.is_on(channel))
            .or_else(|| (!self.attempted).then(|| channel::log(&contacts)))
    }

    fn new_expiry(&self, rules: &Rules) -> DateTime<Utc> {
        let lifetime = rules.policy.terms(Kind::parse(&self.kind)).lifetime;
        self.expire_time.max(self.now + lifetime)
    }

    fn delivery(&self, choice: &Choice) -> NewDelivery {
        NewDelivery {
            notification_id: self.notification_id,
            position: self.position.saturating_add(1).max(choice.place),
            lane: self.lane,
            choice: choice.clone(),
        }
    }

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
        detail: format!("ended: {} of {} dealt with", job.done, job.matched),
    };
    audit::insert(connection, &event).await?;
    Ok(job)
}

/// How many match now.
pub(crate) async fn count(connection: &mut AsyncPgConnection, filter: &Filter) -> QueryResult<i64> {
    filter.matching().count().get_result(connection).await
}
