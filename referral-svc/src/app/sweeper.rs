//! What time brings about: a job that, every few seconds, finds by index what has become due, and has it decided like any
//! other command.
//!
//! Several instances may run it, and the clock may jump: a command looks at its rows under lock, and passes over whatever is
//! done already or isn't due. A row that can't be done is found, and passed over for a while, so that it holds up no other.

mod search;
mod sweep;

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::FutureExt;
use service::{
    database::{self, Pool},
    telemetry,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{
    search::Search,
    sweep::{Row, Sweep},
};
use super::queue::{CommandQueue, Failed, Queued};
use crate::store::clock::Clock;

const EVERY: Duration = Duration::from_secs(5);

/// How many rows one command takes at most: its record names each, and a page has some hundred records.
const ROWS_MAX: i64 = 100;

/// How often what couldn't be done is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(15);

/// How many rows one round passes over at most: if there are more, it isn't the rows.
const PASSED_OVER_MAX: usize = 100;

/// The job; every instance has one.
pub(crate) struct Sweeper {
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    pub(crate) queue: CommandQueue,
    pub(crate) shutdown: CancellationToken,
}

/// The rows of one kind that can't be done.
#[derive(Default)]
struct Offenders {
    known: BTreeSet<Row>,
    retried: Option<Instant>,
}

impl Offenders {
    /// What a round that begins now passes over: now and then nothing.
    fn pass_over(&mut self) -> BTreeSet<Row> {
        if self.retried.is_some_and(|retried| retried.elapsed() < RETRY_EVERY) {
            return self.known.clone();
        }
        self.retried = Some(Instant::now());
        BTreeSet::new()
    }
}

impl Sweeper {
    /// Runs until the shutdown.
    pub(crate) async fn run(self) {
        let mut shifts = self.clock.shifts();
        let mut offenders = Sweep::ALL.map(|_| Offenders::default());
        // A shifted clock makes things due at once. The clock outlives its receiver, and so no end of it is to be met.
        while let Some(_early_or_not) = self.shutdown.run_until_cancelled(timeout(EVERY, shifts.changed())).await {
            for (sweep, offenders) in Sweep::ALL.into_iter().zip(&mut offenders) {
                let span = tracing::info_span!(parent: None, "sweep", sweep = sweep.name());
                let swept =
                    AssertUnwindSafe(self.sweep(sweep, offenders)).catch_unwind().instrument(span.clone()).await;
                // A panic is logged by its hook.
                if let Ok(Err(error)) = swept {
                    telemetry::mark_failed(&span, "FAILED");
                    span.in_scope(|| match error.downcast_ref() {
                        Some(error) if self.pool.note(error) => {}
                        _ => {
                            tracing::warn!(error = %error, sweep = sweep.name(), "what is due waits for the next time")
                        }
                    });
                }
            }
        }
    }

    async fn sweep(&self, sweep: Sweep, offenders: &mut Offenders) -> anyhow::Result<()> {
        let mut passed_over = offenders.pass_over();
        let all_tried = passed_over.is_empty();
        loop {
            let rows = {
                let mut connection = database::connect(&self.pool).await?;
                let now = self.clock.now(&mut connection).await?;
                sweep.due(&mut connection, now, &passed_over, ROWS_MAX).await?
            };
            if rows.is_empty() {
                break;
            }
            let mut search = Search::of(rows);
            while let Some(rows) = search.next() {
                if self.is_done(sweep, &rows, offenders).await? {
                    offenders.known.retain(|row| !rows.contains(row));
                } else if let Some(offender) = search.failed(rows) {
                    offenders.known.insert(offender);
                    passed_over.insert(offender);
                    ensure!(passed_over.len() <= PASSED_OVER_MAX, "too many rows can't be done");
                }
            }
        }
        if all_tried {
            // Some may not be due any more.
            offenders.known = passed_over;
        }
        Ok(())
    }

    /// Whether the rows could be done, together; an error if that can't be told now. Of a row at fault the log has one error.
    async fn is_done(&self, sweep: Sweep, rows: &[Row], offenders: &Offenders) -> Result<bool, Failed> {
        let mut queued = Queued::of_job(sweep.command(rows), sweep.name(), telemetry::current_traceparent());
        match rows {
            [row] => {
                queued.about = Some(row.to_string());
                queued.is_tried = offenders.known.contains(row);
            }
            _ => queued.is_tried = true,
        }
        match self.queue.execute(queued).await {
            Ok(_) => Ok(true),
            Err(Failed::Defect) => Ok(false),
            Err(failed) => Err(failed),
        }
    }
}
