//! The write path: how much waits for it, how much one transaction takes, and how long that lasts.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::Instant,
};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, ObservableGauge},
};
use service::telemetry::metrics::meter;

use super::{FAILED, OUTCOME};

static BATCH_SIZE: LazyLock<Histogram<u64>> = LazyLock::new(|| {
    meter()
        .u64_histogram("p2phub.commit.batch.size")
        .with_description("How many commands one transaction decided")
        .build()
});
static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("p2phub.commit.duration")
        .with_unit("s")
        .with_description("From a batch's taking up to the known end of its transaction")
        .build()
});
static QUEUE_DEPTH: LazyLock<ObservableGauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_observable_gauge("p2phub.commit.queue.depth")
        .with_description("Commands that wait for the committer")
        .with_callback(|gauge| gauge.observe(waiting(), &[]))
        .build()
});

/// What tells each queue's depth, until the queue is gone.
type Depth = Box<dyn Fn() -> Option<usize> + Send>;

static QUEUES: Mutex<Vec<Depth>> = Mutex::new(Vec::new());

pub(super) fn init() {
    LazyLock::force(&QUEUE_DEPTH);
}

/// Has a queue's depth measured whenever somebody wants to know it.
pub(crate) fn watch_queue(depth: impl Fn() -> Option<usize> + Send + 'static) {
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(depth));
}

/// Of all queues of this process: it has one, except in tests.
fn waiting() -> u64 {
    let mut sum = 0;
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner).retain(|depth| {
        let depth = depth();
        sum += depth.unwrap_or_default();
        depth.is_some()
    });
    u64::try_from(sum).unwrap_or(u64::MAX)
}

/// Measures one transaction of the committer. One that is dropped before its end is known has failed.
pub(crate) struct CommitTimer {
    started: Instant,
    outcome: &'static str,
}

impl CommitTimer {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), outcome: FAILED }
    }

    /// It is committed.
    pub(crate) fn committed(self, commands: usize) {
        self.end("committed", commands);
    }

    /// There was nothing to write: every command was answered before, or was bad input.
    pub(crate) fn unchanged(self, commands: usize) {
        self.end("unchanged", commands);
    }

    fn end(mut self, outcome: &'static str, commands: usize) {
        self.outcome = outcome;
        BATCH_SIZE.record(u64::try_from(commands).unwrap_or(u64::MAX), &[]);
    }
}

impl Drop for CommitTimer {
    fn drop(&mut self) {
        DURATION.record(self.started.elapsed().as_secs_f64(), &[KeyValue::new(OUTCOME, self.outcome)]);
    }
}
