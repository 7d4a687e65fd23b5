//! What the pools and the statements count.

use std::{
    sync::{LazyLock, Once},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Histogram},
};
use opentelemetry_semantic_conventions::{
    attribute::{
        DB_CLIENT_CONNECTION_POOL_NAME, DB_CLIENT_CONNECTION_STATE, DB_OPERATION_NAME, DB_SYSTEM_NAME, ERROR_TYPE,
    },
    metric,
};

use super::pool::{self, Usage};
use crate::telemetry::metrics::meter;

/// PostgreSQL, as the conventions spell it.
pub(super) const SYSTEM: &str = "postgresql";

static WAIT_TIME: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram(metric::DB_CLIENT_CONNECTION_WAIT_TIME)
        .with_unit("s")
        .with_description("How long it took to get a connection from the pool")
        .build()
});

static TIMEOUTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter(metric::DB_CLIENT_CONNECTION_TIMEOUTS)
        .with_unit("{timeout}")
        .with_description("Waits for a connection that ended without one")
        .build()
});

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram(metric::DB_CLIENT_OPERATION_DURATION)
        .with_unit("s")
        .with_description("How long statements took")
        .build()
});

/// A connection was given out after so long.
pub(super) fn waited(pool: &'static str, time: Duration) {
    WAIT_TIME.record(time.as_secs_f64(), &[of_pool(pool)]);
}

/// None was given out in time.
pub(super) fn timed_out(pool: &'static str) {
    TIMEOUTS.add(1, &[of_pool(pool)]);
}

/// A statement ended.
pub(super) fn executed(operation: &'static str, time: Duration, error: Option<&'static str>) {
    let seconds = time.as_secs_f64();
    let (system, operation) = (KeyValue::new(DB_SYSTEM_NAME, SYSTEM), KeyValue::new(DB_OPERATION_NAME, operation));
    match error {
        None => DURATION.record(seconds, &[system, operation]),
        Some(error) => DURATION.record(seconds, &[system, operation, KeyValue::new(ERROR_TYPE, error)]),
    }
}

/// Has the gauges look at every pool of the process whenever somebody reads them.
pub(super) fn watch(pool: &'static str) {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let meter = meter();
        meter
            .i64_observable_up_down_counter(metric::DB_CLIENT_CONNECTION_COUNT)
            .with_unit("{connection}")
            .with_description("Connections of the pool by what they do")
            .with_callback(|observer| {
                for (pool, usage) in pool::usage() {
                    let state = |state| [of_pool(pool), KeyValue::new(DB_CLIENT_CONNECTION_STATE, state)];
                    observe(observer, usage.idle, &state("idle"));
                    observe(observer, usage.used, &state("used"));
                }
            })
            .build();
        meter
            .i64_observable_up_down_counter(metric::DB_CLIENT_CONNECTION_MAX)
            .with_unit("{connection}")
            .with_description("Connections that the pool may have")
            .with_callback(|observer| each(observer, |usage| usage.max))
            .build();
        meter
            .i64_observable_up_down_counter(metric::DB_CLIENT_CONNECTION_PENDING_REQUESTS)
            .with_unit("{request}")
            .with_description("Waits for a connection of the pool")
            .with_callback(|observer| each(observer, |usage| usage.waiting))
            .build();
    });
    // Rules see it before the first one.
    TIMEOUTS.add(0, &[of_pool(pool)]);
}

fn each(observer: &dyn AsyncInstrument<i64>, value: fn(&Usage) -> usize) {
    for (pool, usage) in pool::usage() {
        observe(observer, value(&usage), &[of_pool(pool)]);
    }
}

fn observe(observer: &dyn AsyncInstrument<i64>, value: usize, labels: &[KeyValue]) {
    observer.observe(i64::try_from(value).unwrap_or(i64::MAX), labels);
}

fn of_pool(name: &'static str) -> KeyValue {
    KeyValue::new(DB_CLIENT_CONNECTION_POOL_NAME, name)
}
