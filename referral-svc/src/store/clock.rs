//! The one clock: the database's.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{QueryableByName, sql_types::Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::sync::watch;

use super::{Result, sql::Sql};

/// Reads the database's time. Tests may shift it: share the clock, and set how far ahead it goes.
#[derive(Clone, Default, Debug)]
pub struct Clock {
    ahead: Arc<watch::Sender<TimeDelta>>,
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
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
}
