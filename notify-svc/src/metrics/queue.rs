//! The queue of deliveries as it was last seen.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, metrics::ObservableGauge};
use service::telemetry::metrics::meter;

use crate::store::depth::Depth;

static DEPTH: LazyLock<ObservableGauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_observable_gauge("p2phub.delivery.queue.depth")
        .with_description("Deliveries that wait, counted up to 100,000")
        .with_callback(|gauge| {
            if let Some(depth) = fresh() {
                for (state, count) in [("due", depth.due), ("waiting", depth.waiting), ("parked", depth.parked)] {
                    gauge.observe(u64::try_from(count).unwrap_or_default(), &[KeyValue::new("state", state)]);
                }
            }
        })
        .build()
});
static OLDEST_AGE: LazyLock<ObservableGauge<f64>> = LazyLock::new(|| {
    meter()
        .f64_observable_gauge("p2phub.delivery.queue.oldest.age")
        .with_unit("s")
        .with_description("How long the oldest of the deliveries that are due has been so")
        .with_callback(|gauge| {
            if let Some(depth) = fresh() {
                gauge.observe(depth.oldest_age, &[]);
            }
        })
        .build()
});

/// What was seen, and until when it counts: better no figure than one of long ago.
static SEEN: Mutex<Option<(Depth, Instant)>> = Mutex::new(None);

fn fresh() -> Option<Depth> {
    let seen = *SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.filter(|(_, until)| Instant::now() < *until).map(|(depth, _)| depth)
}

pub(super) fn init() {
    LazyLock::force(&DEPTH);
    LazyLock::force(&OLDEST_AGE);
}

/// The queue as it is; that counts for so long, unless it is looked at again.
pub(crate) fn queue(depth: &Depth, counts_for: Duration) {
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((*depth, Instant::now() + counts_for));
}

/// Nobody can tell what waits.
pub(crate) fn queue_unknown() {
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
