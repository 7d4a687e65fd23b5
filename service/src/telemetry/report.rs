//! Errors and panics on their way to Sentry: each with its trace, its call and its release, and without what is personal.

use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use std::{future::Future, pin::pin, thread};

use opentelemetry::trace::TraceContextExt as _;
use sentry::integrations::backtrace::ProcessStacktraceIntegration;
use sentry::integrations::contexts::ContextIntegration;
use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::{Event, Exception, Level, TraceContext};
use sentry::transports::ReqwestHttpTransportOptions;
use sentry::{Client, ClientOptions, Hub, HubSwitchGuard, Transport, TransportFactory, TransportOptions};

use super::format::PROCESS;
use super::settings::Sentry;
use super::{scrub, trace};

/// How long the end of the process waits for what is still queued.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long a connection is kept that nothing goes over: not so long that Sentry closes it first.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Envelopes that wait for Sentry; what comes when so many do is lost.
const QUEUE_MAX: usize = 100;

/// The client of the process, which every scope reports to; none while Sentry is off.
static CLIENT: OnceLock<Arc<Client>> = OnceLock::new();

/// Both ways to Sentry. Transactions have one of their own, so that errors never queue behind them.
pub(super) struct Reporter {
    errors: Arc<Client>,
    pub(super) transactions: Arc<Client>,
}

impl Reporter {
    pub(super) fn start(service: &'static str, version: &str, settings: &Sentry) -> Self {
        let release = settings.release.clone().unwrap_or_else(|| format!("{service}@{version}"));
        let mut options = ClientOptions::new()
            .release(release)
            .environment(settings.environment.clone())
            .transport_channel_capacity(QUEUE_MAX)
            .shutdown_timeout(LAST_WORDS)
            .transport(Impatient)
            .default_integrations(false)
            .add_integration(ContextIntegration::new())
            .add_integration(ProcessStacktraceIntegration);
        options.dsn = Some(settings.dsn.clone());
        let transactions = Arc::new(Client::from(options.clone()));
        let errors = Arc::new(Client::from(options.before_send(move |mut event| {
            complete(&mut event, service);
            Some(event)
        })));
        Hub::main().bind_client(Some(errors.clone()));
        let _ = CLIENT.set(errors.clone());
        Self { errors, transactions }
    }

    /// Sends what is queued, for a few seconds at most: the library itself would wait for an answer that never comes.
    pub(super) fn shutdown(self) {
        let (closed, all_closed) = mpsc::channel::<()>();
        for client in [self.errors, self.transactions] {
            let closed = closed.clone();
            thread::spawn(move || {
                client.close(Some(LAST_WORDS));
                drop(closed);
            });
        }
        drop(closed);
        // Nothing is ever sent there: it ends when both are closed.
        let _ = all_closed.recv_timeout(LAST_WORDS);
    }
}

/// A transport that gives up on a request: one that hangs would hold up all others, and the end of the process.
struct Impatient;

impl TransportFactory for Impatient {
    /// Each has connections of its own, since only its own thread drives them.
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let options = ReqwestHttpTransportOptions::from(options);
        let client = reqwest::Client::builder().timeout(LAST_WORDS).pool_idle_timeout(IDLE_MAX).build();
        Arc::new(match client {
            Ok(client) => options.with_client(client).build(),
            Err(_) => options.build(),
        })
    }
}

/// The last thing done to an event, where it happened.
fn complete(event: &mut Event<'static>, service: &str) {
    let current = trace::current().map(|context| {
        let span = context.span().span_context().clone();
        (span.trace_id(), span.span_id())
    });
    // As in the log: what no call caused stands under the process's own trace.
    let (trace_id, span_id) = current.unwrap_or(*PROCESS);
    let trace = TraceContext {
        trace_id: trace_id.to_bytes().into(),
        span_id: span_id.to_bytes().into(),
        ..TraceContext::default()
    };
    event.contexts.insert("trace".to_owned(), trace.into());
    // A retried delivery is in a trace of its own, but told of under its notification's.
    event.tags.entry("trace_id".to_owned()).or_insert_with(|| trace_id.to_string());
    event.tags.insert("service".to_owned(), service.to_owned());
    scrub::event(event);
}

/// A panic as an event, with its stack; the library's own hook would wait until it is sent.
pub(super) fn panicked(panic: &PanicHookInfo<'_>) {
    if CLIENT.get().is_some() {
        sentry::capture_event(PanicIntegration::new().event_from_panic_info(panic));
    }
}

/// What ended the service, or kept it from starting, as an event. The process tells people by itself.
pub(crate) fn ended(error: &anyhow::Error) {
    if CLIENT.get().is_none() {
        return;
    }
    let cause = Exception {
        ty: "the service ended with an error".to_owned(),
        value: Some(format!("{error:#}")),
        ..Exception::default()
    };
    sentry::capture_event(Event { level: Level::Fatal, exception: vec![cause].into(), ..Event::default() });
}

/// What stands on the events of one call, one batch or one attempt, and on nobody else's: its tags, and the lines that
/// it logged before. Nothing at all while Sentry is off.
#[derive(Clone, Default, Debug)]
pub struct Scope(Option<Arc<Hub>>);

impl Scope {
    /// A new one, of a call of this method or of work with this name.
    pub fn of(rpc: &str) -> Self {
        let scope = Self(CLIENT.get().map(|client| Arc::new(Hub::new(Some(client.clone()), Arc::default()))));
        scope.with_tag("rpc", rpc)
    }

    /// The one that this code runs in.
    pub fn current() -> Self {
        Self(CLIENT.get().map(|_| Hub::current()))
    }

    /// Its events are found under this trace ID, in whatever trace they happen.
    #[must_use]
    pub fn with_trace_id(self, trace_id: &str) -> Self {
        self.with_tag("trace_id", trace_id)
    }

    fn with_tag(self, name: &str, value: &str) -> Self {
        if let Some(hub) = &self.0 {
            hub.configure_scope(|scope| scope.set_tag(name, value));
        }
        self
    }

    /// Until the guard is dropped, what this thread reports stands in this scope. Not across an `await`: see `ReportIn`.
    pub fn enter(&self) -> Option<HubSwitchGuard> {
        self.0.clone().map(HubSwitchGuard::new)
    }
}

/// Futures that report in a scope.
pub trait ReportIn: Future + Sized {
    /// Whatever this future reports stands in `scope`.
    fn report_in(self, scope: Scope) -> impl Future<Output = Self::Output> {
        async move {
            let mut future = pin!(self);
            std::future::poll_fn(|context| {
                let _entered = scope.enter();
                future.as_mut().poll(context)
            })
            .await
        }
    }
}

impl<F: Future> ReportIn for F {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_sentry_a_scope_is_nothing() {
        let scope = Scope::of("p2phub.test.v1.Test/Call").with_trace_id("abc");
        assert!(scope.0.is_none() && scope.enter().is_none() && Scope::current().0.is_none());
        assert_eq!(async { 7 }.report_in(scope).await, 7);
    }
}
