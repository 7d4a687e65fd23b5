//! A record on its way into the database, with the span that lasts until its fate is committed.

use std::{
    collections::HashSet,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use notify_domain::event::{Event, Trace};
use p2phub_proto::notify::v1::{EventRecord, RecordOutcome, RecordResult};
use service::telemetry;
use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::decode::{Rejection, decode, storable};
use crate::{
    metrics,
    store::{StoreError, inbox::RejectedRecord},
};

/// Bytes of a traceparent of version 00; later versions may have more, which isn't passed on.
const TRACEPARENT_BYTES: usize = 55;

/// A record.
pub(super) struct Item<'a> {
    record: &'a EventRecord,
    /// Continues the record's trace, and is where the delivery goes on from.
    span: Span,
    pub(super) trace: Trace,
    pub(super) content: Result<Event, RejectedRecord>,
    /// How the database refused it.
    refusal: Option<StoreError>,
    /// How often it failed alone.
    pub(super) failures: u32,
}

impl<'a> Item<'a> {
    pub(super) fn new(record: &'a EventRecord, producer: &str) -> Self {
        let span = tracing::info_span!(
            parent: None,
            "ingest",
            otel.kind = "consumer",
            otel.status_code = Empty,
            event_id = %storable(&record.event_id).escape_debug(),
            producer,
            outcome = Empty,
            reason = Empty,
        );
        let baggage = telemetry::valid_baggage(&record.baggage);
        telemetry::set_parent(&span, &record.traceparent);
        telemetry::add_baggage(&span, baggage);
        let trace = continued(telemetry::traceparent_of(&span), &record.traceparent, baggage);
        let decoded =
            span.in_scope(|| catch_unwind(AssertUnwindSafe(|| decode(record, &trace)))).unwrap_or_else(|_panic| {
                // The panic hook has logged it, in this span.
                Err(Rejection::panicked())
            });
        let content = decoded.map_err(|rejection| rejection.keep(record, &trace));
        Self { record, span, trace, content, refusal: None, failures: 0 }
    }

    /// Links its span to that of the batch which it is part of.
    pub(super) fn link(&self, batch: &Span) {
        telemetry::link(&self.span, batch);
    }

    /// Rejects what passed every check: the database refuses it, and only it.
    pub(super) fn convict(&mut self, refusal: StoreError) {
        let rejection = Rejection::new("EVENT_NOT_STORABLE", "the database refuses this record, and only this one");
        self.content = Err(rejection.keep(self.record, &self.trace));
        self.refusal = Some(refusal);
    }

    /// What became of it, now that it is committed. `new` are the events that weren't there before: the first record of one
    /// is the stored one, its copies are duplicates.
    pub(super) fn settle(&mut self, new: &mut HashSet<Uuid>) -> RecordResult {
        let span = mem::replace(&mut self.span, Span::none());
        let (outcome, name, reason, detail) = match &self.content {
            Ok(event) if new.remove(&event.event_id) => (RecordOutcome::Stored, "stored", "", ""),
            Ok(_) => (RecordOutcome::Duplicate, "duplicate", "", ""),
            Err(rejected) => (RecordOutcome::Rejected, "rejected", rejected.reason, rejected.detail.as_str()),
        };
        metrics::ingested(name);
        span.record("outcome", name);
        if outcome == RecordOutcome::Rejected {
            span.record("reason", reason);
            span.record("otel.status_code", "error");
            span.in_scope(|| match &self.refusal {
                // Why its own database refuses what passed every check, only this service knows.
                Some(error) => tracing::error!(%error, "record rejected: {detail}"),
                // The producer is told, keeps the event, and raises the alarm: one fact, one error.
                None => tracing::warn!("record rejected: {detail}"),
            });
        }
        telemetry::end(&span);
        RecordResult {
            event_id: self.record.event_id.clone(),
            outcome: outcome.into(),
            reason: reason.to_owned(),
            detail: detail.to_owned(),
        }
    }

    /// Nothing is known of it: the stream ends, and the producer sends it again.
    pub(super) fn give_up(&self) {
        self.span.record("otel.status_code", "error");
        telemetry::end(&self.span);
    }
}

/// Where a record's trace goes on: from its span, unless that span is switched off and so in another trace.
fn continued(span: String, record: &str, baggage: &str) -> Trace {
    let traced = telemetry::trace_id_of(&span).unwrap_or_default();
    let (trace_id, traceparent) = match telemetry::trace_id_of(record) {
        Some(trace_id) if trace_id != traced => {
            (trace_id, record.get(..TRACEPARENT_BYTES).unwrap_or(record).to_owned())
        }
        _ => (traced, span),
    };
    Trace { trace_id, traceparent, baggage: baggage.to_owned() }
}
