//! What time brings about and nobody did yet.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, metrics::ObservableGauge};
use service::telemetry::metrics::meter;

use super::outbox::FRESH_FOR;

static OLDEST_AGE: LazyLock<ObservableGauge<f64>> = LazyLock::new(|| {
    meter()
        .f64_observable_gauge("p2phub.sweep.oldest.age")
        .with_unit("s")
        .with_description("How long the oldest row of a sweep has been due; 0: none is")
        .with_callback(|gauge| {
            if let Some((at, ages)) = *SEEN.lock().unwrap_or_else(PoisonError::into_inner)
                && at.elapsed() < FRESH_FOR
            {
                for (sweep, age) in ages {
                    gauge.observe(age.as_secs_f64(), &[KeyValue::new("sweep", sweep)]);
                }
            }
        })
        .build()
});

/// How long the oldest of each sweep has been due.
type Ages = [(&'static str, Duration); 3];

static SEEN: Mutex<Option<(Instant, Ages)>> = Mutex::new(None);

pub(super) fn init() {
    LazyLock::force(&OLDEST_AGE);
}

/// How long the oldest of each sweep has been due.
pub(crate) fn overdue(ages: Ages) {
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), ages));
}

/// Nobody can tell.
pub(super) fn unknown() {
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
