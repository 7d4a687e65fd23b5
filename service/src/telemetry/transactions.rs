//! Finished spans as Sentry's transactions: a span that nothing in this process caused, with all that it caused here.
//!
//! Which traces are kept is told by their IDs alone, so that both services, and every retry, keep the same ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};
use opentelemetry::{Context, trace::Span as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use sentry::Client;
use sentry::protocol::Event;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

mod convert;

/// Transactions under way at once. The oldest gives way: it is a stream, or one that never ends.
const ROOTS_MAX: usize = 1000;
/// Spans of one transaction, and spans under way in it; more are left out.
const SPANS_MAX: usize = 100;

/// The attribute of a span in which nothing came about but refusals.
const REFUSED: &str = "p2phub.refused";

/// Says of the current span that nothing came about in it but refusals: no transaction is made of it.
pub fn mark_refused() {
    tracing::Span::current().set_attribute(REFUSED, true);
}

pub(super) struct Transactions {
    client: Arc<Client>,
    service: &'static str,
    /// What every event of this process has: release, environment, host, SDK.
    event: Event<'static>,
    rate: f64,
    open: Mutex<Open>,
}

impl Transactions {
    pub(super) fn new(client: Arc<Client>, service: &'static str, rate: f64) -> Self {
        let event = client.prepare_event(Event::new(), None).unwrap_or_default();
        Self { client, service, event, rate, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl SpanProcessor for Transactions {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        let context = span.span_context();
        if is_kept(context.trace_id(), self.rate) {
            let parent = parent.span().span_context().clone();
            let parent = parent.is_valid().then(|| (parent.span_id(), parent.is_remote()));
            self.open().start(context.span_id(), parent);
        }
    }

    fn on_end(&self, span: SpanData) {
        if !is_kept(span.span_context.trace_id(), self.rate) {
            return;
        }
        let ended = self.open().end(span);
        if let Some((root, children)) = ended {
            let transaction = convert::transaction(root, children, &self.event, self.service);
            self.client.send_envelope(transaction.into());
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The lower half of a trace ID is random, by the W3C's and OpenTelemetry's rules.
fn is_kept(trace_id: TraceId, rate: f64) -> bool {
    let random = u128::from_be_bytes(trace_id.to_bytes()) & u128::from(u64::MAX);
    // As many bits as an f64 holds exactly.
    let (point, all) = ((random >> 11) as f64, (1_u64 << 53) as f64);
    point / all < rate
}

/// Spans under way, by the transactions that they belong to.
#[derive(Default)]
struct Open {
    /// In the order of their starts.
    roots: BTreeMap<u64, Root>,
    started: u64,
    root_of: HashMap<SpanId, u64>,
}

struct Root {
    span_id: SpanId,
    open: Vec<SpanId>,
    ended: Vec<SpanData>,
}

impl Open {
    /// `parent`: its ID, and whether it came as text, from another process or a row. Such a one may be under way here all
    /// the same.
    fn start(&mut self, span_id: SpanId, parent: Option<(SpanId, bool)>) {
        match parent {
            Some((parent_id, remote)) => match self.root_of.get(&parent_id).copied() {
                Some(number) => self.add(number, span_id),
                None if remote => self.begin(span_id),
                // Part of something that is not followed.
                None => {}
            },
            None => self.begin(span_id),
        }
    }

    fn begin(&mut self, span_id: SpanId) {
        if self.roots.len() >= ROOTS_MAX
            && let Some((_, evicted)) = self.roots.pop_first()
        {
            self.forget(&evicted);
        }
        self.started += 1;
        self.roots.insert(self.started, Root { span_id, open: Vec::new(), ended: Vec::new() });
        self.root_of.insert(span_id, self.started);
    }

    fn add(&mut self, number: u64, span_id: SpanId) {
        if let Some(root) = self.roots.get_mut(&number)
            && root.open.len() < SPANS_MAX
        {
            root.open.push(span_id);
            self.root_of.insert(span_id, number);
        }
    }

    fn forget(&mut self, root: &Root) {
        self.root_of.remove(&root.span_id);
        for span_id in &root.open {
            self.root_of.remove(span_id);
        }
    }

    /// The whole transaction, if this was the last of it and it is worth one.
    fn end(&mut self, span: SpanData) -> Option<(SpanData, Vec<SpanData>)> {
        let span_id = span.span_context.span_id();
        let number = self.root_of.remove(&span_id)?;
        let root = self.roots.get_mut(&number)?;
        if root.span_id != span_id {
            root.open.retain(|open| *open != span_id);
            if root.ended.len() < SPANS_MAX {
                root.ended.push(span);
            }
            return None;
        }
        let root = self.roots.remove(&number)?;
        self.forget(&root);
        if !convert::is_worth_one(&span) {
            return None;
        }
        // What goes on without it stands for itself.
        root.open.iter().for_each(|span_id| self.begin(*span_id));
        Some((span, root.ended))
    }
}

#[cfg(test)]
mod tests;
