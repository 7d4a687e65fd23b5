//! One batch of records: stored together, or, when one of them is at fault, split until that one stands alone.

use std::collections::{BTreeMap, HashSet};

use notify_domain::{
    event::{Event, Request, Trace},
    kind::Kind,
};
use p2phub_proto::notify::v1::{EventRecord, RecordResult};
use service::{database, error::Failure, telemetry};
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::{Shared, item::Item};
use crate::store::{
    StoreError, in_time,
    inbox::{self, RejectedRecord},
};

/// Times that a lone record is tried before it is suspected.
const LONE_TRIES: u32 = 3;
/// How many of a batch's traces its span links to.
const LINKS_MAX: usize = 128;

/// Stores records and says what became of each, in order. An error means that nothing is known of some of them.
pub(super) async fn store(
    shared: &Shared,
    producer: &str,
    records: &[&EventRecord],
) -> Result<Vec<RecordResult>, Failure> {
    let mut items: Vec<Item<'_>> = records.iter().map(|record| Item::new(record, producer)).collect();
    let span = span(producer, &items);
    let stored = store_parts(shared, producer, &mut items).instrument(span).await;
    if stored.is_err() {
        items.iter().for_each(Item::give_up);
    }
    stored
}

/// The batch's own, in a trace of its own: many traces meet in it.
fn span(producer: &str, items: &[Item<'_>]) -> Span {
    let span = tracing::info_span!(parent: None, "ingest_batch", producer, records = items.len());
    for item in items.iter().take(LINKS_MAX) {
        telemetry::add_link(&span, &item.trace.traceparent);
    }
    items.iter().for_each(|item| item.link(&span));
    span
}

async fn store_parts(shared: &Shared, producer: &str, items: &mut [Item<'_>]) -> Result<Vec<RecordResult>, Failure> {
    let mut results = Vec::with_capacity(items.len());
    let mut left = vec![items];
    while let Some(part) = left.pop() {
        match in_time(store_part(shared, producer, part)).await {
            Ok(mut new) => results.extend(part.iter_mut().map(|item| item.settle(&mut new))),
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
                judge(shared, producer, &mut part[0], error).await?;
                left.push(part);
            }
        }
    }
    Ok(results)
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

/// A lone record that failed: rejected if it fails again and again while another one in its place would be stored.
async fn judge(shared: &Shared, producer: &str, item: &mut Item<'_>, error: StoreError) -> Result<(), Failure> {
    let Ok(event) = &item.content else {
        tracing::error!(%error, "a rejected record can't be kept");
        return Err(Failure::internal());
    };
    if in_time(is_refused(shared, producer, event)).await.map_err(|error| unavailable(shared, &error))? {
        item.convict(error);
    }
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

fn unavailable(shared: &Shared, error: &StoreError) -> Failure {
    if !shared.pool.note(error) {
        tracing::warn!(%error, "records can't be stored for now");
    }
    Failure::unavailable("the database is not available")
}
