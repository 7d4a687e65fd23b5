//! The way to notify-svc: what waits in the outbox, and the stream that takes it there.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, ObservableGauge},
};
use p2phub_proto::notify::v1::RecordOutcome;
use service::telemetry::metrics::meter;

use super::{FAILED, OUTCOME, counter};

static DEPTH: LazyLock<ObservableGauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_observable_gauge("p2phub.outbox.depth")
        .with_description("Events in the outbox that wait or were rejected; counting stops at 100,000")
        .with_callback(|gauge| {
            if let Some(seen) = fresh() {
                gauge.observe(seen.pending, &[KeyValue::new("state", "pending")]);
                gauge.observe(seen.rejected, &[KeyValue::new("state", "rejected")]);
            }
        })
        .build()
});
static OLDEST_AGE: LazyLock<ObservableGauge<f64>> = LazyLock::new(|| {
    meter()
        .f64_observable_gauge("p2phub.outbox.oldest.age")
        .with_unit("s")
        .with_description("How long the oldest event of the outbox has waited; 0: none waits")
        .with_callback(|gauge| {
            if let Some(seen) = fresh() {
                gauge.observe(seen.oldest_age.as_secs_f64(), &[]);
            }
        })
        .build()
});

static SETTLED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    counter("p2phub.outbox.settled", "Events of the outbox that are done with, by what notify-svc said")
});
static CONNECTED: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_gauge("p2phub.stream.connected")
        .with_description("1 while this instance publishes to notify-svc; one that stands by has 0")
        .build()
});
static CREDITS: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    meter().u64_gauge("p2phub.stream.credits").with_description("How many more events notify-svc takes now").build()
});
static CONNECTS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.stream.connects", "Tries to open the stream to notify-svc"));

const OPENED: &str = "opened";
const STORED: &str = "stored";
const DUPLICATE: &str = "duplicate";
const REJECTED: &str = "rejected";

/// How long what was seen counts, if a look hangs: better no figure than one of long ago.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(15);

/// What was seen of the outbox.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    pending: u64,
    rejected: u64,
    oldest_age: Duration,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

fn fresh() -> Option<Seen> {
    let seen = *SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.filter(|seen| seen.at.elapsed() < FRESH_FOR)
}

pub(super) fn init() {
    LazyLock::force(&DEPTH);
    LazyLock::force(&OLDEST_AGE);
    for outcome in [STORED, DUPLICATE, REJECTED] {
        SETTLED.add(0, &[KeyValue::new(OUTCOME, outcome)]);
    }
    for outcome in [OPENED, FAILED] {
        CONNECTS.add(0, &[KeyValue::new(OUTCOME, outcome)]);
    }
    CONNECTED.record(0, &[]);
    CREDITS.record(0, &[]);
}

/// What waits in the outbox, and what it keeps because it was rejected.
pub(crate) fn backlog(pending: i64, rejected: i64, oldest_age: Duration) {
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let seen = Seen { at: Instant::now(), pending: count(pending), rejected: count(rejected), oldest_age };
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
}

/// Nobody can tell what waits.
pub(crate) fn backlog_unknown() {
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    super::overdue::unknown();
}

/// An event's own answer is on record.
pub(crate) fn settled(outcome: RecordOutcome) {
    let outcome = match outcome {
        RecordOutcome::Stored => STORED,
        RecordOutcome::Duplicate => DUPLICATE,
        RecordOutcome::Rejected => REJECTED,
        RecordOutcome::Unspecified => return,
    };
    SETTLED.add(1, &[KeyValue::new(OUTCOME, outcome)]);
}

/// The stream could not be opened.
pub(crate) fn connect_failed() {
    CONNECTS.add(1, &[KeyValue::new(OUTCOME, FAILED)]);
}

/// The stream is open as long as this lives.
pub(crate) struct OpenStream(());

impl OpenStream {
    pub(crate) fn new() -> Self {
        CONNECTS.add(1, &[KeyValue::new(OUTCOME, OPENED)]);
        CONNECTED.record(1, &[]);
        Self(())
    }

    /// How many more events notify-svc takes now.
    pub(crate) fn credits(&self, credits: usize) {
        CREDITS.record(u64::try_from(credits).unwrap_or(u64::MAX), &[]);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        CONNECTED.record(0, &[]);
        CREDITS.record(0, &[]);
    }
}
