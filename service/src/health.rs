//! Health as `grpc.health.v1` tells it: asks the database each second, for every service name and for the whole.

use std::time::Duration;

use deadpool::managed::TimeoutType;
use diesel_async::SimpleAsyncConnection as _;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::database::{Pool, PoolError};

const INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Health {
    reporter: HealthReporter,
    service_names: Vec<&'static str>,
    pool: Pool,
    serving: Option<bool>,
}

impl Health {
    /// Has looked once when it returns.
    pub(crate) async fn new(reporter: HealthReporter, service_names: Vec<&'static str>, pool: Pool) -> Self {
        let mut health = Self { reporter, service_names, pool, serving: None };
        health.look().await;
        health
    }

    /// Looks again and again until shutdown, then says NOT_SERVING for good.
    pub(crate) async fn watch(mut self, shutdown: CancellationToken) {
        let looking = async {
            loop {
                tokio::time::sleep(INTERVAL).await;
                self.look().await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(looking).await;
        self.tell(false).await;
    }

    async fn look(&mut self) {
        let answer = match tokio::time::timeout(PING_TIMEOUT, ping(&self.pool)).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let serving = answer.is_ok();
        if self.serving == Some(serving) {
            return;
        }
        match answer {
            Ok(()) => tracing::info!("the database answers: serving"),
            Err(error) => tracing::warn!(error, "the database is away: not serving"),
        }
        self.serving = Some(serving);
        self.tell(serving).await;
    }

    async fn tell(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.service_names.iter().chain(&[""]) {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

/// A pool whose connections are all in use is busy, not ill.
async fn ping(pool: &Pool) -> Result<(), String> {
    if pool.status().available == 0 && pool.status().size >= pool.status().max_size {
        return Ok(());
    }
    let mut connection = match pool.get().await {
        Ok(connection) => connection,
        Err(PoolError::Timeout(TimeoutType::Wait)) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    connection.batch_execute("SELECT 1").await.map_err(|error| error.to_string())
}
