//! Migrations, under a lock, while an older version may serve.

use std::{thread, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use diesel::{migration::Migration, pg::Pg};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};

use super::{
    DatabaseConfig,
    connect::{establish, postgres_config},
};

/// A migration may take its time, and waits a while for another instance's.
const MIGRATING_LIMITS: &str = "-c statement_timeout=0 -c lock_timeout=120s";
/// Any fixed number: advisory locks are per database, and nothing else uses this one.
const MIGRATION_LOCK: i64 = 0x7032_7068_7562;

/// How long a migration waits for a table's lock at a time: whoever comes after it waits behind it.
const LOCK_WAIT_MAX: &str = "SET lock_timeout = '2s'";
/// How often it is tried, with pauses that grow: about a minute and a half in all.
const ATTEMPTS_MAX: u32 = 20;
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(3);

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
    connection.batch_execute(LOCK_WAIT_MAX).await.context("the database can't be reached")?;
    // The harness blocks its thread, on a runtime of either kind.
    let mut connection = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        for migration in harness.pending_migrations(migrations).map_err(|error| anyhow!(error))? {
            run(&mut harness, &*migration)?;
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

/// Runs one migration. What it waits for may take long (a report, a backup), and it has to let the others pass meanwhile.
fn run(harness: &mut AsyncMigrationHarness<AsyncPgConnection>, migration: &dyn Migration<Pg>) -> anyhow::Result<()> {
    let mut pause = PAUSE_MIN;
    for attempt in 1..=ATTEMPTS_MAX {
        let error = match harness.run_migration(migration) {
            Ok(version) => {
                tracing::info!(%version, "migrated");
                return Ok(());
            }
            Err(error) => error,
        };
        if !is_held_up(&error.to_string()) {
            return Err(anyhow!(error));
        }
        tracing::warn!(version = %migration.name(), attempt, error = %error, "a migration lets others pass");
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    bail!(
        "{} was tried {ATTEMPTS_MAX} times and never got its locks: something holds a table for long (pg_locks, \
         pg_stat_activity tell what); nothing of it was done",
        migration.name()
    )
}

/// Whether others' locks were in the way (55P03, 40P01): the harness leaves of the database's error no more than its words.
fn is_held_up(error: &str) -> bool {
    ["canceling statement due to lock timeout", "deadlock detected"].iter().any(|words| error.ends_with(words))
}
