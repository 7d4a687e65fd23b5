//! What an operator asks a service over HTTP.

use std::{net::SocketAddr, sync::LazyLock};

use reqwest::{Client, Method};
use serde_json::Value;

/// A client is dear to make. Each question has a connection of its own: services come and go.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    install_tls();
    Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
});

/// No client is made without, though it speaks plain HTTP; a service in this process may have been first.
pub fn install_tls() {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks; `None` if nobody answers.
pub async fn ask(address: SocketAddr, method: Method, path: &str, body: String) -> Option<Answer> {
    let answer = CLIENT.request(method, format!("http://{address}{path}")).body(body).send().await.ok()?;
    let status = answer.status().as_u16();
    let header = |name| answer.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let content_type = header("content-type").unwrap_or_default().to_owned();
    Some(Answer { status, content_type, body: answer.text().await.ok()? })
}

/// Asks, and is answered.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, Method::GET, path, String::new()).await.unwrap_or_else(|| panic!("{path} on {address}: no answer"))
}

/// Sets what is logged.
pub async fn set_log_level(address: SocketAddr, directives: &str) -> Answer {
    ask(address, Method::PUT, "/log-level", directives.to_owned()).await.expect("an answer")
}
