//! What is logged, and changing that while the process runs.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, ensure};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::{EnvFilter, reload};

/// Libraries that say more at INFO than an operator wants; RUST_LOG can name them to hear them. OpenTelemetry's own says every
/// single time that its collector is away, which the exporters here tell once. That the level changes is said at every level.
const UNLESS_NAMED: &str = "log_level=info,\
    h2=warn,hyper=warn,tower=warn,tonic=warn,tokio_postgres=warn,opentelemetry=off,reqwest=warn,rustls=warn";
const TARGET: &str = "log_level";

static LEVEL: OnceLock<Level> = OnceLock::new();

struct Level {
    directives: Mutex<String>,
    replace: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

/// What RUST_LOG may be: `info`, or a list such as `info,referral_svc=debug`.
pub(super) fn check(directives: &str) -> anyhow::Result<()> {
    parse(directives).map(drop)
}

fn parse(directives: &str) -> anyhow::Result<EnvFilter> {
    for one in parts(directives) {
        EnvFilter::builder().parse(one).with_context(|| format!("`{one}` is not a tracing directive"))?;
    }
    let directives: Vec<_> = [UNLESS_NAMED].into_iter().chain(parts(directives)).collect();
    Ok(EnvFilter::builder().parse(directives.join(","))?)
}

fn parts(directives: &str) -> impl Iterator<Item = &str> {
    directives.split(',').map(str::trim).filter(|one| !one.is_empty())
}

/// What the log lets through: events as the directives say, and every span, so that a line at WARN has its trace ID and
/// its caller even when RUST_LOG is `warn`.
pub(super) struct LogFilter<S>(reload::Layer<EnvFilter, S>);

impl<S: Subscriber> LogFilter<S> {
    /// The process's filter: `set` changes it from then on.
    pub(super) fn install(directives: &str) -> anyhow::Result<Self> {
        let (layer, handle) = reload::Layer::new(parse(directives)?);
        let replace = Box::new(move |filter| handle.modify(|held| *held = filter));
        // The first one is the one that is used.
        let _ = LEVEL.set(Level { directives: Mutex::new(directives.trim().to_owned()), replace });
        Ok(Self(layer))
    }
}

/// Those of libraries at TRACE aren't meant: weighing them one by one costs more than a call itself.
fn always(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= tracing::Level::INFO
}

impl<S: Subscriber> Filter<S> for LogFilter<S> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        always(metadata) || Filter::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // It takes note of what it is asked, so it is asked in any case.
        let interest = Filter::callsite_enabled(&self.0, metadata);
        if always(metadata) { Interest::always() } else { interest }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::max_level_hint(&self.0).map(|hint| hint.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::on_close(&self.0, id, context);
    }
}

/// The directives that hold; none if this process has no log of its own.
pub(crate) fn current() -> Option<String> {
    LEVEL.get().map(|level| level.directives.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Has other directives hold from now on, and says which.
pub(crate) fn set(directives: &str) -> anyhow::Result<String> {
    let now = parts(directives).collect::<Vec<_>>().join(",");
    ensure!(!now.is_empty(), "a level or a list of tracing directives is missing, such as info,referral_svc=debug");
    // In RUST_LOG a bare word may be a target; here it is a level with a slip in it, which would switch everything else off.
    for one in parts(&now).filter(|one| !one.contains(['=', '['])) {
        ensure!(one.parse::<LevelFilter>().is_ok(), "`{one}` is not a level: off, error, warn, info, debug or trace");
    }
    let filter = parse(&now)?;
    let level = LEVEL.get().context("this process has no log of its own")?;
    let mut held = level.directives.lock().unwrap_or_else(PoisonError::into_inner);
    (level.replace)(filter)?;
    let was = std::mem::replace(&mut *held, now.clone());
    tracing::info!(target: TARGET, was, is = now, "the log level changes");
    Ok(now)
}
