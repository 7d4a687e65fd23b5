//! The one clock: the database's.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{QueryableByName, sql_types::Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Result, sql::Sql};

/// Reads the database's time. Tests may shift it: share the clock, and set how far ahead it goes.
#[derive(Clone, Default, Debug)]
pub struct Clock {
    ahead_micros: Arc<AtomicI64>,
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

impl Clock {
    /// From now on, this much ahead of the database's clock.
    pub fn set_ahead(&self, ahead: TimeDelta) {
        self.ahead_micros.store(ahead.num_microseconds().unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    fn ahead(&self) -> TimeDelta {
        TimeDelta::microseconds(AtomicI64::load(&self.ahead_micros, Ordering::SeqCst))
    }

    pub(crate) async fn now(&self, connection: &mut AsyncPgConnection) -> Result<DateTime<Utc>> {
        let row: Now = Sql::new("SELECT clock_timestamp() AS now").get_result(connection).await?;
        Ok(row.now + self.ahead())
    }
}
