//! Keeps the tables small: settled notifications go after their time, marks of addresses when they have lost their effect, and
//! gates when there is nothing to remember of them; all in small batches.

use std::{sync::Arc, time::Duration};

use notify_domain::policy::Policy;
use service::database::{self, Pool};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::store::{StoreError, addresses, gates, in_time, retention};

const INTERVAL: Duration = Duration::from_secs(60);
/// Few at a time: no transaction lasts, and the dead rows of one batch are free before the next ones come.
const BATCH: i32 = 500;
/// Between batches: what goes out has precedence.
const PAUSE: Duration = Duration::from_millis(100);

/// Works until it is stopped.
pub(crate) async fn run(pool: Pool, policy: Arc<Policy>, stop: CancellationToken) {
    let cleaning = async {
        loop {
            clean(&pool, &policy).await;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(cleaning).await;
}

async fn clean(pool: &Pool, policy: &Policy) {
    let span = || tracing::info_span!(parent: None, "remove_idle_gates");
    report(pool, "idle gates", sweep(|| gates(pool).instrument(span())).await);
    let span = || tracing::info_span!(parent: None, "remove_old_marks");
    report(pool, "old marks of addresses", sweep(|| marks(pool, policy).instrument(span())).await);
    let span = || tracing::info_span!(parent: None, "remove_settled");
    report(pool, "notifications that settled long ago", sweep(|| settled(pool, policy).instrument(span())).await);
}

async fn gates(pool: &Pool) -> Result<i64, StoreError> {
    let mut connection = database::connect(pool).await?;
    let removed = gates::remove_idle(&mut connection).await?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

async fn marks(pool: &Pool, policy: &Policy) -> Result<i64, StoreError> {
    let mut connection = database::connect(pool).await?;
    addresses::remove_old_marks(&mut connection, policy.address_mark(), BATCH).await
}

async fn settled(pool: &Pool, policy: &Policy) -> Result<i64, StoreError> {
    let mut connection = database::connect(pool).await?;
    retention::remove_settled(&mut connection, policy.retention(), BATCH).await
}

/// Removes batch after batch, each in its own time, until one isn't full or fails; how many went, and what failed.
async fn sweep<B>(mut batch: impl FnMut() -> B) -> (i64, Option<StoreError>)
where
    B: Future<Output = Result<i64, StoreError>>,
{
    let mut removed: i64 = 0;
    loop {
        match in_time(batch()).await {
            Ok(count) => {
                removed = removed.saturating_add(count);
                if count < i64::from(BATCH) {
                    return (removed, None);
                }
            }
            Err(error) => return (removed, Some(error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn report(pool: &Pool, what: &str, (removed, failed): (i64, Option<StoreError>)) {
    if removed > 0 {
        tracing::info!(removed, what, "what was kept long enough is removed");
    }
    if let Some(error) = failed
        && !pool.note(&error)
    {
        tracing::warn!(%error, what, "what was kept long enough can't be removed for now");
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future};

    use super::*;

    async fn swept(batches: impl IntoIterator<Item = Result<i64, StoreError>>) -> (i64, bool, usize) {
        let mut batches: VecDeque<_> = batches.into_iter().collect();
        let (removed, failed) = sweep(|| future::ready(batches.pop_front().expect("one more batch"))).await;
        (removed, failed.is_some(), batches.len())
    }

    #[tokio::test]
    async fn it_goes_on_until_a_batch_isnt_full() {
        assert_eq!(swept([Ok(0), Ok(1)]).await, (0, false, 1));
        assert_eq!(swept([Ok(500), Ok(1000), Ok(499), Ok(500)]).await, (1999, false, 1));
    }

    #[tokio::test]
    async fn what_went_before_a_failure_is_known() {
        assert_eq!(swept([Ok(500), Err(StoreError::NotFound), Ok(500)]).await, (500, true, 1));
    }
}
