//! Looks every few seconds, for the metrics, at what waits: how much in the outbox, and what has been due for how long.

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use service::{database, interruption::Interruption};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    store::{Result, backlog, clock::Clock},
};

const EVERY: Duration = Duration::from_secs(5);

/// Runs until `shutdown`, in every instance: each tells of the same database.
pub(crate) async fn run(pool: database::Pool, clock: Clock, shutdown: CancellationToken) {
    let work = async {
        let mut interruption = Interruption::default();
        loop {
            let looked = AssertUnwindSafe(look(&pool, &clock)).catch_unwind().await;
            if !matches!(looked, Ok(Ok(()))) {
                metrics::backlog_unknown();
            }
            match looked {
                // Others, whose work it is, say so when the database is away.
                Ok(Err(error)) if database::is_unavailable(&error) => {
                    tracing::debug!(error = %error, "no look at what waits");
                }
                Ok(Err(error)) if interruption.begins() => {
                    tracing::warn!(error = %error, "what waits can't be looked at");
                }
                Ok(Ok(())) if interruption.ends() => tracing::info!("what waits is looked at again"),
                // A panic is logged by its hook.
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

async fn look(pool: &database::Pool, clock: &Clock) -> Result<()> {
    let mut connection = database::connect(pool).await?;
    let backlog = backlog::look(&mut connection).await?;
    let now = clock.now(&mut connection).await?;
    let age = backlog.oldest.and_then(|oldest| (now - oldest).to_std().ok());
    metrics::backlog(backlog.pending, backlog.rejected, age.unwrap_or_default());
    let overdue = backlog::overdue(&mut connection, now).await?;
    let late = |due: Option<DateTime<Utc>>| due.and_then(|due| (now - due).to_std().ok()).unwrap_or_default();
    metrics::overdue([
        ("CountProMembers", late(overdue.count_pro_members)),
        ("SendProNotices", late(overdue.send_pro_notices())),
        ("ReleaseCommissions", late(overdue.release_commissions)),
    ]);
    Ok(())
}
