//! `p2phub`: the pair until it is told to stop.

use std::{io::Write, time::Duration};

use anyhow::anyhow;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    databases::{NOTIFY, REFERRAL},
    pair::{self, Pair, reachable},
    postgres::{PrivatePostgres, SUPERUSER},
    settings::Settings,
    signing,
};

/// How many seconds another process's server may be silent.
const UNANSWERED_MAX: u32 = 5;

/// Starts everything, prints where it is, waits for the end to be asked for, and stops everything.
pub(crate) async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(started) = stop.run_until_cancelled(start(settings)).await else {
        return Ok(());
    };
    let (mut pair, postgres) = started?;
    let failure = tokio::select! {
        () = stop.cancelled() => None,
        error = pair.failed() => Some(error),
        error = keep_running(postgres.as_ref()) => Some(error),
    };
    println!("stopping (Ctrl-C again to force)");
    let stopped = pair.stop().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    failure.map_or(stopped, Err)
}

/// Starts the private server again if it was killed; until it is back, the services say that they don't serve. Another
/// process's server can't be started again: that it is gone ends this process too.
async fn keep_running(postgres: Option<&PrivatePostgres>) -> anyhow::Error {
    let mut unanswered = 0;
    loop {
        sleep(Duration::from_secs(1)).await;
        let Some(postgres) = postgres else { continue };
        if !postgres.is_ours() {
            let answers = postgres.connect(SUPERUSER, "postgres").await.is_ok();
            unanswered = if answers { 0 } else { unanswered + 1 };
            if unanswered == UNANSWERED_MAX {
                return anyhow!(
                    "the PostgreSQL that this process shared has ended with the one that ran it: start again"
                );
            }
        } else if let Err(error) = postgres.start().await {
            tracing::error!(error = format!("{error:#}"), "the private PostgreSQL is down");
        }
    }
}

async fn start(mut settings: Settings) -> anyhow::Result<(Pair, Option<PrivatePostgres>)> {
    let wanted = settings.referral.database_url.is_none() || settings.notify.database_url.is_none();
    let postgres = if wanted { Some(open(&mut settings).await?) } else { None };
    let pair = Pair::start(settings.referral, settings.notify, !settings.notify_url_given).await?;
    announce(&pair)?;
    Ok((pair, postgres))
}

/// Opens the private server, for each service that was given no database.
async fn open(settings: &mut Settings) -> anyhow::Result<PrivatePostgres> {
    println!("data directory  {}", settings.data_dir.display());
    let postgres = PrivatePostgres::open(&settings.data_dir).await?;
    if !postgres.is_ours() {
        println!("                shared with the process that runs its PostgreSQL");
    }
    pair::prepare(&postgres).await?;
    let (referral, notify) = (&mut settings.referral, &mut settings.notify);
    if referral.audit_signing_key.is_none() {
        referral.audit_signing_key = Some(signing::key(&settings.data_dir)?);
    }
    if referral.database_url.is_none() {
        let (url, migration_url) = pair::urls(&postgres, &REFERRAL);
        (referral.database_url, referral.migration_url) = (Some(url), Some(migration_url));
    }
    if notify.database_url.is_none() {
        let (url, migration_url) = pair::urls(&postgres, &NOTIFY);
        (notify.database_url, notify.migration_url) = (Some(url), Some(migration_url));
    }
    Ok(postgres)
}

fn announce(pair: &Pair) -> anyhow::Result<()> {
    let referral = reachable(pair.referral.address);
    let mut out = std::io::stdout().lock();
    writeln!(out, "referral-svc    {}   http {}", pair.referral.address, pair.referral.http)?;
    writeln!(out, "notify-svc      {}   http {}", pair.notify.address, pair.notify.http)?;
    writeln!(out, "\nTry, from another terminal:\n")?;
    writeln!(
        out,
        "  grpcurl -plaintext -d '{{\"request_id\": \"{}\", \"external_id\": \"telegram:1001\", \"first_name\": \"Ada\"}}' \\\n    \
         {referral} p2phub.referral.v1.PartnerService/RegisterPartner\n",
        Uuid::new_v4()
    )?;
    writeln!(out, "ready")?;
    out.flush()?;
    Ok(())
}
