//! Reading notifications with their deliveries and attempts.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable, Selectable,
    SelectableHelper,
    dsl::{count_star, exists, not},
    pg::Pg,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    channel::Channel,
    kind::Kind,
    state::{DeliveryState, NotificationState},
};
use uuid::Uuid;

use super::{
    clock,
    schema::{attempts, deliveries, notifications},
};

/// A notification without what is only needed to send it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = notifications)]
pub(crate) struct NotificationRow {
    pub(crate) notification_id: Uuid,
    pub(crate) producer: String,
    pub(crate) source_event_id: Uuid,
    pub(crate) recipient_id: String,
    pub(crate) kind: String,
    pub(crate) locale: String,
    pub(crate) state: String,
    pub(crate) trace_id: String,
    pub(crate) create_time: DateTime<Utc>,
    pub(crate) expire_time: DateTime<Utc>,
    pub(crate) settle_time: Option<DateTime<Utc>>,
}

/// A delivery.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = deliveries)]
pub(crate) struct DeliveryRow {
    pub(crate) notification_id: Uuid,
    pub(crate) position: i32,
    pub(crate) channel: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) next_attempt_time: Option<DateTime<Utc>>,
    pub(crate) parked_on: Option<String>,
    pub(crate) waiting_since: Option<DateTime<Utc>>,
}

/// An attempt.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = attempts)]
pub(crate) struct AttemptRow {
    pub(crate) notification_id: Uuid,
    pub(crate) position: i32,
    pub(crate) number: i32,
    pub(crate) start_time: DateTime<Utc>,
    pub(crate) end_time: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<String>,
    pub(crate) reason: String,
    pub(crate) trace_id: String,
}

/// A notification with everything that was tried, in order.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) notification: NotificationRow,
    pub(crate) deliveries: Vec<(DeliveryRow, Vec<AttemptRow>)>,
}

/// Which notifications are meant; `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) recipient_id: Option<String>,
    pub(crate) state: Option<NotificationState>,
    pub(crate) trace_id: Option<String>,
    pub(crate) source_event_id: Option<Uuid>,
    pub(crate) kind: Option<Kind>,
    /// With a delivery over it, whatever its state.
    pub(crate) channel: Option<Channel>,
    /// Taken in then or later.
    pub(crate) start_time: Option<DateTime<Utc>>,
    /// Taken in before.
    pub(crate) end_time: Option<DateTime<Utc>>,
}

/// A query narrowed to what a filter means. A macro, since boxed queries that group have another type than those that don't.
macro_rules! narrowed {
    ($query:expr, $filter:expr) => {{
        let (mut query, filter): (_, &Filter) = ($query.into_boxed(), $filter);
        if let Some(recipient_id) = &filter.recipient_id {
            query = query.filter(notifications::recipient_id.eq(recipient_id));
        }
        if let Some(trace_id) = &filter.trace_id {
            query = query.filter(notifications::trace_id.eq(trace_id));
        }
        if let Some(event_id) = filter.source_event_id {
            query = query.filter(notifications::source_event_id.eq(event_id));
        }
        if let Some(kind) = filter.kind {
            query = query.filter(notifications::kind.eq(kind.as_str()));
        }
        if let Some(channel) = filter.channel {
            query = query.filter(exists(
                deliveries::table
                    .filter(deliveries::notification_id.eq(notifications::notification_id))
                    .filter(deliveries::channel.eq(channel.as_str())),
            ));
        }
        // IDs are in the order of arrival, to the millisecond: they find the place, the time itself decides.
        if let Some(start) = filter.start_time {
            query = query.filter(notifications::notification_id.ge(clock::first_id_at(start)));
            query = query.filter(notifications::create_time.ge(start));
        }
        if let Some(end) = filter.end_time {
            let next_millisecond = end.checked_add_signed(TimeDelta::milliseconds(1)).unwrap_or(end);
            query = query.filter(notifications::notification_id.lt(clock::first_id_at(next_millisecond)));
            query = query.filter(notifications::create_time.lt(end));
        }
        let held = || {
            exists(
                deliveries::table
                    .filter(deliveries::notification_id.eq(notifications::notification_id))
                    .filter(deliveries::state.eq(DeliveryState::Sending.as_str())),
            )
        };
        match filter.state {
            None => query,
            Some(NotificationState::Queued) => query.filter(notifications::settle_time.is_null().and(not(held()))),
            Some(NotificationState::Sending) => query.filter(notifications::settle_time.is_null().and(held())),
            Some(state) => query.filter(notifications::state.eq(state.as_str())),
        }
    }};
}

impl Filter {
    /// The notifications that match.
    pub(super) fn matching(&self) -> notifications::BoxedQuery<'_, Pg> {
        narrowed!(notifications::table, self)
    }
}

/// One notification.
pub(crate) async fn get(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<History>> {
    connection
        .build_transaction()
        .repeatable_read()
        .read_only()
        .run(async |connection| read(connection, id).await)
        .await
}

/// One notification, as the open transaction sees it.
pub(super) async fn read(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<History>> {
    let row: Option<NotificationRow> =
        notifications::table.find(id).select(NotificationRow::as_select()).first(connection).await.optional()?;
    Ok(with_history(connection, row.into_iter().collect()).await?.pop())
}

/// Up to `limit` notifications, newest first, older than `before`.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<History>> {
    // One snapshot, so that a notification and its deliveries tell the same story.
    connection
        .build_transaction()
        .repeatable_read()
        .read_only()
        .run(async |connection| {
            let mut query = filter.matching();
            if let Some(before) = before {
                query = query.filter(notifications::notification_id.lt(before));
            }
            let rows = query
                .order(notifications::notification_id.desc())
                .limit(limit)
                .select(NotificationRow::as_select())
                .load(connection)
                .await?;
            with_history(connection, rows).await
        })
        .await
}

/// How many match, by stored state.
pub(crate) async fn count(connection: &mut AsyncPgConnection, filter: &Filter) -> QueryResult<Vec<(String, i64)>> {
    let counts = notifications::table.group_by(notifications::state).select((notifications::state, count_star()));
    narrowed!(counts, filter).load(connection).await
}

async fn with_history(connection: &mut AsyncPgConnection, rows: Vec<NotificationRow>) -> QueryResult<Vec<History>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.notification_id).collect();
    let mut tried: HashMap<(Uuid, i32), Vec<AttemptRow>> = HashMap::new();
    let attempts: Vec<AttemptRow> = attempts::table
        .filter(attempts::notification_id.eq_any(&ids))
        .order(attempts::number)
        .select(AttemptRow::as_select())
        .load(connection)
        .await?;
    for attempt in attempts {
        tried.entry((attempt.notification_id, attempt.position)).or_default().push(attempt);
    }
    let mut by_notification: HashMap<Uuid, Vec<(DeliveryRow, Vec<AttemptRow>)>> = HashMap::new();
    let deliveries: Vec<DeliveryRow> = deliveries::table
        .filter(deliveries::notification_id.eq_any(&ids))
        .order(deliveries::position)
        .select(DeliveryRow::as_select())
        .load(connection)
        .await?;
    for delivery in deliveries {
        let attempts = tried.remove(&(delivery.notification_id, delivery.position)).unwrap_or_default();
        by_notification.entry(delivery.notification_id).or_default().push((delivery, attempts));
    }
    Ok(rows
        .into_iter()
        .map(|notification| History {
            deliveries: by_notification.remove(&notification.notification_id).unwrap_or_default(),
            notification,
        })
        .collect())
}
