//! Keeps the ancestors' PRO counts up with whose PRO began or ended: a job, every few seconds.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use referral_domain::command::Command;
use service::{database, telemetry};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::queue::{CommandQueue, Queued};
use crate::store::{clock::Clock, standings};

const EVERY: Duration = Duration::from_secs(5);

/// How many partners one command takes at most.
const PARTNERS_MAX: i64 = 200;

/// Runs until `shutdown`. Several instances may: a partner counted already is passed over.
pub(crate) async fn run(pool: database::Pool, clock: Clock, queue: CommandQueue, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let span = tracing::info_span!(parent: None, "count_pro_members");
        let counting = AssertUnwindSafe(count(&pool, &clock, &queue)).catch_unwind();
        let counted = counting.instrument(span.clone()).await;
        // A panic is logged by its hook.
        if let Ok(Err(error)) = counted {
            telemetry::mark_failed(&span, "FAILED");
            span.in_scope(|| match error.downcast_ref() {
                Some(error) if pool.note(error) => {}
                _ => tracing::warn!(error = %error, "PRO members are not counted this time"),
            });
        }
    }
}

async fn count(pool: &database::Pool, clock: &Clock, queue: &CommandQueue) -> anyhow::Result<()> {
    loop {
        let partner_ids = {
            let mut connection = database::connect(pool).await?;
            let now = clock.now(&mut connection).await?;
            standings::miscounted(&mut connection, now, PARTNERS_MAX).await?
        };
        if partner_ids.is_empty() {
            return Ok(());
        }
        let command = Command::CountProMembers { partner_ids };
        queue.execute(Queued::of_job(command, "CountProMembers", telemetry::current_traceparent())).await?;
    }
}
