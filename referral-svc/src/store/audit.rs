//! Table `audit_events`: who did what, append-only.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::seal::{EventFields, Hash};
use uuid::Uuid;

use super::{Result, schema::audit_events, sql::Sql, transaction::Transaction};

/// One record.
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = audit_events)]
pub(crate) struct AuditEvent {
    pub(crate) audit_event_id: Uuid,
    pub(crate) create_time: DateTime<Utc>,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject_id: String,
    pub(crate) outcome: String,
    pub(crate) trace_id: Uuid,
    pub(crate) request_id: Option<Uuid>,
    pub(crate) detail: String,
    /// How many notices its event asks for.
    pub(crate) notices: Option<i32>,
}

impl AuditEvent {
    /// The record's ID and hash, for the block that covers it.
    pub(crate) fn seal(&self) -> (Uuid, Hash) {
        let fields = EventFields {
            audit_event_id: self.audit_event_id,
            create_time: self.create_time,
            actor: &self.actor,
            action: &self.action,
            subject_id: &self.subject_id,
            outcome: &self.outcome,
            trace_id: self.trace_id,
            request_id: self.request_id,
            detail: &self.detail,
            notices: self.notices,
        };
        (self.audit_event_id, fields.hash())
    }
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[AuditEvent]) -> Result<()> {
    let text = |of: fn(&AuditEvent) -> &str| rows.iter().map(of).collect::<Vec<_>>();
    Sql::new(
        "INSERT INTO audit_events (audit_event_id, create_time, actor, action, subject_id, outcome, trace_id, request_id, detail,
             notices)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| row.audit_event_id).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text(|row| &row.actor))
    .bind::<Array<Text>, _>(text(|row| &row.action))
    .bind::<Array<Text>, _>(text(|row| &row.subject_id))
    .bind::<Array<Text>, _>(text(|row| &row.outcome))
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| row.trace_id).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(rows.iter().map(|row| row.request_id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text(|row| &row.detail))
    .bind::<Array<Nullable<Integer>>, _>(rows.iter().map(|row| row.notices).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// The records that there are of these.
pub(crate) async fn find(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<Vec<AuditEvent>> {
    audit_events::table
        .filter(audit_events::audit_event_id.eq_any(ids))
        .select(AuditEvent::as_select())
        .load(connection)
        .await
}

/// Which records to list; None means any.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) subject_id: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<String>,
    pub(crate) trace_id: Option<Uuid>,
    /// From here on: an ID, since they are ordered by time.
    pub(crate) from: Option<Uuid>,
}

/// Records with an ID below `before`, newest first.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    before: Uuid,
    limit: i64,
) -> Result<Vec<AuditEvent>> {
    let mut query = audit_events::table
        .filter(audit_events::audit_event_id.lt(before))
        .order(audit_events::audit_event_id.desc())
        .limit(limit)
        .select(AuditEvent::as_select())
        .into_boxed();
    if let Some(subject_id) = &filter.subject_id {
        query = query.filter(audit_events::subject_id.eq(subject_id));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(audit_events::actor.eq(actor));
    }
    if let Some(action) = &filter.action {
        query = query.filter(audit_events::action.eq(action));
    }
    if let Some(trace_id) = filter.trace_id {
        query = query.filter(audit_events::trace_id.eq(trace_id));
    }
    if let Some(from) = filter.from {
        query = query.filter(audit_events::audit_event_id.ge(from));
    }
    query.load(connection).await
}
