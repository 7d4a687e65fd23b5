//! Taking in events: inbox keys, notifications and their first deliveries, and records that can't be taken.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryResult, insert_into, sql_query,
    sql_types::{Array, Integer, Jsonb, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    channel::{self, Channels},
    event::{Event, Request},
    policy::Policy,
    state::DeliveryState,
};
use service::database::Connection;
use uuid::{ContextV7, Timestamp, Uuid};

use super::{
    feed::{self, Change},
    queue::{self, NewDelivery},
    schema::{inbox, rejected_records},
};

/// What becomes of what comes in.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) channels: Channels,
    pub(crate) policy: Arc<Policy>,
}

/// A record that can never be stored as an event.
#[derive(Clone, Debug)]
pub(crate) struct RejectedRecord {
    pub(crate) event_id: String,
    pub(crate) event: Vec<u8>,
    pub(crate) traceparent: String,
    pub(crate) trace_id: String,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

/// Stores a batch in one transaction and returns the IDs of the events that were new. All or nothing.
pub(crate) async fn store(
    connection: &mut Connection,
    producer: &str,
    events: &[&Event],
    rejected: &[&RejectedRecord],
    rules: &Rules,
) -> QueryResult<HashSet<Uuid>> {
    connection.transaction(async |connection| write(connection, producer, events, rejected, rules).await).await
}

/// Whether a batch of these events would be stored, without storing it.
pub(crate) async fn try_out(
    connection: &mut Connection,
    producer: &str,
    events: &[&Event],
    rules: &Rules,
) -> QueryResult<()> {
    let undone = connection
        .transaction(async |connection| {
            write(connection, producer, events, &[], rules).await?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        })
        .await;
    match undone {
        Err(diesel::result::Error::RollbackTransaction) => Ok(()),
        other => other,
    }
}

async fn write(
    connection: &mut AsyncPgConnection,
    producer: &str,
    events: &[&Event],
    rejected: &[&RejectedRecord],
    rules: &Rules,
) -> QueryResult<HashSet<Uuid>> {
    let (new, now) = insert_keys(connection, producer, events).await?;
    let rows = Rows::build(producer, events, new.clone(), now, rules);
    if !rows.notification_ids.is_empty() {
        let changes = rows.changes(now);
        let deliveries = rows.insert(connection).await?;
        queue::enqueue(connection, &deliveries).await?;
        feed::tell(connection, &changes).await?;
        feed::wake(connection).await?;
    }
    insert_rejected(connection, producer, rejected).await?;
    Ok(new)
}

/// Sorted, so that batches with common keys wait for each other in one order.
async fn insert_keys(
    connection: &mut AsyncPgConnection,
    producer: &str,
    events: &[&Event],
) -> QueryResult<(HashSet<Uuid>, DateTime<Utc>)> {
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|event| event.event_id);
    let keys: Vec<_> = sorted
        .iter()
        .map(|event| {
            (
                inbox::producer.eq(producer),
                inbox::event_id.eq(event.event_id),
                inbox::trace_id.eq(&event.trace.trace_id),
                inbox::occur_time.eq(event.occur_time),
            )
        })
        .collect();
    let new: Vec<(Uuid, DateTime<Utc>)> = insert_into(inbox::table)
        .values(&keys)
        .on_conflict_do_nothing()
        .returning((inbox::event_id, inbox::receive_time))
        .load(connection)
        .await?;
    let now = match new.as_slice() {
        [(_, now), ..] => *now,
        [] => DateTime::UNIX_EPOCH,
    };
    Ok((new.into_iter().map(|(event_id, _)| event_id).collect(), now))
}

async fn insert_rejected(
    connection: &mut AsyncPgConnection,
    producer: &str,
    rejected: &[&RejectedRecord],
) -> QueryResult<()> {
    if rejected.is_empty() {
        return Ok(());
    }
    let mut sorted = rejected.to_vec();
    sorted.sort_by(|a, b| (&a.event_id, &a.event).cmp(&(&b.event_id, &b.event)));
    let rows: Vec<_> = sorted
        .iter()
        .map(|record| {
            (
                rejected_records::producer.eq(producer),
                rejected_records::event_id.eq(&record.event_id),
                rejected_records::event.eq(&record.event),
                rejected_records::traceparent.eq(&record.traceparent),
                rejected_records::trace_id.eq(&record.trace_id),
                rejected_records::reason.eq(record.reason),
                rejected_records::detail.eq(&record.detail),
            )
        })
        .collect();
    insert_into(rejected_records::table).values(&rows).on_conflict_do_nothing().execute(connection).await?;
    Ok(())
}

/// The notifications of a batch, column by column.
#[derive(Default)]
struct Rows<'a> {
    producer: &'a str,
    notification_ids: Vec<Uuid>,
    source_event_ids: Vec<Uuid>,
    positions: Vec<i32>,
    recipient_ids: Vec<&'a str>,
    kinds: Vec<&'a str>,
    locales: Vec<&'a str>,
    arguments: Vec<serde_json::Value>,
    contacts: Vec<serde_json::Value>,
    trace_ids: Vec<&'a str>,
    traceparents: Vec<&'a str>,
    baggages: Vec<&'a str>,
    occur_times: Vec<Option<DateTime<Utc>>>,
    expire_times: Vec<DateTime<Utc>>,
    deliveries: Vec<NewDelivery>,
}

impl<'a> Rows<'a> {
    /// The first record of each new event; its copies in the same batch are duplicates.
    fn build(
        producer: &'a str,
        events: &[&'a Event],
        mut new: HashSet<Uuid>,
        now: DateTime<Utc>,
        rules: &Rules,
    ) -> Self {
        let mut rows = Self { producer, ..Self::default() };
        let context = ContextV7::new();
        for event in events {
            if new.remove(&event.event_id) {
                for (position, request) in (1..).zip(&event.requests) {
                    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
                    let time = Timestamp::from_unix(&context, seconds, now.timestamp_subsec_nanos());
                    rows.push(Uuid::new_v7(time), event, position, request, now, rules);
                }
            }
        }
        rows
    }

    fn push(
        &mut self,
        id: Uuid,
        event: &'a Event,
        position: i32,
        request: &'a Request,
        now: DateTime<Utc>,
        rules: &Rules,
    ) {
        self.notification_ids.push(id);
        self.source_event_ids.push(event.event_id);
        self.positions.push(position);
        self.recipient_ids.push(&request.recipient_id);
        self.kinds.push(request.kind.as_str());
        self.locales.push(&request.locale);
        self.arguments.push(serde_json::json!(request.arguments));
        self.contacts.push(serde_json::json!(request.contacts));
        self.trace_ids.push(&event.trace.trace_id);
        self.traceparents.push(&event.trace.traceparent);
        self.baggages.push(&event.trace.baggage);
        self.occur_times.push(event.occur_time);
        let terms = rules.policy.terms(Some(request.kind));
        self.expire_times.push(request.expire_time.unwrap_or(now + terms.lifetime));
        let choice = channel::first(&request.contacts, &rules.channels);
        self.deliveries.push(NewDelivery {
            notification_id: id,
            position: choice.place,
            lane: terms.lane.number(),
            choice,
        });
    }

    /// What watchers hear of it.
    fn changes(&self, now: DateTime<Utc>) -> Vec<Change> {
        let rows = self.deliveries.iter().zip(&self.recipient_ids).zip(&self.kinds).zip(&self.trace_ids);
        rows.map(|(((delivery, recipient_id), kind), trace_id)| Change {
            notification_id: delivery.notification_id,
            recipient_id: (*recipient_id).to_owned(),
            kind: (*kind).to_owned(),
            channel: delivery.choice.channel.as_str().to_owned(),
            state: DeliveryState::Queued.as_str().to_owned(),
            reason: String::new(),
            attempt: 0,
            trace_id: (*trace_id).to_owned(),
            change_time: now,
        })
        .collect()
    }

    async fn insert(self, connection: &mut AsyncPgConnection) -> QueryResult<Vec<NewDelivery>> {
        sql_query(
            "INSERT INTO notifications (producer, notification_id, source_event_id, position, recipient_id, kind,
                 locale, arguments, contacts, trace_id, traceparent, baggage, occur_time, expire_time)
             SELECT $1, * FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind::<Text, _>(self.producer)
        .bind::<Array<diesel::sql_types::Uuid>, _>(self.notification_ids)
        .bind::<Array<diesel::sql_types::Uuid>, _>(self.source_event_ids)
        .bind::<Array<Integer>, _>(self.positions)
        .bind::<Array<Text>, _>(self.recipient_ids)
        .bind::<Array<Text>, _>(self.kinds)
        .bind::<Array<Text>, _>(self.locales)
        .bind::<Array<Jsonb>, _>(self.arguments)
        .bind::<Array<Jsonb>, _>(self.contacts)
        .bind::<Array<Text>, _>(self.trace_ids)
        .bind::<Array<Text>, _>(self.traceparents)
        .bind::<Array<Text>, _>(self.baggages)
        .bind::<Array<Nullable<Timestamptz>>, _>(self.occur_times)
        .bind::<Array<Timestamptz>, _>(self.expire_times)
        .execute(connection)
        .await?;
        Ok(self.deliveries)
    }
}
