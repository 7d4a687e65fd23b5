//! The pool: what every connection that serves comes from, and where an outage of the database is noticed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection as _,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool as pooled},
};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::{
    DatabaseConfig,
    connect::{CONNECT_TIMEOUT, SERVING_LIMITS, instrumented, postgres_config},
    errors::NO_FREE_CONNECTION,
    metrics,
    outage::Outage,
};
use crate::telemetry;

pub type Connection = pooled::Object<AsyncPgConnection>;

/// Connections to one database, for one purpose. Clones share them.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    name: &'static str,
    pooled: pooled::Pool<AsyncPgConnection>,
    /// Shared by the pools of one service.
    outage: Arc<Outage>,
}

/// The pools of the process, for the gauges.
static POOLS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// A pool that connects when it is first asked. Its name is also what the server calls its connections.
pub fn pool(config: &DatabaseConfig, name: &'static str) -> anyhow::Result<Pool> {
    build(config, name, Arc::new(Outage::new(name)))
}

/// A further pool of the same service: an outage is met by both, and told once.
pub fn pool_beside(config: &DatabaseConfig, name: &'static str, first: &Pool) -> anyhow::Result<Pool> {
    build(config, name, Arc::clone(&first.0.outage))
}

fn build(config: &DatabaseConfig, name: &'static str, outage: Arc<Outage>) -> anyhow::Result<Pool> {
    telemetry::ensure();
    let connect = postgres_config(&config.url, name, SERVING_LIMITS)?;
    let mut manager = ManagerConfig::default();
    // A connection that the server closed is noticed without asking it, so a check on each use buys nothing.
    manager.recycling_method = RecyclingMethod::Fast;
    manager.custom_setup = Box::new(move |_| {
        let connect = connect.clone();
        async move { instrumented(&connect).await }.boxed()
    });
    let pooled = pooled::Pool::builder(AsyncDieselConnectionManager::new_with_config("", manager))
        .max_size(config.pool_size.max(1))
        .wait_timeout(Some(Duration::from_secs(5)))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(RECYCLE_TIMEOUT))
        .runtime(deadpool::Runtime::Tokio1)
        .post_recycle(pooled::Hook::async_fn(|connection: &mut AsyncPgConnection, metrics| {
            let ran_out = plans_ran_out(metrics.created, metrics.recycled.unwrap_or(metrics.created), Instant::now());
            Box::pin(async move {
                if ran_out {
                    // One that doesn't answer, or still works for somebody who has gone, is thrown away.
                    let discarded = timeout(RECYCLE_TIMEOUT, connection.batch_execute("DISCARD PLANS")).await;
                    let discarded = discarded.map_err(|elapsed| pooled::HookError::message(elapsed.to_string()))?;
                    discarded.map_err(|error| pooled::HookError::message(error.to_string()))?;
                }
                Ok(())
            })
        }))
        .build()
        .context("the connection pool can't be built")?;
    let pool = Arc::new(Inner { name, pooled, outage });
    metrics::watch(name);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(&pool));
    Ok(Pool(pool))
}

/// How long a connection of the pool may take until it is used again.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection keeps its plans. One that was made for an empty table reads all of it once it is full, until the
/// server happens to analyse it.
const PLANS_LAST: Duration = Duration::from_secs(10);

/// Whether a connection's plans ran out since it was last used: they do so every so often in its life.
fn plans_ran_out(created: Instant, used: Instant, now: Instant) -> bool {
    let turn = |time: Instant| time.saturating_duration_since(created).as_nanos() / PLANS_LAST.as_nanos();
    turn(now) != turn(used)
}

/// A connection from the pool, with the pool's errors as diesel's: `is_unavailable` is true of them.
pub async fn connect(pool: &Pool) -> Result<Connection, Error> {
    let asked = Instant::now();
    let connection = pool.0.pooled.get().await;
    match &connection {
        Ok(_) => metrics::waited(pool.0.name, asked.elapsed()),
        Err(pooled::PoolError::Timeout(_)) => metrics::timed_out(pool.0.name),
        Err(_) => {}
    }
    connection.map_err(|error| from_pool(&error))
}

impl Pool {
    /// Whether the error means that the database is away or too busy. Whoever meets one says so here, and logs nothing
    /// itself: the first one of an outage is an ERROR line in the current span, the others are for debugging.
    pub fn note(&self, error: &Error) -> bool {
        self.0.outage.note(error)
    }

    /// The database doesn't answer, to somebody who asked just that.
    pub(crate) fn unanswered(&self, error: &str) {
        self.0.outage.unanswered(error);
    }

    /// The database answers, to somebody who asked just that. Asked again and again, it is what ends an outage.
    pub(crate) fn answered(&self) {
        self.0.outage.answered();
    }

    /// Makes connections as the pool does, for one beside it.
    pub(crate) fn manager(&self) -> &AsyncDieselConnectionManager<AsyncPgConnection> {
        self.0.pooled.manager()
    }
}

/// The pool's error as diesel's, so that a store has one kind of error. No connection means unavailable, whatever the cause.
fn from_pool(error: &pooled::PoolError) -> Error {
    let message = match error {
        pooled::PoolError::Timeout(deadpool::managed::TimeoutType::Wait) => NO_FREE_CONNECTION.to_owned(),
        error => error.to_string(),
    };
    Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(message))
}

/// How much of the pools of one name is in use.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) max: usize,
    pub(super) idle: usize,
    pub(super) used: usize,
    pub(super) waiting: usize,
}

/// By name: in a test, several instances of a service may share a process.
pub(super) fn usage() -> BTreeMap<&'static str, Usage> {
    let mut usage: BTreeMap<&'static str, Usage> = BTreeMap::new();
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    for pool in pools.iter().filter_map(Weak::upgrade) {
        let (status, sum) = (pool.pooled.status(), usage.entry(pool.name).or_default());
        sum.max += status.max_size;
        sum.idle += status.available;
        sum.used += status.size.saturating_sub(status.available);
        sum.waiting += status.waiting;
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(pool_size: usize) -> DatabaseConfig {
        DatabaseConfig { url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(), migration_url: None, pool_size }
    }

    #[test]
    fn pools_of_one_name_are_one_in_the_gauges_and_leave_them_when_dropped() {
        let name = "a test of gauges";
        let first = pool(&nowhere(2), name).unwrap();
        let second = pool_beside(&nowhere(3), name, &first.clone()).unwrap();
        assert_eq!(usage()[name].max, 5);
        assert!(telemetry::metrics::prometheus_text().contains("a test of gauges"));
        drop(first);
        assert_eq!(usage()[name].max, 3);
        drop(second);
        assert!(!usage().contains_key(name));
        let text = telemetry::metrics::prometheus_text();
        let gauge = |line: &&str| line.starts_with("db_client_connection_max") && line.contains(name);
        assert_eq!(text.lines().find(gauge), None);
    }

    #[test]
    fn plans_run_out_every_so_often() {
        let created = Instant::now();
        let at = |seconds| created + Duration::from_secs(seconds);
        for (used, now, ran_out) in
            [(0, 0, false), (0, 9, false), (9, 10, true), (10, 19, false), (19, 20, true), (3, 300, true)]
        {
            assert_eq!(plans_ran_out(created, at(used), at(now)), ran_out, "used at {used} s, now at {now} s");
        }
    }

    #[tokio::test]
    async fn no_connection_is_unavailable() {
        let pool = pool(&nowhere(1), "a test of errors").unwrap();
        let error = connect(&pool).await.err().unwrap();
        assert!(pool.note(&error), "{error}");
    }
}
