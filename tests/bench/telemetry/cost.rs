//! Sales a second with telemetry and without.

use super::{
    Sizes,
    collector::{Collector, State},
    sales,
};
use crate::{
    receiver::Receiver,
    setting,
    table::{median, row},
};

/// Callers, each with one sale at a time.
const CALLERS: usize = 64;
/// Sales before the clock runs.
const WARM_UP: usize = 500;
const VARIANTS: [(&str, State); 2] = [("without", State::Unconfigured), ("with", State::Well)];

pub(super) async fn run(sizes: Sizes) {
    // Without notify-svc, what it would be told waits in the outbox.
    for (shape, with_notify) in [("referral-svc alone", false), ("the pair", true)] {
        let mut rates = VARIANTS.map(|_| Vec::new());
        for round in 1..=sizes.rounds {
            for ((variant, state), rates) in VARIANTS.into_iter().zip(&mut rates) {
                let (rate, spans) = measure(sizes, state, with_notify).await;
                row(format!("round {round}, {shape}, {variant} telemetry"), rate, "sales/s");
                if state == State::Well {
                    row("  spans that came to the collector, per sale", spans / sizes.sales as f64, "spans");
                }
                rates.push(rate);
            }
        }
        let [without, with] = rates.map(median);
        row(format!("{shape}: median without telemetry"), without, "sales/s");
        row(format!("{shape}: median with telemetry"), with, "sales/s");
        row(format!("{shape}: ratio of the medians, with to without"), with / without, "times");
    }
}

/// Sales a second, and the spans that came of them.
async fn measure(sizes: Sizes, state: State, with_notify: bool) -> (f64, f64) {
    let collector = Collector::start(state).await;
    let sentry = Receiver::start(1).await;
    let mut options = setting::options();
    if let Some(endpoint) = collector.endpoint() {
        options = options
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .variable("SENTRY_DSN", &format!("http://key@{}/1", sentry.address()));
    }
    let pair = if with_notify { options.start().await } else { options.start_alone().await };
    let buyers = sales::buyers(&pair.clients).await;
    let mut payments = sales::payments(&pair.clients, &buyers, sizes.sales + WARM_UP).await;
    let timed = payments.split_off(WARM_UP);
    sales::per_second(&pair.clients, payments, CALLERS).await;
    let before = collector.spans();
    let rate = sales::per_second(&pair.clients, timed, CALLERS).await;
    let spans = (collector.spans() - before) as f64;
    setting::discard(pair).await;
    (rate, spans)
}
