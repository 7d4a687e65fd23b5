//! The operators' listener, over HTTP/1: whether the process lives, whether it is ready, its metrics, its log level. It is
//! there before anything else and outlives the drain, so that a probe can tell one from the other.

mod routes;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::health::Health;
use crate::peer::Peer;

const CONNECTIONS_MAX: usize = 64;
/// For all headers of a request, and between two requests.
const HEADERS_LIMIT: Duration = Duration::from_secs(5);
/// A connection's whole life: whoever sends or reads byte by byte holds its place no longer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// For an answer that is on its way when its connection has to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// When there are no more sockets to be had, above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that answers until it is stopped or dropped.
#[derive(Debug)]
pub struct HttpServer {
    pub local_addr: SocketAddr,
    accepting: JoinHandle<()>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// What the variable says, if it is set.
    pub given: Option<SocketAddr>,
    /// Otherwise, unless it is taken; then it is any free port on loopback.
    pub default: SocketAddr,
    pub variable: &'static str,
    /// The service's own, which it listens on later.
    pub grpc: SocketAddr,
}

impl HttpServer {
    /// Listens and answers. It is ready as soon as `health` is.
    pub async fn start(listen: Listen, health: Health, peer: Peer) -> anyhow::Result<Self> {
        let listener = listen.bind().await?;
        let local_addr = listener.local_addr()?;
        tracing::info!(%local_addr, "operators are answered over HTTP");
        let peer = Arc::new(peer);
        let router = routes::router(health, Arc::clone(&peer));
        let stop = CancellationToken::new();
        let accepting = tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(async {
                    tokio::join!(accept(listener, router, &stop), peer.watch());
                })
                .await;
            }
        });
        Ok(Self { local_addr, accepting, _stop_on_drop: stop.clone().drop_guard(), stop })
    }

    /// Its port is free when this returns.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.accepting.await;
    }
}

impl Listen {
    async fn bind(self) -> anyhow::Result<TcpListener> {
        if let Some(address) = self.given {
            let bound = TcpListener::bind(address).await;
            return bound.with_context(|| format!("{}: can't listen on {address}", self.variable));
        }
        if self.default.port() != self.grpc.port()
            && let Ok(listener) = TcpListener::bind(self.default).await
        {
            return Ok(listener);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local_addr = listener.local_addr()?;
        tracing::warn!(%local_addr, default = %self.default, "{}'s default is taken: HTTP is elsewhere", self.variable);
        Ok(listener)
    }
}

async fn accept(listener: TcpListener, router: Router, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => drop(tokio::spawn(serve(stream, from, router.clone(), stop.clone(), place))),
            Err(error) => {
                tracing::debug!(%error, "a connection over HTTP can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(from));
        router.clone().oneshot(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
    );
    // How it ends is the client's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_LIMIT) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(ANSWER_LIMIT, connection).await;
}
