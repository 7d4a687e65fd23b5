//! A collector of one's own: it takes traces and metrics over OTLP/gRPC and keeps them to be looked at.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::wait;

/// One span as it arrived, with the service that sent it.
#[derive(Clone, Debug)]
pub struct Collected {
    /// `service.name` of its resource.
    pub service: String,
    pub span: Span,
}

impl Collected {
    /// Thirty-two hex digits.
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Sixteen hex digits.
    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Empty for a root.
    pub fn parent_id(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub fn name(&self) -> &str {
        &self.span.name
    }

    pub fn is(&self, kind: SpanKind) -> bool {
        self.span.kind() == kind
    }

    pub fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }

    /// The attribute as text; `None` if it has none.
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }

    /// Whether one of its links is to this span.
    pub fn links_to(&self, other: &Self) -> bool {
        let to = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
            link.trace_id == other.span.trace_id && link.span_id == other.span.span_id
        };
        self.span.links.iter().any(to)
    }
}

/// A collector on a port of loopback, until it is dropped.
pub struct Otlp {
    address: SocketAddr,
    authority: Option<Authority>,
    received: Received,
    _running: DropGuard,
}

/// Who answers for a collector's certificate.
struct Authority {
    directory: TempDir,
}

#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Collected>>>,
    metrics: Arc<Mutex<Vec<(String, Metric)>>>,
    refusing: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Otlp {
    /// Without TLS.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Without TLS, where something may have been told before that it is.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::serve(address, Server::builder(), None).await
    }

    /// With TLS, under a certificate for `localhost` that nobody knows who isn't told.
    pub async fn start_tls() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let directory = tempfile::Builder::new().prefix("p2phub-test-").tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), cert.pem()).expect("a file");
        let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).expect("TLS");
        Self::serve(([127, 0, 0, 1], 0).into(), server, Some(Authority { directory })).await
    }

    async fn serve(address: SocketAddr, mut server: Server, authority: Option<Authority>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Received::default();
        let shutdown = CancellationToken::new();
        let serving = server
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.clone().cancelled_owned());
        tokio::spawn(serving);
        Self { address, authority, received, _running: shutdown.drop_guard() }
    }

    /// For OTEL_EXPORTER_OTLP_ENDPOINT.
    pub fn url(&self) -> String {
        match self.authority {
            Some(_) => format!("https://localhost:{}", self.address.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// From now on it refuses spans, or takes them again.
    pub fn refuse_spans(&self, refusing: bool) {
        self.received.refusing.store(refusing, Ordering::SeqCst);
    }

    /// How many batches of spans it has refused.
    pub fn refused(&self) -> usize {
        self.received.refused.load(Ordering::SeqCst)
    }

    /// For OTEL_EXPORTER_OTLP_CERTIFICATE.
    pub fn certificate(&self) -> PathBuf {
        self.authority.as_ref().expect("a collector with TLS").directory.path().join("ca.pem")
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Collected> {
        self.received.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of one trace so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Collected> {
        self.spans().into_iter().filter(|span| span.trace_id() == trace_id).collect()
    }

    /// The metrics so far, each with its service, as often as they were pushed.
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        self.received.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the spans are such that `find` finds what it looks for.
    pub async fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&[Collected]) -> Option<T>) -> T {
        wait::until(what, async || find(&self.spans())).await
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.refusing.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            // Nothing that is worth another try.
            return Err(Status::permission_denied("no"));
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.into_inner().resource_spans {
            let service = service_name(of_resource.resource.as_ref());
            let new = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            spans.extend(new.map(|span| Collected { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.into_inner().resource_metrics {
            let service = service_name(of_resource.resource.as_ref());
            let new = of_resource.scope_metrics.into_iter().flat_map(|of_scope| of_scope.metrics);
            metrics.extend(new.map(|metric| (service.clone(), metric)));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    resource.and_then(|resource| attribute(&resource.attributes, "service.name")).unwrap_or_default()
}

/// An attribute or label as text; `None` if there is none.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
