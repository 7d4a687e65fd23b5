//! The database: the only place that names tables and columns. Everything above it asks in terms of the domain.
//!
//! One order of locks for everything: inbox keys, deliveries, addresses, gates, each sorted; a notification and its attempts
//! are only written by whoever holds the lock on its open delivery; one that is settled has none, and is locked itself before
//! its deliveries are touched. Claims skip deliveries that are locked; for gates they wait.

use std::{future::Future, time::Duration};

use diesel::result::DatabaseErrorKind;
pub(crate) use diesel::result::Error as StoreError;

pub(crate) mod addresses;
pub(crate) mod audit;
pub(crate) mod cancel;
pub(crate) mod channels;
pub(crate) mod claim;
pub(crate) mod clock;
pub(crate) mod depth;
pub(crate) mod due;
pub(crate) mod feed;
pub(crate) mod gates;
pub(crate) mod inbox;
pub(crate) mod jobs;
mod lessons;
pub(crate) mod marks;
pub(crate) mod notifications;
pub(crate) mod pick;
pub(crate) mod preferences;
pub(crate) mod queue;
pub(crate) mod redrive;
pub(crate) mod requests;
pub(crate) mod retention;
mod schema;
pub(crate) mod settle;
pub(crate) mod signing_keys;

/// How long a piece of work may take: longer than the server allows a statement, for when no server answers at all.
const WORK_TIMEOUT: Duration = Duration::from_secs(35);

/// Work that ends: a database that doesn't answer is unavailable.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(WORK_TIMEOUT, work).await.unwrap_or_else(|_| Err(unanswered()))
}

fn unanswered() -> StoreError {
    StoreError::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new("no answer within 35 s".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_unavailable() {
        assert!(service::database::is_unavailable(&unanswered()));
    }
}
