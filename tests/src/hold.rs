//! A transaction of the test's own that holds locks: it stops a service at an exact statement, from outside.

use tokio_postgres::Client;

use crate::wait;

/// Holds its locks until it is released or dropped.
pub struct Hold {
    holder: Client,
    watcher: Client,
    holder_pid: i32,
}

impl Hold {
    /// Begins a transaction on `holder` and runs the statements in it; `watcher` is a superuser's connection.
    pub async fn take(holder: Client, watcher: Client, statements: &str) -> Self {
        holder.batch_execute(&format!("BEGIN; {statements}")).await.expect("locks");
        let holder_pid = holder.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0);
        Self { holder, watcher, holder_pid }
    }

    /// Waits until some session waits for these locks.
    pub async fn blocks_someone(&self) {
        wait::until("someone to wait for the held locks", async || (self.waiters().await > 0).then_some(())).await;
    }

    async fn waiters(&self) -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
        self.watcher.query_one(query, &[&self.holder_pid]).await.expect("a row").get(0)
    }

    /// Ends the sessions that wait, as if the server had noticed that their clients are gone.
    pub async fn end_waiters(&self) {
        let query =
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
        self.watcher.query(query, &[&self.holder_pid]).await.expect("ended sessions");
    }

    /// Lets go of the locks; what was done under them is undone.
    pub async fn release(self) {
        self.holder.batch_execute("ROLLBACK").await.expect("a rollback");
    }

    /// Lets go of the locks; what was done under them stands.
    pub async fn keep(self) {
        self.holder.batch_execute("COMMIT").await.expect("a commit");
    }
}
