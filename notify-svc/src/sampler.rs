//! Looks at the queue now and then, for the metrics.

use std::time::Duration;

use service::database::{self, Pool};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    store::{StoreError, depth, depth::Depth, in_time},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// How many times as long as a look it rests after it: on the longest queue, too, it costs next to nothing.
const REST: u32 = 50;

/// Works until it is stopped. While the database is away, the last look stands: others say that it is.
pub(crate) async fn run(pool: Pool, stop: CancellationToken) {
    let looking = async {
        loop {
            let begun = Instant::now();
            match in_time(look(&pool)).await {
                Ok(depth) => metrics::queue(&depth),
                Err(error) => tracing::debug!(%error, "the queue can't be looked at for now"),
            }
            sleep(INTERVAL.max(begun.elapsed().saturating_mul(REST))).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(looking).await;
}

async fn look(pool: &Pool) -> Result<Depth, StoreError> {
    let mut connection = database::connect(pool).await?;
    depth::look(&mut connection).await
}
