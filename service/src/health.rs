//! Whether the service can serve: asks the database each second. gRPC health and `/readyz` tell what the last look saw, so
//! that they agree, and so that a flood of questions costs the database nothing.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// The last look at something, for all who ask.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Seen {
    #[default]
    Nothing,
    Up {
        latency: Duration,
    },
    /// Why, in words of our own: what others say may name what is nobody's business.
    Down {
        error: &'static str,
    },
}

/// What is known of the service's health. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

/// At first nothing is known, and the service isn't ready.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) database: Seen,
    pub(crate) stopping: bool,
}

impl State {
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.database, Seen::Up { .. }) && !self.stopping
    }
}

impl Health {
    pub(crate) fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Looks, and tells.
pub(crate) struct Watch {
    health: Health,
    reporter: HealthReporter,
    service_names: Vec<&'static str>,
    pool: Pool,
    /// Of its own, connected as the pool's are: those may all be in use, and that the database is busy is no illness.
    connection: Option<AsyncPgConnection>,
    serving: Option<bool>,
}

/// Why there was no answer: for everyone, and for the log.
struct Absent {
    error: &'static str,
    detail: String,
}

impl Watch {
    /// Has looked once when it returns.
    pub(crate) async fn new(
        health: Health,
        reporter: HealthReporter,
        service_names: Vec<&'static str>,
        pool: Pool,
    ) -> Self {
        let mut watch = Self { health, reporter, service_names, pool, connection: None, serving: None };
        watch.look().await;
        watch
    }

    /// Looks again and again until shutdown, then says NOT_SERVING for good.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let looking = async {
            loop {
                tokio::time::sleep(INTERVAL).await;
                self.look().await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(looking).await;
        self.health.note(|state| state.stopping = true);
        self.tell(false).await;
    }

    async fn look(&mut self) {
        let answer = self.ask().await;
        let serving = answer.is_ok();
        match &answer {
            Ok(_) => self.pool.answered(),
            Err(absent) => self.pool.unanswered(&absent.detail),
        }
        self.health.note(|state| {
            state.database = match &answer {
                Ok(latency) => Seen::Up { latency: *latency },
                Err(absent) => Seen::Down { error: absent.error },
            }
        });
        if self.serving == Some(serving) {
            return;
        }
        tracing::debug!(serving, "health changes");
        self.serving = Some(serving);
        self.tell(serving).await;
    }

    /// How long the answer took.
    async fn ask(&mut self) -> Result<Duration, Absent> {
        // One that broke since the last look says nothing about the database now.
        let kept = self.connection.take().and_then(|mut kept| (!kept.is_broken()).then_some(kept));
        let mut connection = match kept {
            Some(kept) => kept,
            None => in_time("can't connect", self.pool.manager().create()).await?,
        };
        let asked = Instant::now();
        in_time("the connection broke", connection.batch_execute("SELECT 1")).await?;
        self.connection = Some(connection);
        Ok(asked.elapsed())
    }

    async fn tell(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.service_names.iter().chain(&[""]) {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

async fn in_time<T, E: Display>(failed: &'static str, asked: impl Future<Output = Result<T, E>>) -> Result<T, Absent> {
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| Absent { error: failed, detail: error.to_string() }),
        Err(_) => Err(Absent { error: "no answer in time", detail: "no answer in time".to_owned() }),
    }
}
