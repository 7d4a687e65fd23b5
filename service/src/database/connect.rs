//! Connections: their settings, and how one is made.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use diesel::result::ConnectionError;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use tokio_postgres::config::SslMode;

use super::{DatabaseConfig, statements::Statements};
use crate::telemetry;

/// What every connection of the pool starts with: no statement, lock or open transaction lasts for ever; and short statements
/// aren't compiled, which takes longer than they do.
pub(super) const SERVING_LIMITS: &str =
    "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s -c jit=off";
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection outside every pool, for a session that lives as long as it can: it waits for notifications.
pub async fn connect_alone(
    config: &DatabaseConfig,
    application_name: &'static str,
) -> Result<AsyncPgConnection, ConnectionError> {
    telemetry::ensure();
    let config = postgres_config(&config.url, application_name, SERVING_LIMITS)
        .map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
    instrumented(&config).await
}

/// A connection that serves: what runs on it is seen.
pub(super) async fn instrumented(config: &tokio_postgres::Config) -> Result<AsyncPgConnection, ConnectionError> {
    let mut connection = establish(config).await?;
    connection.set_instrumentation(Statements::new(config.get_dbname().unwrap_or_default()));
    Ok(connection)
}

pub(super) async fn establish(config: &tokio_postgres::Config) -> Result<AsyncPgConnection, ConnectionError> {
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

pub(super) fn postgres_config(
    url: &str,
    application_name: &str,
    limits: &str,
) -> anyhow::Result<tokio_postgres::Config> {
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
}
