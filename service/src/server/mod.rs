//! The gRPC server of a service: the edge around every call, reflection, health, limits, drain.

mod body;
mod contract;
mod edge;
mod library_errors;
mod metrics;
mod record;
mod span;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;

use crate::database::Pool;
use crate::health::{Health, Watch};
use crate::telemetry;
use edge::EdgeLayer;

/// The longest that calls may go on after shutdown begins.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Streams never end by themselves: those that their handlers haven't ended by now are ended with UNAVAILABLE.
const STREAMS_DEADLINE: Duration = Duration::from_secs(1);
const MAX_STREAMS_PER_CONNECTION: u32 = 2048;
/// What HTTP/2 takes at all; the edge refuses much less, with details.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// What a message may measure, for the owners of services to set on them.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
pub const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// A server in the making: services are added, then it serves.
pub struct GrpcServer {
    error_domain: &'static str,
    service_names: Vec<&'static str>,
    max_in_flight: usize,
    routes: Routes,
    reporter: HealthReporter,
    health: Health,
}

/// A server that listens.
pub struct Running {
    pub local_addr: SocketAddr,
    /// Ends when the drain is over.
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl GrpcServer {
    /// With reflection and health, and no service yet. The names are those that health and reflection list.
    pub fn new(error_domain: &'static str, service_names: &[&'static str]) -> Self {
        telemetry::ensure();
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let routes = contract::with_reflection(Routes::new(health_service), service_names);
        let service_names = service_names.to_vec();
        Self { error_domain, service_names, max_in_flight: 1024, routes, reporter, health: Health::default() }
    }

    /// Unary calls beyond this many at once are refused with RESOURCE_EXHAUSTED. 1024 unless told.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Who else is told what is known of the service's health.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + tonic::server::NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self
    }

    /// Binds at once, so that the address is known, then serves until `shutdown` is cancelled, then drains.
    pub async fn serve(self, listen: SocketAddr, pool: Pool, shutdown: CancellationToken) -> anyhow::Result<Running> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("can't listen on {listen}"))?;
        let local_addr = listener.local_addr()?;
        if !local_addr.ip().is_loopback() {
            tracing::warn!(%local_addr, "not a loopback address: callers from elsewhere go unnamed until identity is configured");
        }
        let watch = Watch::new(self.health, self.reporter, self.service_names, pool).await;
        tokio::spawn(watch.run(shutdown.clone()));

        let end_streams = CancellationToken::new();
        let edge = EdgeLayer::new(self.error_domain, self.max_in_flight, end_streams.clone());
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .layer(edge)
            .serve_with_incoming_shutdown(
                self.routes.prepare(),
                TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(Duration::from_secs(60))),
                shutdown.clone().cancelled_owned(),
            );
        let task = tokio::spawn(async move {
            tokio::select! {
                served = serving => served.context("the gRPC server failed"),
                () = drain(shutdown, end_streams) => {
                    tracing::warn!("calls that outlast the drain are cut off");
                    Ok(())
                }
            }
        });
        Ok(Running { local_addr, task })
    }
}

/// tonic's own shutdown waits for open streams as long as they like.
async fn drain(shutdown: CancellationToken, end_streams: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(STREAMS_DEADLINE).await;
    end_streams.cancel();
    tokio::time::sleep(DRAIN_DEADLINE - STREAMS_DEADLINE).await;
}

#[cfg(test)]
mod tests;
