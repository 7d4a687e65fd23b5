//! Keeps the tables small: settled notifications go after their time, in small batches, and gates of which there is nothing
//! to remember.

use std::time::Duration;

use chrono::TimeDelta;
use service::database::{self, Pool};
use tokio_util::sync::CancellationToken;

use crate::store::{StoreError, gates, in_time, retention};

const INTERVAL: Duration = Duration::from_secs(60);
/// Few at a time: no transaction lasts, and the dead rows of one batch are free before the next ones come.
const BATCH: i32 = 500;
/// Between batches: what goes out has precedence.
const PAUSE: Duration = Duration::from_millis(100);

/// Works until it is stopped.
pub(crate) async fn run(pool: Pool, keep: TimeDelta, stop: CancellationToken) {
    let cleaning = async {
        loop {
            if let Err(error) = in_time(clean(&pool, keep)).await {
                tracing::warn!(%error, "old notifications can't be removed for now");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(cleaning).await;
}

async fn clean(pool: &Pool, keep: TimeDelta) -> Result<(), StoreError> {
    let mut connection = database::connect(pool).await?;
    gates::remove_idle(&mut connection).await?;
    let mut removed = 0;
    loop {
        let batch = retention::remove_settled(&mut connection, keep, BATCH).await?;
        removed += batch;
        if batch < i64::from(BATCH) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(removed, "settled notifications were kept long enough and are removed");
    }
    Ok(())
}
