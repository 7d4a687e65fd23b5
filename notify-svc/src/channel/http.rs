//! What the channels over HTTP share: the client, and what it means when no answer comes.

use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use notify_domain::{
    answer,
    delivery::Outcome,
    state::OutcomeClass::{Address, Ambiguous, Transient},
};
use reqwest::{Client, ClientBuilder, Response, header, redirect};

/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// For the whole exchange; shorter than what a worker allows a send.
const TIMEOUT: Duration = Duration::from_secs(9);
/// Bytes read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A client that follows no redirects: an address is what it is.
pub(super) fn client() -> anyhow::Result<Client> {
    builder().build().context("no HTTP client")
}

/// The same, to be fitted for one channel.
pub(super) fn builder() -> ClientBuilder {
    // Telemetry installs it in the binary; a second time does nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("p2phub-notify/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
}

/// What it means that no answer came. Errors are not shown: they hold the URL, and with it a token.
pub(super) fn unanswered(error: &reqwest::Error) -> Outcome {
    if error.is_builder() {
        Outcome::new(Address, "ADDRESS_MALFORMED")
    } else if error.is_connect() {
        Outcome::new(Transient, "CONNECT_FAILED")
    } else if error.is_timeout() {
        Outcome::new(Ambiguous, "TIMEOUT")
    } else {
        Outcome::new(Ambiguous, "CONNECTION_LOST")
    }
}

/// How long the server asks to wait.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    answer::retry_after(wait, Utc::now())
}

/// The beginning of an answer's body; what can't be read is left out.
pub(super) async fn body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    body
}
