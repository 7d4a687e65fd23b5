//! A connection in use by a call.

use diesel_async::AsyncPgConnection;
use service::{
    database::{self, Connection, Pool},
    error::Failure,
};

use super::NotificationApi;
use crate::{status, store::StoreError};

/// A connection in use. Dropped in the middle of something (the caller's deadline passed), it is closed, which undoes what is
/// open, and nobody waits for that query's end.
pub(super) struct Lease(Option<Connection>);

impl Lease {
    pub(super) async fn take(pool: &Pool) -> Result<Self, StoreError> {
        Ok(Self(Some(database::connect(pool).await?)))
    }

    pub(super) fn connection(&mut self) -> Result<&mut AsyncPgConnection, StoreError> {
        self.0.as_deref_mut().ok_or(StoreError::BrokenTransactionManager)
    }

    /// Back to the pool: nothing is open on it.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.take().map(Connection::take);
    }
}

impl NotificationApi {
    /// Reads on a connection of the pool.
    pub(super) async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    ) -> Result<T, Failure> {
        let run = async {
            let mut lease = Lease::take(&self.pool).await?;
            let answer = read(lease.connection()?).await?;
            lease.give_back();
            Ok(answer)
        };
        run.await.map_err(|error| status::store_failure(&self.pool, &error))
    }
}
