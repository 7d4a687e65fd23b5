//! The edge around every call: trace and caller in, limits and deadline around the handler, trace ID and details out.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::body::EdgeBody;
use super::contract::Rpc;
use super::library_errors::deadline_exceeded;
use super::record::CallRecord;
use super::span;
use crate::call::{CallContext, Deadline};
use crate::error::Failure;
use crate::telemetry::{
    self,
    report::{ReportIn as _, Scope},
};

const METADATA_BYTES_MAX: usize = 8 * 1024;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const MAX_DEADLINE: Duration = Duration::from_secs(300);
/// tonic has a clock of its own for `grpc-timeout` further out, whose error has no details: the edge must be first.
const HEAD_START: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub(super) struct EdgeLayer {
    error_domain: &'static str,
    in_flight: Arc<Semaphore>,
    end_streams: CancellationToken,
}

impl EdgeLayer {
    pub(super) fn new(error_domain: &'static str, max_in_flight: usize, end_streams: CancellationToken) -> Self {
        Self { error_domain, in_flight: Arc::new(Semaphore::new(max_in_flight)), end_streams }
    }

    /// Opens the call's span and its record.
    fn open(&self, rpc: &Rpc, caller: &str, headers: &HeaderMap) -> (CallRecord, CallContext) {
        let baggage = telemetry::baggage_in(headers);
        let (span, traceparent) = span::open(rpc, caller, headers, &baggage);
        let trace_id = telemetry::trace_id_of(&traceparent).unwrap_or_default();
        let record = CallRecord {
            scope: Scope::of(rpc.method),
            span,
            error_domain: self.error_domain,
            trace_id: trace_id.clone(),
            rpc: rpc.clone(),
            started: Instant::now(),
            in_flight: None,
            ended: false,
        };
        (record, CallContext { caller: caller.to_owned(), trace_id, traceparent, baggage })
    }

    /// Streams and health checks are few and long: they don't count.
    fn admit(&self, rpc: &Rpc, call: &mut CallRecord) -> Result<(), Failure> {
        if rpc.streams || rpc.infrastructure {
            return Ok(());
        }
        let place = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Code::ResourceExhausted, "TOO_MANY_CALLS", "too many calls are in progress; nothing was done")
        })?;
        call.in_flight = Some(place);
        Ok(())
    }

    /// When a stream has to end: with the server, or at the deadline that the caller set.
    fn end_of_stream(&self, deadline: Option<Duration>) -> BoxFuture<'static, Failure> {
        let end_streams = self.end_streams.clone();
        Box::pin(async move {
            let after = deadline.unwrap_or(Duration::MAX);
            match tokio::time::timeout(after, end_streams.cancelled()).await {
                Ok(()) => Failure::unavailable("the server is shutting down"),
                Err(_) => deadline_exceeded(after),
            }
        })
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, layer: self.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Edge<S> {
    inner: S,
    layer: EdgeLayer,
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let edge = self.layer.clone();

        let rpc = Rpc::of(request.uri().path());
        let caller = caller_of(&request);
        let name = caller.as_deref().unwrap_or("invalid");
        let (mut call, context) = edge.open(&rpc, name, request.headers());
        let (scope, span) = (call.scope.clone(), call.span.clone());
        request.extensions_mut().insert(context);
        Box::pin(
            async move {
                let asked = grpc_timeout(request.headers());
                let deadline = match (asked, rpc.streams) {
                    (asked, true) => asked,
                    (None, false) => Some(DEFAULT_DEADLINE),
                    (Some(asked), false) => Some(asked.min(MAX_DEADLINE)),
                };
                let admitted =
                    caller.and_then(|_| bounded(request.headers())).and_then(|()| edge.admit(&rpc, &mut call));
                if let Some(at) = deadline.and_then(Deadline::after) {
                    request.extensions_mut().insert(at);
                }
                let answered = match admitted {
                    Ok(()) => answer(inner, request, deadline).await,
                    Err(refused) => Err(refused),
                };
                let mut response = answered.unwrap_or_else(|why| call.status(why).into_http());
                call.sign(response.headers_mut());
                // An error before the first message comes as headers alone.
                if response.headers().contains_key(Status::GRPC_STATUS) {
                    call.end(response.headers_mut());
                    return Ok(response);
                }
                let end = rpc.streams.then(|| edge.end_of_stream(deadline));
                Ok(response.map(|inner| Body::new(EdgeBody { inner, call, end })))
            }
            .instrument(span)
            .report_in(scope),
        )
    }
}

/// The handler's answer, a panic as INTERNAL, silence past the deadline as DEADLINE_EXCEEDED.
async fn answer<S>(mut inner: S, request: Request<Body>, deadline: Option<Duration>) -> Result<Response<Body>, Failure>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let after = deadline.unwrap_or(Duration::MAX);
    if after <= HEAD_START {
        // tonic's own timer, which starts first and knows no details, could be the first to ring.
        return Err(deadline_exceeded(after));
    }
    let handled = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(after.saturating_sub(HEAD_START), handled).await {
        Ok(Ok(Ok(response))) => Ok(response),
        // The panic itself is on record: the hook logged it.
        Ok(Err(_)) => Err(Failure::internal()),
        Err(_) => Err(deadline_exceeded(after)),
    }
}

/// Until identity is configured, a caller is who it says it is, on loopback only.
fn caller_of(request: &Request<Body>) -> Result<String, Failure> {
    let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    if peer.is_some_and(|peer| !is_loopback(peer.ip())) {
        return Ok(CallContext::REMOTE_CALLER.to_owned());
    }
    let Some(value) = request.headers().get(CallContext::METADATA) else {
        return Ok(CallContext::DEFAULT_CALLER.to_owned());
    };
    let bytes = value.as_bytes();
    let valid = (1..=64).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(name) if valid => Ok(name.to_owned()),
        _ => Err(Failure::violation(CallContext::METADATA, "must be 1 to 64 visible ASCII characters")),
    }
}

/// Metadata that nobody means to send.
fn bounded(headers: &HeaderMap) -> Result<(), Failure> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        let what = format!("must be at most {METADATA_BYTES_MAX} bytes together");
        return Err(Failure::new(Code::InvalidArgument, "METADATA_TOO_LARGE", format!("metadata: {what}"))
            .with_violation("metadata", what));
    }
    Ok(())
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// `grpc-timeout`: up to eight digits and a unit. Malformed is as good as missing, as in tonic.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read() {
        let read = |value: &'static str| {
            let value = http::HeaderValue::from_static(value);
            grpc_timeout(&HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]))
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for malformed in ["", "m", "10", "+1S", "123456789S", "1x"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let silent = tower::service_fn(|_| std::future::pending::<Result<_, Infallible>>());
        let deadline = Some(Duration::from_millis(20));
        let failure = answer(silent, Request::new(Body::empty()), deadline).await.unwrap_err();
        assert_eq!(failure.code, Code::DeadlineExceeded);
    }
}
