//! The pair's other service, looked at over `grpc.health.v1` for `/readyz`: reported there, and never decisive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::health::Seen;

const INTERVAL: Duration = Duration::from_secs(5);
/// As long as it is away.
const INTERVAL_AWAY: Duration = Duration::from_secs(1);
/// For connecting and the answer together.
const LIMIT: Duration = Duration::from_secs(1);

/// Where the other service is, if anybody said so, and how it was.
pub struct Peer {
    name: &'static str,
    endpoint: Option<Endpoint>,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    pub fn new(name: &'static str, endpoint: Option<Endpoint>) -> Self {
        Self { name, endpoint, seen: Arc::default() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.endpoint.is_some()
    }

    /// The last look. Nobody who asks waits for the next one.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at it for as long as somebody polls this.
    pub(crate) async fn watch(&self) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let mut client = HealthClient::new(endpoint.connect_timeout(LIMIT).connect_lazy());
        loop {
            let seen = look(&mut client).await;
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            let pause = if matches!(seen, Seen::Up { .. }) { INTERVAL } else { INTERVAL_AWAY };
            tokio::time::sleep(pause).await;
        }
    }
}

async fn look(client: &mut HealthClient<Channel>) -> Seen {
    let asked = Instant::now();
    match tokio::time::timeout(LIMIT, client.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Seen::Up { latency: asked.elapsed() },
        Ok(Ok(_)) => Seen::Down { error: "it is not serving" },
        Ok(Err(_)) => Seen::Down { error: "can't be reached" },
        Err(_) => Seen::Down { error: "no answer in time" },
    }
}
