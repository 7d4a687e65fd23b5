//! Checks the books: now and then by itself, and whenever an operator asks.

use std::{panic::AssertUnwindSafe, time::Duration};

use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use service::database::{self, Connection, Pool};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    store::{
        Result,
        check::{self, Check, Checkpoint, Examination, Scope},
    },
};

/// A start has more urgent things to do.
const FIRST_AFTER: Duration = Duration::from_secs(5);

/// When it is tried again after another instance was at it, or it came to no end.
const AGAIN_AFTER: Duration = Duration::from_secs(120);

/// How often what is new is looked at, between the checks of everything.
const NEW_EVERY: Duration = Duration::from_secs(300);

/// How many times as long as a slice took a check rests while others write: of the time it has a fifth, and under a full load
/// takes some five times as long as with nobody there.
const REST: u32 = 4;

/// How long a check rests after a slice, so that those who write hardly feel it; not at all while nobody writes.
fn rest_after(slice: Duration, others_write: bool) -> Duration {
    if others_write { slice.saturating_mul(REST) } else { Duration::ZERO }
}

/// The job that checks the books every so often. All instances have it, since each tells of what it found itself; they take
/// turns.
pub(crate) struct Bookkeeper {
    pub(crate) pool: Pool,
    /// None: never.
    pub(crate) every: Option<Duration>,
    pub(crate) shutdown: CancellationToken,
}

/// When the books were checked, and when they will be.
struct Agenda {
    every: Duration,
    /// When everything is to be checked next.
    whole_at: Instant,
    /// How far they were checked.
    checkpoint: Option<Checkpoint>,
}

impl Agenda {
    fn next(&self) -> Scope {
        match &self.checkpoint {
            Some(checkpoint) if Instant::now() < self.whole_at => Scope::Since(checkpoint.clone()),
            _ => Scope::Everything,
        }
    }

    /// Notes a check that came to its end; how long to wait for the next.
    fn checked(&mut self, scope: &Scope, checkpoint: Checkpoint) -> Duration {
        let now = Instant::now();
        if matches!(scope, Scope::Everything) {
            self.whole_at = now.checked_add(self.every).unwrap_or(now);
        }
        self.checkpoint = Some(checkpoint);
        NEW_EVERY.min(self.whole_at.saturating_duration_since(now))
    }
}

impl Bookkeeper {
    pub(crate) async fn run(self) {
        metrics::ledger_checked_every(self.every);
        let Some(every) = self.every else { return };
        let work = async {
            sleep(FIRST_AFTER).await;
            let mut agenda = Agenda { every, whole_at: Instant::now(), checkpoint: None };
            loop {
                let scope = agenda.next();
                let pause = match AssertUnwindSafe(self.check_in_turn(&scope)).catch_unwind().await {
                    Ok(Ok(Some(checkpoint))) => agenda.checked(&scope, checkpoint),
                    Ok(Ok(None)) => {
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
                sleep(pause).await;
            }
        };
        self.shutdown.run_until_cancelled(work).await;
    }

    /// How far the books were checked, if it was this instance's turn.
    async fn check_in_turn(&self, scope: &Scope) -> Result<Option<Checkpoint>> {
        let turn = self.turn().await.inspect_err(|_| metrics::ledger_check_failed())?;
        let Some(mut connection) = turn else {
            return Ok(None);
        };
        let mut began = Examination::begin(scope, &mut connection).await;
        if let Ok(Err(_)) = began {
            // After a failover nothing has been looked at.
            began = Examination::begin(&Scope::Everything, &mut connection).await;
        }
        let Ok(examination) = began.inspect_err(|_| metrics::ledger_check_failed())? else { return Ok(None) };
        match check_books(examination, &mut connection, None).await? {
            Outcome::Ended(_, checkpoint) => Ok(Some(checkpoint)),
            Outcome::Suspended(_) => Ok(None),
        }
    }

    /// The connection to check on, if nobody else is at it. The turn is the database session's: out of the pool, the
    /// connection ends with it, even in the middle.
    async fn turn(&self) -> Result<Option<AsyncPgConnection>> {
        let mut connection = Connection::take(database::connect(&self.pool).await?);
        Ok(check::elect(&mut connection).await?.then_some(connection))
    }
}

/// What a check came to.
pub(crate) enum Outcome {
    /// What was there before the checkpoint has been looked at.
    Ended(Vec<Check>, Checkpoint),
    /// Its time was up first.
    Suspended(Examination),
}

/// Checks the books until they are checked or time is up. Of a check that came to its end it tells the metrics and, if
/// something is wrong, the log: which check, and how many offend. Who they are is for those who ask.
pub(crate) async fn check_books(
    mut examination: Examination,
    connection: &mut AsyncPgConnection,
    until: Option<Instant>,
) -> Result<Outcome> {
    let ended = examine(&mut examination, connection, until).await.inspect_err(|_| metrics::ledger_check_failed())?;
    if !ended {
        return Ok(Outcome::Suspended(examination));
    }
    let checks = examination.findings();
    let violated = || checks.iter().filter(|check| check.offenders > 0);
    if examination.is_whole() {
        metrics::ledger_checked(checks.iter().map(|check| (check.name, check.offenders)));
    } else {
        // That a part is as it should be says nothing about the rest.
        violated().for_each(|check| metrics::ledger_check_found(check.name, check.offenders));
    }
    for check in violated() {
        tracing::error!(check = check.name, offenders = check.offenders, "the books do not balance");
    }
    let checkpoint = examination.checkpoint().clone();
    Ok(Outcome::Ended(checks, checkpoint))
}

/// Whether it came to its end.
async fn examine(
    examination: &mut Examination,
    connection: &mut AsyncPgConnection,
    until: Option<Instant>,
) -> Result<bool> {
    loop {
        let begun = Instant::now();
        let step = examination.step(connection).await?;
        if !step.more {
            return Ok(true);
        }
        let rest = rest_after(begun.elapsed(), step.busy);
        if until.is_some_and(|until| Instant::now().checked_add(rest).is_none_or(|then| then >= until)) {
            return Ok(false);
        }
        sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_rests_only_while_others_write() {
        let slice = Duration::from_millis(50);
        assert_eq!(rest_after(slice, false), Duration::ZERO);
        assert_eq!(rest_after(slice, true), Duration::from_millis(200));
    }
}
