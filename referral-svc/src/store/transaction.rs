//! The proof that a database transaction is open: whatever writes takes one.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use service::database::Connection;

use super::{Result, clock::Clock};

type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// Whatever the role's default: what is read after the locks must be what was committed before them. And what a batch names is
/// looked up by its keys: the planner would rather read a whole table than look up some thousand rows, or had it when it was
/// empty.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";

/// An open transaction. Dropped without [`commit`](Self::commit), its connection leaves the pool and the server rolls back.
pub(crate) struct Transaction {
    connection: Connection,
}

impl Transaction {
    pub(crate) async fn begin(mut connection: Connection) -> Result<Self> {
        Manager::begin_transaction_sql(&mut *connection, BEGIN).await?;
        Ok(Self { connection })
    }

    /// An error leaves the outcome open if the connection was lost on the way.
    pub(crate) async fn commit(mut self) -> Result<()> {
        Manager::commit_transaction(&mut *self.connection).await
    }

    pub(crate) async fn roll_back(mut self) -> Result<()> {
        Manager::rollback_transaction(&mut *self.connection).await
    }

    /// The time of what this transaction writes; every lock is held.
    pub(crate) async fn now(&mut self, clock: &Clock) -> Result<DateTime<Utc>> {
        clock.now_after_others(&mut self.connection).await
    }

    pub(super) fn connection(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }
}
