//! Checks the books: now and then by itself, and whenever an operator asks.

use std::{panic::AssertUnwindSafe, time::Duration};

use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use service::database::{self, Connection, Pool};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    store::{
        Result,
        check::{self, Check},
    },
};

/// A start has more urgent things to do.
const FIRST_AFTER: Duration = Duration::from_secs(5);

/// When it is tried again after another instance was at it, or it came to no end.
const AGAIN_AFTER: Duration = Duration::from_secs(120);

/// The job that checks the books every so often. All instances have it, since each tells of what it found itself; they take
/// turns.
pub(crate) struct Bookkeeper {
    pub(crate) pool: Pool,
    /// None: never.
    pub(crate) every: Option<Duration>,
    pub(crate) shutdown: CancellationToken,
}

impl Bookkeeper {
    pub(crate) async fn run(self) {
        metrics::ledger_checked_every(self.every);
        let Some(every) = self.every else { return };
        let work = async {
            tokio::time::sleep(FIRST_AFTER).await;
            loop {
                let pause = match AssertUnwindSafe(self.check_in_turn()).catch_unwind().await {
                    Ok(Ok(true)) => every,
                    Ok(Ok(false)) => {
                        tracing::debug!("another instance checks the books");
                        AGAIN_AFTER.min(every)
                    }
                    Ok(Err(error)) => {
                        if !self.pool.note(&error) {
                            tracing::warn!(error = %error, "the books could not be checked");
                        }
                        AGAIN_AFTER.min(every)
                    }
                    // The panic hook has logged it.
                    Err(_panic) => every,
                };
                tokio::time::sleep(pause).await;
            }
        };
        self.shutdown.run_until_cancelled(work).await;
    }

    /// Whether it was this instance's turn.
    async fn check_in_turn(&self) -> Result<bool> {
        let turn = self.turn().await.inspect_err(|_| metrics::ledger_check_failed())?;
        let Some(mut connection) = turn else {
            return Ok(false);
        };
        check_books(&mut connection).await?;
        Ok(true)
    }

    /// The connection to check on, if nobody else is at it. The turn is the database session's: out of the pool, the
    /// connection ends with it, even in the middle.
    async fn turn(&self) -> Result<Option<AsyncPgConnection>> {
        let mut connection = Connection::take(database::connect(&self.pool).await?);
        Ok(check::elect(&mut connection).await?.then_some(connection))
    }
}

/// Checks the books and tells the metrics and, if something is wrong, the log: which check, and how many offend. Who they
/// are is for those who ask.
pub(crate) async fn check_books(connection: &mut AsyncPgConnection) -> Result<Vec<Check>> {
    let checks = check::run(connection).await.inspect_err(|_| metrics::ledger_check_failed())?;
    metrics::ledger_checked(checks.iter().map(|check| (check.name, check.offenders)));
    for violated in checks.iter().filter(|check| check.offenders > 0) {
        tracing::error!(check = violated.name, offenders = violated.offenders, "the books do not balance");
    }
    Ok(checks)
}
