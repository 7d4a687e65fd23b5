//! Health as `grpc.health.v1` tells it: asks the database each second, for every service name and for the whole.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use deadpool::managed::Manager as _;
use diesel_async::pooled_connection::PoolableConnection as _;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::database::Pool;

const INTERVAL: Duration = Duration::from_secs(1);
/// For connecting, and for an answer.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Health {
    reporter: HealthReporter,
    service_names: Vec<&'static str>,
    pool: Pool,
    /// Of its own, connected as the pool's are: those may all be in use, and that the database is busy is no illness.
    connection: Option<AsyncPgConnection>,
    serving: Option<bool>,
}

impl Health {
    /// Has looked once when it returns.
    pub(crate) async fn new(reporter: HealthReporter, service_names: Vec<&'static str>, pool: Pool) -> Self {
        let mut health = Self { reporter, service_names, pool, connection: None, serving: None };
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
        let answer = self.ask().await;
        let serving = answer.is_ok();
        match &answer {
            Ok(()) => self.pool.answered(),
            Err(error) => self.pool.unanswered(error),
        }
        if self.serving == Some(serving) {
            return;
        }
        tracing::debug!(serving, "health changes");
        self.serving = Some(serving);
        self.tell(serving).await;
    }

    async fn ask(&mut self) -> Result<(), String> {
        // One that broke since the last look says nothing about the database now.
        let kept = self.connection.take().and_then(|mut kept| (!kept.is_broken()).then_some(kept));
        let mut connection = match kept {
            Some(kept) => kept,
            None => in_time(self.pool.manager().create()).await?,
        };
        in_time(connection.batch_execute("SELECT 1")).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn tell(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.service_names.iter().chain(&[""]) {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

async fn in_time<T, E: Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
