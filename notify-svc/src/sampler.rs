//! Looks at the queue now and then, for the metrics.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use service::{
    database::{self, Pool},
    interruption::Interruption,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    store::{StoreError, depth, depth::Depth, in_time},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// How many times as long as a look it rests after it: on the longest queue, too, it costs next to nothing.
const REST: u32 = 50;

/// What more a look may take than the one before, until that one's figures are too old.
const PATIENCE: Duration = Duration::from_secs(10);

/// Works until it is stopped. Without a look there are no figures.
pub(crate) async fn run(pool: Pool, stop: CancellationToken) {
    let looking = async {
        let mut interruption = Interruption::default();
        loop {
            let begun = Instant::now();
            let looked = AssertUnwindSafe(in_time(look(&pool))).catch_unwind().await;
            let rest = INTERVAL.max(begun.elapsed().saturating_mul(REST));
            match &looked {
                Ok(Ok(depth)) => metrics::queue(depth, rest + PATIENCE),
                _ => metrics::queue_unknown(),
            }
            match looked {
                Ok(Ok(_)) if interruption.ends() => tracing::info!("the queue is looked at again"),
                // Others, whose work it is, say so when the database is away.
                Ok(Err(error)) if database::is_unavailable(&error) => tracing::debug!(%error, "no look at the queue"),
                Ok(Err(error)) if interruption.begins() => tracing::warn!(%error, "the queue can't be looked at"),
                // A panic is logged by its hook.
                Ok(_) | Err(_) => {}
            }
            sleep(rest).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(looking).await;
}

async fn look(pool: &Pool) -> Result<Depth, StoreError> {
    let mut connection = database::connect(pool).await?;
    depth::look(&mut connection).await
}
