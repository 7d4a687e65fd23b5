//! Traces, logs and error reports of the process: installed once by `main`, used everywhere through `tracing`.

mod baggage;
mod failures;
mod format;
pub(crate) mod level;
pub mod metrics;
mod otlp;
pub mod report;
mod sampling;
mod scrub;
mod settings;
mod trace;
mod transactions;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use baggage::baggage_in;
pub use baggage::{add_baggage, valid_baggage};
use failures::FailureLayer;
use format::LogLayer;
use level::LogFilter;
use report::Reporter;
use settings::Settings;
pub use trace::{
    add_link, current_trace_id, current_traceparent, end, link, mark_failed, propagate, set_parent,
    set_parent_with_baggage, trace_id_of, traceparent_of,
};
pub(crate) use trace::{parent_in, traceparent_in};
use transactions::Transactions;
pub use transactions::mark_refused;

/// The variables that `init` reads, for the end of each binary's `--help`.
pub const ENVIRONMENT_HELP: &str = "\
Logs and telemetry (nothing is sent unless set):
  RUST_LOG                      what is logged, as tracing directives [default: info]
  LOG_FORMAT                    text or json [default: text on a terminal, otherwise json]
  OTEL_EXPORTER_OTLP_ENDPOINT   where traces and metrics go, over OTLP/gRPC; the other OTEL_* variables as in their standard
  OTEL_EXPORTER_OTLP_HEADERS    what goes along, as name=value,...: an API key, for example
  OTEL_EXPORTER_OTLP_CERTIFICATE
                                for https: a PEM file of the authority to trust [default: the system's]
  OTEL_TRACES_EXPORTER          otlp, or none: no traces are sent [default: otlp]
  OTEL_METRICS_EXPORTER         otlp, or none: no metrics are sent, Prometheus may fetch them [default: otlp]
  OTEL_TRACES_SAMPLER           which traces are kept [default: parentbased_always_on]
  OTEL_TRACES_SAMPLER_ARG       the share for parentbased_traceidratio, 0 to 1 [default: 1]
  SENTRY_DSN                    where errors go
  SENTRY_RELEASE                the release that they are filed under [default: the service and its version]
  SENTRY_ENVIRONMENT            the environment that they are filed under [default: production]
  SENTRY_TRACES_SAMPLE_RATE     share of traces that Sentry gets as transactions, 0 to 1 [default: 0.1]
  SLOW_STATEMENT_MS             SQL statements that take at least so many milliseconds are logged; 0: none [default: 250]";

/// The version under which traces and errors are filed.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Crates whose own events and spans must never reach the exporters: those run on them, and would feed themselves.
const BELOW_EXPORTERS: [&str; 8] = ["opentelemetry", "h2", "hyper", "tonic", "tower", "reqwest", "rustls", "sentry"];

/// Lines about panics: Sentry has them from the hook itself, with the stack.
const PANIC_TARGET: &str = "panic";
/// Lines about calls, one each: the spans say the same.
pub(crate) const ACCESS_TARGET: &str = "access";

/// Keeps export going; sends what is still queued when it is shut down or dropped.
#[must_use = "dropping it ends the export of traces and errors"]
pub struct Telemetry {
    provider: SdkTracerProvider,
    sentry: Option<Reporter>,
    /// The exporter's own threads, so that `init` needs no runtime and a busy service doesn't hold back its traces.
    export_runtime: Option<tokio::runtime::Runtime>,
}

impl Telemetry {
    /// Sends what is still queued (a few seconds at most) and ends the export. Blocks.
    pub fn shutdown(self) {}
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
        metrics::shutdown();
        if let Some(sentry) = self.sentry.take() {
            sentry.shutdown();
        }
        if let Some(runtime) = self.export_runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reads the environment and installs everything, once per process and before anything else. A malformed variable is
/// an error that names it.
pub fn init(service_name: &'static str) -> anyhow::Result<Telemetry> {
    let settings = Settings::read(&|name| std::env::var(name).ok())?;
    let (traces_on, metrics_on) = (settings.traces.is_on(), settings.metrics.is_on());
    install_tls();

    let sentry_switch = settings.sentry_switch();
    let mut transactions = None;
    let sentry = settings.sentry.map(|settings| {
        let reporter = Reporter::start(service_name, VERSION, &settings);
        let rate = settings.traces_sample_rate;
        transactions = (rate > 0.0).then(|| Transactions::new(reporter.transactions.clone(), service_name, rate));
        reporter
    });
    let export_runtime = (traces_on || metrics_on).then(export_runtime).transpose()?;
    let provider = {
        let _entered = export_runtime.as_ref().map(tokio::runtime::Runtime::enter);
        metrics::install(resource(service_name), metrics_on)?;
        tracer_provider(resource(service_name), traces_on, transactions)?
    };
    opentelemetry::global::set_tracer_provider(provider.clone());
    crate::database::log_slower_than(settings.slow_statement);
    log_panics();
    let sentry_layers = sentry.is_some().then(|| {
        let breadcrumbs = sentry_tracing::BreadcrumbLayer::new()
            .with_filter(for_sentry(|level| (Level::WARN..=Level::INFO).contains(&level)));
        let errors = sentry_tracing::ErrorLayer::new().with_filter(for_sentry(|level| level == Level::ERROR));
        breadcrumbs.and_then(errors)
    });

    tracing_subscriber::registry()
        .with(otel_layer(&provider))
        .with(sentry_layers)
        .with(log_layer(settings.json, &settings.log)?)
        .try_init()
        .context("telemetry is installed once per process")?;
    tracing::info!(
        service = service_name,
        version = VERSION,
        traces = %settings.traces,
        metrics = %settings.metrics,
        sentry = %sentry_switch,
        "telemetry started"
    );
    Ok(Telemetry { provider, sentry, export_runtime })
}

/// What a service started without `main` needs (a test, above all): trace IDs, TLS, and logs on stderr if `RUST_LOG` is set.
pub fn ensure() {
    install_tls();
    if tracing::dispatcher::has_been_set() {
        return;
    }
    let logs = std::env::var("RUST_LOG").ok().and_then(|rust_log| log_layer(false, &rust_log).ok());
    // Without an exporter nothing can be wrong with it.
    let _ = metrics::install(resource("p2phub"), false);
    let provider = SdkTracerProvider::builder().build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    // Another thread may have been first: then its subscriber serves as well.
    let _ = tracing_subscriber::registry().with(otel_layer(&provider)).with(logs).try_init();
}

fn install_tls() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn export_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp-export")
        .enable_all()
        .build()
        .context("the export of traces can't start a thread")
}

/// Without OTLP spans are made all the same, so that every call has a trace ID.
fn tracer_provider(
    resource: Resource,
    otlp: bool,
    transactions: Option<Transactions>,
) -> anyhow::Result<SdkTracerProvider> {
    let sampling = sampling::Sampling::from_environment(otlp || transactions.is_some());
    let mut provider = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampling);
    if let Some(transactions) = transactions {
        provider = provider.with_span_processor(transactions);
    }
    if otlp {
        // Its queue is bounded: what a collector that is away doesn't take is dropped.
        let batches = BatchSpanProcessor::builder(otlp::span_exporter()?).build();
        provider = provider.with_span_processor(sampling::KeepErrors(batches));
    }
    Ok(provider.build())
}

/// What the spans and metrics of this process stand under.
fn resource(service_name: &'static str) -> Resource {
    let resource = Resource::builder()
        .with_attribute(KeyValue::new(opentelemetry_semantic_conventions::attribute::SERVICE_VERSION, VERSION));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
        resource.with_service_name(service_name).build()
    } else {
        resource.build()
    }
}

/// Sees spans whatever RUST_LOG says: trace IDs don't depend on what is logged. Of events it has the failures alone, since
/// what they say is for the log, which is scrubbed.
fn otel_layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let spans = OpenTelemetryLayer::new(provider.tracer("p2phub"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(above_exporters(|metadata| metadata.is_span()));
    let failures = FailureLayer::default()
        .with_filter(above_exporters(|metadata| metadata.is_span() || *metadata.level() == Level::ERROR));
    spans.and_then(failures)
}

fn log_layer<S>(json: bool, directives: &str) -> anyhow::Result<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    Ok(LogLayer::new(json, std::io::stderr).with_filter(LogFilter::install(directives)?))
}

fn above_exporters<S>(kind: fn(&Metadata<'_>) -> bool) -> impl Filter<S> {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets(BELOW_EXPORTERS.map(|target| (target, LevelFilter::OFF)))
        .with_target(ACCESS_TARGET, LevelFilter::OFF)
        .and(filter_fn(kind).with_max_level_hint(LevelFilter::INFO))
}

fn for_sentry<S>(level: fn(Level) -> bool) -> impl Filter<S> {
    filter_fn(move |metadata| {
        let target = metadata.target();
        let below = BELOW_EXPORTERS.iter().any(|it| target.starts_with(it));
        level(*metadata.level()) && !below && ![PANIC_TARGET, ACCESS_TARGET].contains(&target)
    })
    .with_max_level_hint(LevelFilter::INFO)
}

/// One event and one ERROR line for each panic, in the span where it happened.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        report::panicked(panic);
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(target: PANIC_TARGET, panic = message, location, "panicked");
    }));
}
