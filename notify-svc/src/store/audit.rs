//! Table `audit_events`: who did what, append-only.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, QueryDsl, QueryResult, Queryable, Selectable, SelectableHelper, insert_into,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service::call::CallContext;
use uuid::Uuid;

use super::{clock, schema::audit_events};

/// How something ended that was done.
pub(crate) const OK: &str = "OK";

/// One record.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_events)]
pub(crate) struct AuditEvent {
    pub(crate) audit_event_id: Uuid,
    pub(crate) create_time: DateTime<Utc>,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject_id: String,
    pub(crate) outcome: String,
    pub(crate) trace_id: String,
    pub(crate) request_id: String,
    pub(crate) detail: String,
}

impl AuditEvent {
    /// What a call did at a time: it went well, and there is nothing else to say.
    pub(crate) fn of_call(call: &CallContext, action: &str, subject_id: &str, now: DateTime<Utc>) -> Self {
        Self {
            audit_event_id: clock::id_at(now),
            create_time: now,
            actor: call.caller.clone(),
            action: action.to_owned(),
            subject_id: subject_id.to_owned(),
            outcome: OK.to_owned(),
            trace_id: call.trace_id.clone(),
            request_id: String::new(),
            detail: String::new(),
        }
    }
}

/// Which records to list; `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) subject_id: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// Writes one record, in the transaction of what it tells of.
pub(crate) async fn insert(connection: &mut AsyncPgConnection, event: &AuditEvent) -> QueryResult<()> {
    insert_into(audit_events::table).values(event).execute(connection).await?;
    Ok(())
}

/// Up to `limit` records, newest first, older than `before`.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<AuditEvent>> {
    let mut query = audit_events::table.into_boxed();
    if let Some(before) = before {
        query = query.filter(audit_events::audit_event_id.lt(before));
    }
    if let Some(subject_id) = &filter.subject_id {
        query = query.filter(audit_events::subject_id.eq(subject_id));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(audit_events::actor.eq(actor));
    }
    if let Some(action) = &filter.action {
        query = query.filter(audit_events::action.eq(action));
    }
    if let Some(trace_id) = &filter.trace_id {
        query = query.filter(audit_events::trace_id.eq(trace_id));
    }
    query.order(audit_events::audit_event_id.desc()).limit(limit).select(AuditEvent::as_select()).load(connection).await
}
