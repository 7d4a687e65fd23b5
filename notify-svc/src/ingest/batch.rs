//! One batch of records: stored together, or, when one of them is at fault, split until that one stands alone.

use std::{
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use notify_domain::{
    event::{Event, Request, Trace},
    kind::Kind,
};
use p2phub_proto::notify::v1::{EventRecord, RecordOutcome, RecordResult};
use service::{database, error::Failure, telemetry};
use tracing::Span;
use uuid::Uuid;

use super::{
    Shared,
    decode::{Rejection, decode},
};
use crate::store::{
    StoreError, in_time,
    inbox::{self, RejectedRecord},
};

/// Times that a lone record is tried before it is suspected.
const LONE_TRIES: u32 = 3;
/// Bytes of a traceparent of version 00; later versions may have more, which isn't passed on.
const TRACEPARENT_BYTES: usize = 55;

/// A record on its way into the database.
struct Item<'a> {
    record: &'a EventRecord,
    span: Span,
    trace: Trace,
    content: Result<Event, RejectedRecord>,
    /// How often it failed alone.
    failures: u32,
}

/// Stores records and says what became of each, in order. An error means that nothing is known of some of them.
pub(super) async fn store(
    shared: &Shared,
    producer: &str,
    records: &[&EventRecord],
) -> Result<Vec<RecordResult>, Failure> {
    let mut items: Vec<Item<'_>> = records.iter().map(|record| item(record)).collect();
    let mut results = Vec::with_capacity(items.len());
    let mut left = vec![items.as_mut_slice()];
    while let Some(part) = left.pop() {
        match in_time(store_part(shared, producer, part)).await {
            Ok(new) => {
                part.iter().for_each(|item| log_rejected(item, producer));
                results.extend(answer(part, new));
            }
            Err(error) if database::is_unavailable(&error) || database::is_conflict(&error) => {
                return Err(unavailable(shared, &error));
            }
            Err(_) if part.len() > 1 => {
                let (first, second) = part.split_at_mut(part.len() / 2);
                left.extend([second, first]);
            }
            // Nothing is wrong with it when it is tried out: only its commits fail.
            Err(error) if part[0].failures == LONE_TRIES => return Err(unavailable(shared, &error)),
            Err(error) => {
                part[0].failures += 1;
                convict(shared, producer, &mut part[0], &error).await?;
                left.push(part);
            }
        }
    }
    Ok(results)
}

/// The record's own span continues its trace, and is where the delivery goes on from.
fn item(record: &EventRecord) -> Item<'_> {
    let span = tracing::info_span!("ingest record", event_id = %record.event_id.escape_debug());
    telemetry::set_parent(&span, &record.traceparent);
    let trace = continued(telemetry::traceparent_of(&span), &record.traceparent);
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(record, &trace)));
    let content = decoded.unwrap_or_else(|_| Err(Rejection::panicked())).map_err(|it| it.keep(record, &trace));
    Item { record, span, trace, content, failures: 0 }
}

/// Where a record's trace goes on: from its span, unless that span is switched off and so in another trace.
fn continued(span: String, record: &str) -> Trace {
    let own = telemetry::trace_id_of(record);
    let traced = telemetry::trace_id_of(&span).unwrap_or_default();
    match own {
        Some(trace_id) if trace_id != traced => {
            let traceparent = record.get(..TRACEPARENT_BYTES).unwrap_or(record).to_owned();
            Trace { trace_id, traceparent }
        }
        _ => Trace { trace_id: traced, traceparent: span },
    }
}

async fn store_part(shared: &Shared, producer: &str, part: &[Item<'_>]) -> Result<HashSet<Uuid>, StoreError> {
    let events: Vec<&Event> = part.iter().filter_map(|item| item.content.as_ref().ok()).collect();
    let rejected: Vec<&RejectedRecord> = part.iter().filter_map(|item| item.content.as_ref().err()).collect();
    let mut connection = database::connect(&shared.pool).await?;
    let new = inbox::store(&mut connection, producer, &events, &rejected, &shared.rules).await?;
    if !new.is_empty() {
        shared.queued.notify_one();
    }
    Ok(new)
}

/// The first record of a new event is the stored one; its copies are duplicates.
fn answer(part: &[Item<'_>], mut new: HashSet<Uuid>) -> Vec<RecordResult> {
    part.iter()
        .map(|item| {
            let (outcome, reason, detail) = match &item.content {
                Ok(event) if new.remove(&event.event_id) => (RecordOutcome::Stored, "", ""),
                Ok(_) => (RecordOutcome::Duplicate, "", ""),
                Err(rejected) => (RecordOutcome::Rejected, rejected.reason, rejected.detail.as_str()),
            };
            RecordResult {
                event_id: item.record.event_id.clone(),
                outcome: outcome.into(),
                reason: reason.to_owned(),
                detail: detail.to_owned(),
            }
        })
        .collect()
}

/// A lone record that failed: rejected if it fails again and again while another one in its place would be stored.
async fn convict(shared: &Shared, producer: &str, item: &mut Item<'_>, error: &StoreError) -> Result<(), Failure> {
    let Ok(event) = &item.content else {
        tracing::error!(%error, "a rejected record can't be kept");
        return Err(Failure::internal());
    };
    let refused = in_time(is_refused(shared, producer, event)).await.map_err(|error| unavailable(shared, &error))?;
    if !refused {
        return Ok(());
    }
    let span = item.span.clone();
    span.in_scope(|| tracing::error!(%error, "the database refuses a record that passed every check"));
    let rejection = Rejection {
        reason: "EVENT_NOT_STORABLE",
        detail: "the database refuses this record, and only this one".to_owned(),
    };
    item.content = Err(rejection.keep(item.record, &item.trace));
    Ok(())
}

/// An error means that the database would take no other event either.
async fn is_refused(shared: &Shared, producer: &str, event: &Event) -> Result<bool, StoreError> {
    let mut connection = database::connect(&shared.pool).await?;
    for _ in 1..LONE_TRIES {
        if inbox::try_out(&mut connection, producer, &[event], &shared.rules).await.is_ok() {
            return Ok(false);
        }
    }
    let harmless = harmless(&event.trace);
    inbox::try_out(&mut connection, producer, &[&harmless], &shared.rules).await?;
    Ok(true)
}

/// An event that nothing can be wrong with.
fn harmless(trace: &Trace) -> Event {
    let request = Request {
        kind: Kind::OperatorBroadcast,
        recipient_id: "-".to_owned(),
        locale: String::new(),
        contacts: Vec::new(),
        arguments: BTreeMap::new(),
        expire_time: None,
    };
    Event { event_id: Uuid::now_v7(), occur_time: None, trace: trace.clone(), requests: vec![request] }
}

fn log_rejected(item: &Item<'_>, producer: &str) {
    if let Err(rejected) = &item.content {
        item.span.in_scope(|| {
            tracing::error!(
                producer,
                event_id = %rejected.event_id.escape_debug(),
                reason = rejected.reason,
                trace_id = %rejected.trace_id,
                "record rejected: {}",
                rejected.detail
            );
        });
    }
}

fn unavailable(shared: &Shared, error: &StoreError) -> Failure {
    if !shared.pool.note(error) {
        tracing::warn!(%error, "records can't be stored for now");
    }
    Failure::unavailable("the database is not available")
}
