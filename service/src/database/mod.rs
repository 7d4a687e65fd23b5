//! The way to PostgreSQL: pools and what they tell of themselves, migrations under a lock, statements as spans, and which
//! errors mean that the database is away.

mod connect;
mod errors;
mod metrics;
mod migrate;
mod outage;
mod pool;
mod statements;
mod summary;
mod tokens;

use std::fmt;

use anyhow::Context as _;

pub use connect::connect_alone;
pub use errors::{is_conflict, is_unavailable};
pub use migrate::migrate;
pub use pool::{Connection, Pool, connect, pool, pool_beside};
pub(crate) use statements::log_slower_than;

/// Where the database is. URLs may hold passwords, so they don't print.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Of the role that serves: `postgres://user@host/db`, or `postgres://user@localhost/db?host=/socket/dir`.
    pub url: String,
    /// Of the role that migrates; none: the same.
    pub migration_url: Option<String>,
    pub pool_size: usize,
}

impl DatabaseConfig {
    /// Refuses URLs that are none, by the names of the variables that they came from.
    pub fn check(&self, url_variable: &'static str, migration_variable: &'static str) -> anyhow::Result<()> {
        connect::postgres_config(&self.url, "check", "").context(url_variable)?;
        let migration = self.migration_url.as_deref().map(|url| connect::postgres_config(url, "check", ""));
        migration.transpose().context(migration_variable).map(drop)
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig").field("pool_size", &self.pool_size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_do_not_print() {
        let url = "postgres://me:secret@localhost/db".to_owned();
        let config = DatabaseConfig { migration_url: Some(url.clone()), url, pool_size: 4 };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
