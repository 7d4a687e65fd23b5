//! What time brings about: a job that, every few seconds, finds by index what has become due, and has it decided like any
//! other command.
//!
//! Several instances may run it, and the clock may jump: a command looks at its rows under lock, and passes over whatever is
//! done already or isn't due.

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use referral_domain::command::Command;
use service::{
    database::{self, Pool},
    telemetry,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::queue::{CommandQueue, Queued};
use crate::store::{Result, clock::Clock, commissions, standings};

const EVERY: Duration = Duration::from_secs(5);

/// How many rows one command takes at most.
const ROWS_MAX: i64 = 200;

/// The job; every instance has one.
pub(crate) struct Sweeper {
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    pub(crate) queue: CommandQueue,
    pub(crate) shutdown: CancellationToken,
}

/// One kind of thing that becomes due.
#[derive(Clone, Copy)]
enum Sweep {
    /// The ancestors' PRO counts follow whose PRO began or ended.
    CountProMembers,
    /// Partners hear of their PRO's end.
    SendProNotices,
    /// Held commissions become available.
    ReleaseCommissions,
}

impl Sweep {
    const ALL: [Self; 3] = [Self::CountProMembers, Self::SendProNotices, Self::ReleaseCommissions];

    fn name(self) -> &'static str {
        match self {
            Self::CountProMembers => "CountProMembers",
            Self::SendProNotices => "SendProNotices",
            Self::ReleaseCommissions => "ReleaseCommissions",
        }
    }

    /// The command for what is due, if anything is.
    async fn due(self, connection: &mut AsyncPgConnection, now: DateTime<Utc>) -> Result<Option<Command>> {
        Ok(match self {
            Self::CountProMembers => {
                let partner_ids = standings::miscounted(connection, now, ROWS_MAX).await?;
                (!partner_ids.is_empty()).then_some(Command::CountProMembers { partner_ids })
            }
            Self::SendProNotices => {
                let partner_ids = standings::due_for_notice(connection, now, ROWS_MAX).await?;
                (!partner_ids.is_empty()).then_some(Command::SendProNotices { partner_ids })
            }
            Self::ReleaseCommissions => {
                let commissions = commissions::due(connection, now, ROWS_MAX).await?;
                (!commissions.is_empty()).then_some(Command::ReleaseCommissions { commissions })
            }
        })
    }
}

impl Sweeper {
    /// Runs until the shutdown.
    pub(crate) async fn run(self) {
        let mut shifts = self.clock.shifts();
        // A shifted clock makes things due at once. The clock outlives its receiver, and so no end of it is to be met.
        while let Some(_early_or_not) = self.shutdown.run_until_cancelled(timeout(EVERY, shifts.changed())).await {
            for sweep in Sweep::ALL {
                let span = tracing::info_span!(parent: None, "sweep", sweep = sweep.name());
                let swept = AssertUnwindSafe(self.sweep(sweep)).catch_unwind().instrument(span.clone()).await;
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

    async fn sweep(&self, sweep: Sweep) -> anyhow::Result<()> {
        loop {
            let command = {
                let mut connection = database::connect(&self.pool).await?;
                let now = self.clock.now(&mut connection).await?;
                sweep.due(&mut connection, now).await?
            };
            let Some(command) = command else { return Ok(()) };
            self.queue.execute(Queued::of_job(command, sweep.name(), telemetry::current_traceparent())).await?;
        }
    }
}
