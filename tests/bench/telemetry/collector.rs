//! What stands in for an OTLP collector, well or not, and for Sentry.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use p2phub_tests::ports;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::receiver::Receiver;

/// How long a slow collector takes for each answer.
const SLOW: Duration = Duration::from_secs(2);
/// What an exporter's batch may measure.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the collector fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, and nobody was told of one.
    Unconfigured,
    Well,
    Slow,
    Silent,
    Away,
}

/// A collector; it ends when dropped.
pub(super) struct Collector {
    address: Option<SocketAddr>,
    spans: Arc<AtomicUsize>,
    task: Option<JoinHandle<()>>,
    _silent: Option<Receiver>,
}

impl Collector {
    pub(super) async fn start(state: State) -> Self {
        let mut collector = Self { address: None, spans: Arc::default(), task: None, _silent: None };
        match state {
            State::Unconfigured => {}
            State::Away => collector.address = Some(ports::free()),
            State::Silent => {
                let silent = Receiver::hanging().await;
                collector.address = Some(silent.address());
                collector._silent = Some(silent);
            }
            State::Well | State::Slow => {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                collector.address = Some(listener.local_addr().expect("an address"));
                let delay = if state == State::Slow { SLOW } else { Duration::ZERO };
                let taker = Taker { delay, spans: Arc::clone(&collector.spans) };
                let traces = TraceServiceServer::new(taker.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
                let metrics = MetricsServiceServer::new(taker).max_decoding_message_size(MESSAGE_BYTES_MAX);
                let serving = Server::builder().add_service(traces).add_service(metrics);
                collector.task = Some(tokio::spawn(async move {
                    serving.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("a collector");
                }));
            }
        }
        collector
    }

    /// What tells a service of it.
    pub(super) fn endpoint(&self) -> Option<String> {
        self.address.map(|address| format!("http://{address}"))
    }

    /// Spans that have come.
    pub(super) fn spans(&self) -> usize {
        self.spans.load(Ordering::Relaxed)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Takes everything and keeps nothing.
#[derive(Clone)]
struct Taker {
    delay: Duration,
    spans: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        sleep(self.delay).await;
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        self.spans.fetch_add(scopes.map(|scope| scope.spans.len()).sum(), Ordering::Relaxed);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taker {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        sleep(self.delay).await;
        Ok(Response::new(Default::default()))
    }
}
