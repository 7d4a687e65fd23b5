//! Metrics of the process: one meter for all instruments, read by Prometheus and, if OTLP is on, pushed to a collector.

use std::sync::OnceLock;

use opentelemetry::metrics::{Meter, MeterProvider as _, NoopMeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream};
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::otlp;

/// Bounds of histograms in seconds: from a fast read to the default deadline.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of what waits for others, for days if need be: their names end in `.latency`.
const LONG_SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0];
/// Bounds of histograms that count things.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// Series of one instrument; what is beyond goes into one that says so. No label holds what callers make up, so this is far away.
const SERIES_MAX: usize = 2000;

static METRICS: OnceLock<(SdkMeterProvider, Registry)> = OnceLock::new();

/// The meter of every instrument here. Instruments are made once, as statics, and their names, units and labels stand there.
pub fn meter() -> Meter {
    match METRICS.get() {
        Some((provider, _)) => provider.meter("p2phub"),
        None => NoopMeterProvider::new().meter("p2phub"),
    }
}

/// All metrics in Prometheus's text format.
pub fn prometheus_text() -> String {
    let mut text = Vec::new();
    if let Some((_, registry)) = METRICS.get() {
        // Only an invalid family fails, and the library that made them is the one that checks.
        let _ = TextEncoder::new().encode(&registry.gather(), &mut text);
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Once per process; later calls change nothing.
pub(super) fn install(resource: Resource, otlp: bool) -> anyhow::Result<()> {
    let registry = Registry::new();
    let reader =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
    let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).with_view(view);
    if otlp {
        provider = provider.with_periodic_exporter(otlp::metric_exporter()?);
    }
    let _ = METRICS.set((provider.build(), registry));
    Ok(())
}

/// Sends what has not been sent yet.
pub(super) fn shutdown() {
    if let Some((provider, _)) = METRICS.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "the last metrics were not sent");
    }
}

/// Bounds by unit, and a bound on series.
fn view(instrument: &Instrument) -> Option<Stream> {
    let stream = Stream::builder().with_cardinality_limit(SERIES_MAX);
    let stream = match instrument.kind() {
        InstrumentKind::Histogram => {
            let boundaries = match instrument.unit() {
                "s" if instrument.name().ends_with(".latency") => LONG_SECONDS.to_vec(),
                "s" => SECONDS.to_vec(),
                _ => COUNTS.to_vec(),
            };
            stream.with_aggregation(Aggregation::ExplicitBucketHistogram { boundaries, record_min_max: false })
        }
        _ => stream,
    };
    stream.build().ok()
}
