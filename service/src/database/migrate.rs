//! Migrations, under a lock.

use anyhow::{Context as _, anyhow};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl as _, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};

use super::{
    DatabaseConfig,
    connect::{establish, postgres_config},
};

/// A migration may take its time, and waits a while for another instance's.
const MIGRATING_LIMITS: &str = "-c statement_timeout=0 -c lock_timeout=120s";
/// Any fixed number: advisory locks are per database, and nothing else uses this one.
const MIGRATION_LOCK: i64 = 0x7032_7068_7562;

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
