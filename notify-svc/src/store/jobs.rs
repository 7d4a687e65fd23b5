//! Table `jobs`: what takes a while and is done whatever is restarted meanwhile.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable, QueryableByName, Selectable,
    SelectableHelper, dsl, insert_into, sql_query,
    sql_types::{BigInt, Interval, Nullable, Text, Timestamptz, Uuid as SqlUuid},
    update,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::{channel::Channel, kind::Kind, state::NotificationState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{notifications::Filter, schema::jobs};

/// The only kind there is.
const REDRIVE: &str = "REDRIVE";
/// Under way.
pub(crate) const RUNNING: &str = "RUNNING";
/// It has dealt with everything.
pub(crate) const DONE: &str = "DONE";
/// An operator stopped it.
pub(crate) const CANCELLED: &str = "CANCELLED";

/// A job.
#[derive(Clone, Debug, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = jobs)]
pub(crate) struct Job {
    pub(crate) job_id: Uuid,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) filter: serde_json::Value,
    pub(crate) per_second: i32,
    pub(crate) matched: i64,
    pub(crate) done: i64,
    pub(crate) progress: Option<Uuid>,
    pub(crate) caller: String,
    pub(crate) reason: String,
    pub(crate) trace_id: String,
    pub(crate) create_time: DateTime<Utc>,
    pub(crate) end_time: Option<DateTime<Utc>>,
}

/// A job in the making, due at once.
#[derive(Clone, Debug)]
pub(crate) struct NewJob<'a> {
    pub(crate) job_id: Uuid,
    pub(crate) filter: &'a Filter,
    pub(crate) per_second: i32,
    pub(crate) matched: i64,
    pub(crate) caller: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) trace_id: &'a str,
}

/// A filter as it is stored, everything by name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    recipient_id: Option<String>,
    state: Option<String>,
    trace_id: Option<String>,
    source_event_id: Option<Uuid>,
    kind: Option<String>,
    channel: Option<String>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
}

fn to_json(filter: &Filter) -> serde_json::Value {
    let name = |name: &str| name.to_owned();
    serde_json::json!(Stored {
        recipient_id: filter.recipient_id.clone(),
        state: filter.state.map(|state| name(state.as_str())),
        trace_id: filter.trace_id.clone(),
        source_event_id: filter.source_event_id,
        kind: filter.kind.map(|kind| name(kind.as_str())),
        channel: filter.channel.map(|channel| name(channel.as_str())),
        start_time: filter.start_time,
        end_time: filter.end_time,
    })
}

impl Job {
    /// What it is about; `None`: something that only newer versions understand.
    pub(super) fn filter(&self) -> Option<Filter> {
        fn known<T>(name: Option<String>, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
            name.map_or(Some(None), |name| parse(&name).map(Some))
        }
        let stored = Stored::deserialize(&self.filter).ok()?;
        Some(Filter {
            recipient_id: stored.recipient_id,
            state: known(stored.state, NotificationState::parse)?,
            trace_id: stored.trace_id,
            source_event_id: stored.source_event_id,
            kind: known(stored.kind, Kind::parse)?,
            channel: known(stored.channel, Channel::parse)?,
            start_time: stored.start_time,
            end_time: stored.end_time,
        })
    }
}

/// Keeps a new job.
pub(crate) async fn insert(connection: &mut AsyncPgConnection, job: &NewJob<'_>) -> QueryResult<Job> {
    insert_into(jobs::table)
        .values((
            jobs::job_id.eq(job.job_id),
            jobs::kind.eq(REDRIVE),
            jobs::filter.eq(to_json(job.filter)),
            jobs::per_second.eq(job.per_second),
            jobs::matched.eq(job.matched),
            jobs::next_step_time.eq(dsl::now),
            jobs::caller.eq(job.caller),
            jobs::reason.eq(job.reason),
            jobs::trace_id.eq(job.trace_id),
        ))
        .returning(Job::as_returning())
        .get_result(connection)
        .await
}

/// One job.
pub(crate) async fn get(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Job>> {
    jobs::table.find(id).select(Job::as_select()).first(connection).await.optional()
}

/// Up to `limit` jobs, newest first, older than `before`.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<Job>> {
    let mut query = jobs::table.into_boxed();
    if let Some(state) = state {
        query = query.filter(jobs::state.eq(state));
    }
    if let Some(before) = before {
        query = query.filter(jobs::job_id.lt(before));
    }
    query.order(jobs::job_id.desc()).limit(limit).select(Job::as_select()).load(connection).await
}

/// One job, locked: nobody takes a step of it meanwhile.
pub(crate) async fn lock(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Job>> {
    jobs::table.find(id).select(Job::as_select()).for_update().first(connection).await.optional()
}

/// A job whose next step is due and that nobody else holds, locked.
pub(super) async fn lock_due(connection: &mut AsyncPgConnection) -> QueryResult<Option<Job>> {
    jobs::table
        .filter(jobs::state.eq(RUNNING))
        .filter(jobs::next_step_time.le(dsl::now))
        .order(jobs::next_step_time)
        .select(Job::as_select())
        .for_update()
        .skip_locked()
        .first(connection)
        .await
        .optional()
}

/// How long until a step is due; `None`: no job runs.
pub(crate) async fn next_due(connection: &mut AsyncPgConnection) -> QueryResult<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        at: Option<DateTime<Utc>>,
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
    }
    let next: Next =
        sql_query("SELECT min(next_step_time) AS at, clock_timestamp() AS now FROM jobs WHERE state = 'RUNNING'")
            .get_result(connection)
            .await?;
    Ok(next.at.map(|at| (at - next.now).to_std().unwrap_or_default()))
}

/// Records a step of a locked job: `done` more, up to `progress`; the next is due after `pause`.
pub(super) async fn advance(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    done: i64,
    progress: Option<Uuid>,
    pause: Duration,
) -> QueryResult<()> {
    sql_query(
        "UPDATE jobs SET done = done + $2, progress = coalesce($3, progress), next_step_time = now() + $4
          WHERE job_id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<BigInt, _>(done)
    .bind::<Nullable<SqlUuid>, _>(progress)
    .bind::<Interval, _>(TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a locked job in a state.
pub(crate) async fn end(connection: &mut AsyncPgConnection, id: Uuid, state: &str) -> QueryResult<Job> {
    update(jobs::table.find(id))
        .set((jobs::state.eq(state), jobs::next_step_time.eq(None::<DateTime<Utc>>), jobs::end_time.eq(dsl::now)))
        .returning(Job::as_returning())
        .get_result(connection)
        .await
}

/// Puts off the first job that is due: a step of it can't be taken.
pub(crate) async fn put_off(connection: &mut AsyncPgConnection, pause: Duration) -> QueryResult<()> {
    sql_query(
        "UPDATE jobs SET next_step_time = now() + $1
          WHERE job_id = (SELECT job_id FROM jobs WHERE state = $2 AND next_step_time <= now()
                           ORDER BY next_step_time LIMIT 1 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<Interval, _>(TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX))
    .bind::<Text, _>(RUNNING)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_stored_by_name_and_what_is_unknown_is_not_taken_for_any() {
        let filter = Filter {
            recipient_id: Some("ada".to_owned()),
            state: Some(NotificationState::Dead),
            trace_id: Some("0".repeat(32)),
            source_event_id: Some(Uuid::from_u128(7)),
            kind: Some(Kind::LevelUp),
            channel: Some(Channel::Email),
            start_time: Some(DateTime::UNIX_EPOCH),
            end_time: None,
        };
        let job = |filter| Job {
            job_id: Uuid::nil(),
            kind: REDRIVE.to_owned(),
            state: RUNNING.to_owned(),
            filter,
            per_second: 1,
            matched: 0,
            done: 0,
            progress: None,
            caller: String::new(),
            reason: String::new(),
            trace_id: String::new(),
            create_time: DateTime::UNIX_EPOCH,
            end_time: None,
        };
        assert_eq!(job(to_json(&filter)).filter(), Some(filter));
        assert_eq!(job(to_json(&Filter::default())).filter(), Some(Filter::default()));
        for unknown in [serde_json::json!({"kind": "TELEPATHY"}), serde_json::json!({"mood": "sad"})] {
            assert_eq!(job(unknown).filter(), None);
        }
    }
}
