//! The way to PostgreSQL: the pool, migrations under a lock, and which errors mean that the database is away.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use diesel::result::{ConnectionError, DatabaseErrorKind, Error};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool as pooled,
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};
use futures_util::FutureExt as _;
use tokio_postgres::config::SslMode;

pub type Pool = pooled::Pool<AsyncPgConnection>;
pub type Connection = pooled::Object<AsyncPgConnection>;
pub type PoolError = pooled::PoolError;

/// What every connection of the pool starts with: no statement, lock or open transaction lasts for ever.
const SERVING_LIMITS: &str = "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s";
/// A migration may take its time, and waits a while for another instance's.
const MIGRATING_LIMITS: &str = "-c statement_timeout=0 -c lock_timeout=120s";
/// Any fixed number: advisory locks are per database, and nothing else uses this one.
const MIGRATION_LOCK: i64 = 0x7032_7068_7562;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
        postgres_config(&self.url, "check", "").context(url_variable)?;
        let migration = self.migration_url.as_deref().map(|url| postgres_config(url, "check", ""));
        migration.transpose().context(migration_variable).map(drop)
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig").field("pool_size", &self.pool_size).finish_non_exhaustive()
    }
}

/// A pool that connects when it is first asked.
pub fn pool(config: &DatabaseConfig, application_name: &'static str) -> anyhow::Result<Pool> {
    let connect = postgres_config(&config.url, application_name, SERVING_LIMITS)?;
    let mut manager = ManagerConfig::default();
    // A connection that the server closed is noticed without asking it, so a check on each use buys nothing.
    manager.recycling_method = RecyclingMethod::Fast;
    manager.custom_setup = Box::new(move |_| {
        let connect = connect.clone();
        async move { establish(&connect).await }.boxed()
    });
    pooled::Pool::builder(AsyncDieselConnectionManager::new_with_config("", manager))
        .max_size(config.pool_size.max(1))
        .wait_timeout(Some(Duration::from_secs(5)))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(Duration::from_secs(2)))
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .context("the connection pool can't be built")
}

/// Runs the pending migrations on a connection of its own and grants the serving role its rights. Instances that start
/// together take turns.
pub async fn migrate(config: &DatabaseConfig, migrations: EmbeddedMigrations) -> anyhow::Result<()> {
    let serving = postgres_config(&config.url, "migrate", MIGRATING_LIMITS)?;
    let migrating = match &config.migration_url {
        Some(url) => postgres_config(url, "migrate", MIGRATING_LIMITS)?,
        None => serving.clone(),
    };
    let mut connection = establish(&migrating).await.context("the database can't be reached")?;
    connection
        .batch_execute(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})"))
        .await
        .context("another instance holds the migration lock")?;
    // The harness blocks its thread, on a runtime of either kind.
    let mut connection = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        for version in harness.run_pending_migrations(migrations).map_err(|error| anyhow!(error))? {
            tracing::info!(%version, "migrated");
        }
        anyhow::Ok(harness.into_inner())
    })
    .await?
    .context("a migration failed")?;
    if let Some(role) = serving.get_user().filter(|role| Some(*role) != migrating.get_user()) {
        diesel::sql_query("SELECT grant_service_rights($1::name)")
            .bind::<diesel::sql_types::Text, _>(role)
            .execute(&mut connection)
            .await
            .with_context(|| format!("role {role} can't be granted its rights"))?;
    }
    // The lock ends with the connection.
    Ok(())
}

/// A connection from the pool, with the pool's errors as diesel's: `is_unavailable` is true of them.
pub async fn connect(pool: &Pool) -> Result<Connection, Error> {
    pool.get().await.map_err(from_pool)
}

/// The pool's error as diesel's, so that a store has one kind of error. No connection means unavailable, whatever the cause.
pub fn from_pool(error: PoolError) -> Error {
    tracing::debug!(%error, "no database connection");
    Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(error.to_string()))
}

/// Whether the database was away, going away or too busy, rather than the statement wrong.
pub fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::BrokenTransactionManager => true,
        Error::RollbackErrorOnCommit { commit_error, .. } => is_unavailable(commit_error),
        Error::DatabaseError(kind, info) => match kind {
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::ReadOnlyTransaction => true,
            // All that failed between here and the server, and values that don't fit their columns' types.
            DatabaseErrorKind::UnableToSendCommand => {
                !info.message().starts_with("error serializing") && !info.message().starts_with("error deserializing")
            }
            DatabaseErrorKind::Unknown => says_unavailable(info.message()),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a concurrent transaction was in the way (deadlock, serialisation): nothing was done, and a retry is right.
pub fn is_conflict(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        Error::DatabaseError(DatabaseErrorKind::Unknown, info) => info.message() == "deadlock detected",
        Error::RollbackErrorOnCommit { commit_error, .. } => is_conflict(commit_error),
        _ => false,
    }
}

/// diesel drops the SQLSTATE; these are the messages of 57P01 to 57P05, 57014, 55P03, 53300 and 25P03.
fn says_unavailable(message: &str) -> bool {
    [
        "terminating connection",
        "the database system is",
        "canceling statement due to",
        "sorry, too many clients already",
        "remaining connection slots are reserved",
        "too many connections for",
        "server conn crashed",
    ]
    .iter()
    .any(|start| message.starts_with(start))
}

/// A connection outside every pool, for a session that lives as long as it can: it waits for notifications.
pub async fn connect_alone(
    config: &DatabaseConfig,
    application_name: &'static str,
) -> Result<AsyncPgConnection, ConnectionError> {
    let config = postgres_config(&config.url, application_name, SERVING_LIMITS)
        .map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
    establish(&config).await
}

async fn establish(config: &tokio_postgres::Config) -> Result<AsyncPgConnection, ConnectionError> {
    let (client, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(|error| ConnectionError::BadConnection(with_cause(&error)))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

/// tokio-postgres keeps the reason in the source.
fn with_cause(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn postgres_config(url: &str, application_name: &str, limits: &str) -> anyhow::Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config =
        url.parse().context("the database URL is malformed (it isn't shown: it may hold a password)")?;
    ensure!(
        config.get_ssl_mode() != SslMode::Require,
        "the database URL demands TLS (sslmode=require), which is not supported: leave sslmode out, and keep the way to the database private"
    );
    // What the URL says comes last and wins.
    let options = format!("{limits} {}", config.get_options().unwrap_or_default());
    config.options(options.trim_end());
    if config.get_application_name().is_none() {
        config.application_name(application_name);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.tcp_user_timeout(Duration::from_secs(30));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_error(kind: DatabaseErrorKind, message: &str) -> Error {
        Error::DatabaseError(kind, Box::new(message.to_owned()))
    }

    #[test]
    fn an_absent_database_is_told_from_a_wrong_statement() {
        use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand, UniqueViolation, Unknown};
        for (kind, message, away) in [
            (Unknown, "terminating connection due to administrator command", true),
            (Unknown, "the database system is starting up", true),
            (UnableToSendCommand, "connection closed", true),
            (ClosedConnection, "", true),
            (UnableToSendCommand, "error serializing parameter 0", false),
            (Unknown, "column \"x\" does not exist", false),
            (UniqueViolation, "terminating connection", false),
        ] {
            assert_eq!(is_unavailable(&database_error(kind, message)), away, "{message}");
        }
        assert!(!is_unavailable(&Error::NotFound));
        assert!(is_conflict(&database_error(Unknown, "deadlock detected")));
    }

    #[test]
    fn a_socket_directory_in_the_url_is_the_host() {
        let config = postgres_config("postgres://me@localhost/db?host=/run/pg", "x", "-c a=1").unwrap();
        let socket = tokio_postgres::config::Host::Unix("/run/pg".into());
        assert!(config.get_hosts().contains(&socket));
        assert_eq!(config.get_options(), Some("-c a=1"));
        assert!(postgres_config("postgres://me:secret@h:port/", "x", "").is_err());
    }

    #[test]
    fn a_demand_for_tls_is_refused_by_name() {
        let config = |mode| postgres_config(&format!("postgres://me@h/db?sslmode={mode}"), "x", "");
        assert!(config("prefer").is_ok());
        assert!(config("require").unwrap_err().to_string().contains("sslmode=require"));
    }

    #[test]
    fn urls_do_not_print() {
        let url = "postgres://me:secret@localhost/db".to_owned();
        let config = DatabaseConfig { migration_url: Some(url.clone()), url, pool_size: 4 };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
