//! Load: so many calls at once, or calls that arrive at fixed times whether or not those before are through.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::Status;

use crate::table::{percentile, row};

/// What became of the calls.
#[derive(Default)]
pub(super) struct Calls {
    /// How long those took that were answered, in milliseconds, sorted.
    pub(super) took: Vec<f64>,
    pub(super) refused: Vec<Status>,
    seconds: f64,
}

impl Calls {
    fn of(results: impl IntoIterator<Item = Result<Duration, Status>>, begin: Instant) -> Self {
        let mut calls = Self { seconds: begin.elapsed().as_secs_f64(), ..Self::default() };
        for result in results {
            match result {
                Ok(took) => calls.took.push(took.as_secs_f64() * 1000.0),
                Err(status) => calls.refused.push(status),
            }
        }
        calls.took.sort_by(f64::total_cmp);
        calls
    }

    /// Calls that were answered, a second.
    pub(super) fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.seconds
    }

    /// Where there is no overload, nothing is refused.
    pub(super) fn all(self) -> Self {
        assert!(self.refused.is_empty(), "{} calls failed: {:?}", self.refused.len(), self.refused.first());
        self
    }

    pub(super) fn rows(&self, name: &str) {
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            row(format!("{name}, {label}"), percentile(&self.took, share), "ms");
        }
    }
}

/// How many calls come within so long.
pub(super) fn calls(per_second: f64, duration: Duration) -> usize {
    let interval = Duration::from_secs_f64(1.0 / per_second);
    usize::try_from(duration.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX)
}

/// So many callers, each with a call at a time, for so long. A call is given the caller's number.
pub(super) async fn closed<F>(callers: usize, duration: Duration, call: impl Fn(usize) -> F) -> Calls
where
    F: Future<Output = Result<(), Status>>,
{
    let begin = Instant::now();
    let results = join_all((0..callers).map(async |caller| {
        let mut results = Vec::new();
        while begin.elapsed() < duration {
            let start = Instant::now();
            results.push(call(caller).await.map(|()| start.elapsed()));
        }
        results
    }));
    Calls::of(results.await.into_iter().flatten(), begin)
}

/// So many calls a second, for so long; a call's time counts from when it was to begin. A call is given its number.
pub(super) async fn open<F>(per_second: f64, duration: Duration, call: impl Fn(usize) -> F) -> Calls
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..calls(per_second, duration) {
        let start = begin + Duration::from_secs_f64(number as f64 / per_second);
        sleep_until(start).await;
        let call = call(number);
        running.spawn(async move { call.await.map(|()| start.elapsed()) });
    }
    Calls::of(running.join_all().await, begin)
}
