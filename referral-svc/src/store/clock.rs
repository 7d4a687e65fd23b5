//! The one clock: the database's, which may step back; the time that is written never does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::sync::watch;

use super::{Result, sql::Sql};

/// How far ahead of the clock what was written last may be, for time to stand still, as it were, until the clock has caught up. Whatever is
/// further ahead was written by a clock that was wrong, and time goes on without it.
const AHEAD_MAX_SECONDS: i64 = 60;

/// Reads the database's time. Tests may shift it: share the clock, and set how far ahead it goes.
#[derive(Clone, Default, Debug)]
pub struct Clock {
    ahead: Arc<watch::Sender<TimeDelta>>,
    /// It is known that something was written in the future.
    is_behind: Arc<AtomicBool>,
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    newest: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    is_behind: bool,
}

impl Clock {
    /// From now on, this much ahead of the database's clock.
    pub fn set_ahead(&self, ahead: TimeDelta) {
        self.ahead.send_replace(ahead);
    }

    /// Tells of each shift from here on: whoever waits for a time looks again.
    pub(crate) fn shifts(&self) -> watch::Receiver<TimeDelta> {
        self.ahead.subscribe()
    }

    pub(crate) async fn now(&self, connection: &mut AsyncPgConnection) -> Result<DateTime<Utc>> {
        let row: Now = Sql::new("SELECT clock_timestamp() AS now").get_result(connection).await?;
        Ok(row.now + *self.ahead.borrow())
    }

    /// The time to write, read once every lock is held: the clock's, or the last that was written by whoever held these locks
    /// before. Each batch that books anything leaves a block with its time, and so the newest block's is late enough.
    pub(super) async fn now_after_others(&self, connection: &mut AsyncPgConnection) -> Result<DateTime<Utc>> {
        let ahead = self.ahead.borrow().num_microseconds().unwrap_or(i64::MAX);
        let row: Written = Sql::new(
            "SELECT n.now, (SELECT max(create_time) FROM audit_blocks WHERE create_time <= n.far) AS newest,
                 EXISTS (SELECT FROM audit_blocks WHERE create_time > n.far) AS is_behind
             FROM (SELECT c.now, c.now + {} * interval '1 second' AS far
                   FROM (SELECT clock_timestamp() + {} * interval '1 microsecond' AS now) c) n",
        )
        .bind::<BigInt, _>(AHEAD_MAX_SECONDS)
        .bind::<BigInt, _>(ahead)
        .get_result(connection)
        .await?;
        if self.is_behind.swap(row.is_behind, Ordering::Relaxed) != row.is_behind && row.is_behind {
            tracing::error!(
                now = %row.now,
                "the database's clock is far behind what was written: what was booked meanwhile is out of order in time"
            );
        }
        // Later by the least that is stored, so that IDs made from it sort after those made then.
        Ok(row.newest.map_or(row.now, |newest| row.now.max(newest + TimeDelta::microseconds(1))))
    }
}
