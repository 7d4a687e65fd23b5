//! What is asked over HTTP, and what is answered.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::request::Parts;
use ::http::{StatusCode, header};
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, State};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Map, Value, json};

use crate::health::{Health, Seen};
use crate::peer::Peer;
use crate::telemetry::{level, metrics};

const BODY_BYTES_MAX: usize = 4 * 1024;
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router(health: Health, peer: Arc<Peer>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready).with_state((health, peer)))
        .route("/metrics", get(async || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::prometheus_text())))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn ready(State((health, peer)): State<(Health, Arc<Peer>)>) -> impl IntoResponse {
    let state = health.state();
    let status = match state.database {
        _ if state.stopping => "stopping",
        Seen::Nothing => "starting",
        Seen::Up { .. } => "ready",
        Seen::Down { .. } => "database away",
    };
    let code = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut about_peer = described(peer.seen());
    about_peer.insert("name".to_owned(), peer.name().into());
    if !peer.is_configured() {
        about_peer.insert("status".to_owned(), "unconfigured".into());
    }
    let body = json!({ "status": status, "database": described(state.database), "peer": about_peer });
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

fn described(seen: Seen) -> Map<String, Value> {
    let pairs = match seen {
        Seen::Nothing => vec![("status", "unknown".into())],
        Seen::Up { latency } => {
            let latency_ms = (latency.as_secs_f64() * 1e5).round() / 1e2;
            vec![("status", "up".into()), ("latency_ms", latency_ms.into())]
        }
        Seen::Down { error } => vec![("status", "down".into()), ("error", error.into())],
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn log_level() -> Result<String, StatusCode> {
    level::current().map(|directives| format!("{directives}\n")).ok_or(StatusCode::NOT_FOUND)
}

async fn set_log_level(_: FromHere, directives: String) -> Result<String, (StatusCode, String)> {
    match level::set(&directives) {
        Ok(now) => Ok(format!("{now}\n")),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("{error:#}\n"))),
    }
}

/// Only whoever is on this machine may change anything.
struct FromHere;

impl<S: Sync> FromRequestParts<S> for FromHere {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(from)) if from.ip().to_canonical().is_loopback() => Ok(Self),
            _ => Err((StatusCode::FORBIDDEN, "only from this machine's loopback\n")),
        }
    }
}
