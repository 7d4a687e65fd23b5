//! Takes requests to notify someone over a gRPC stream, keeps them in PostgreSQL, and gets each one to its recipient.
//!
//! ```text
//! Publish ─▶ ingest ─▶ inbox, notifications, deliveries ─▶ dispatch ─▶ channel ─▶ recipient
//!                                    └─▶ api: what became of each
//! ```
//! Imports go one way: `api`, `ingest`, `dispatch` → `store` → `notify_domain`.

mod api;
mod channel;
mod config;
mod convert;
mod dispatch;
mod ingest;
mod retention;
mod status;
mod store;
mod template;
mod unsubscribe;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use p2phub_proto::notify::v1::{
    notification_ingest_service_server::NotificationIngestServiceServer,
    notification_service_server::NotificationServiceServer,
};
use service::{
    database::{self, DatabaseConfig, Pool},
    server::{GrpcServer, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Running},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use config::Config;

use channel::Senders;
use dispatch::Dispatcher;
use store::{inbox::Rules, signing_keys};
use template::Templates;
use unsubscribe::UnsubscribeTokens;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/notify");
/// Connections for what writes: one for the dispatcher, the rest for the streams that come in.
const WRITERS: usize = 8;
const SERVICE_NAMES: [&str; 2] = ["p2phub.notify.v1.NotificationIngestService", "p2phub.notify.v1.NotificationService"];

/// A running service.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub local_addr: SocketAddr,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Handle {
    /// Waits until it has stopped.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.task.await.context("the service's task was lost")?
    }
}

/// Checks the configuration, migrates, listens, and serves and delivers until `shutdown` is cancelled.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Handle> {
    let config = config.checked()?;
    let database = config.database()?;
    database.check("NOTIFY_DATABASE_URL", "NOTIFY_MIGRATION_URL")?;
    let policy = Arc::new(config.policy()?);
    let senders = Arc::new(Senders::build(&config)?);
    let templates = Arc::new(Templates::load(config.app_url.as_deref())?);
    let pool = database::pool(&database, "notify-svc")?;
    database::migrate(&database, MIGRATIONS).await.context("the database can't be migrated")?;
    let key = signing_keys::key(&mut database::connect(&pool).await?, "unsubscribe").await?;
    let unsubscribe = UnsubscribeTokens::new(&key);
    // However many reads wait for the pool, what comes in and what goes out don't.
    let writers = database::pool(&DatabaseConfig { pool_size: WRITERS, ..database }, "notify-svc writer")?;

    // Of this service alone: whatever ends it must not end its neighbours in the same process.
    let stop = shutdown.child_token();
    let queued = Arc::new(Notify::new());
    let rules = Rules { channels: senders.channels(), policy: Arc::clone(&policy) };
    let ingest = ingest::IngestService::new(writers.clone(), rules, Arc::clone(&queued), stop.clone());
    tokio::spawn(retention::run(pool.clone(), policy.retention(), stop.clone()));
    let server = serve(&config, ingest, Arc::clone(&templates), pool, stop.clone()).await?;
    let dispatcher = Dispatcher {
        pool: writers,
        senders,
        templates,
        unsubscribe,
        policy,
        queued,
        owner: format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()),
        workers: config.workers.into(),
    };
    tracing::info!(listen = %server.local_addr, ?config, "notify-svc serves");
    let local_addr = server.local_addr;
    let dispatching = tokio::spawn(dispatcher.run(stop.clone()));
    Ok(Handle { local_addr, task: tokio::spawn(supervise(server, dispatching, stop)) })
}

async fn serve(
    config: &Config,
    ingest: ingest::IngestService,
    templates: Arc<Templates>,
    pool: Pool,
    stop: CancellationToken,
) -> anyhow::Result<Running> {
    let ingest = NotificationIngestServiceServer::new(ingest)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    let api = NotificationServiceServer::new(api::NotificationApi::new(pool.clone(), templates))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    GrpcServer::new(status::ERROR_DOMAIN, &SERVICE_NAMES)
        .add_service(ingest)
        .add_service(api)
        .serve(config.listen, pool, stop)
        .await
}

/// Neither part goes on without the other.
async fn supervise(server: Running, dispatching: JoinHandle<()>, stop: CancellationToken) -> anyhow::Result<()> {
    let _stop_both = stop.clone().drop_guard();
    let server = async {
        let ended = server.task.await;
        stop.cancel();
        ended.context("the server's task was lost")?
    };
    let dispatching = async {
        let ended = dispatching.await;
        stop.cancel();
        ended.context("the dispatcher's task was lost")
    };
    let (served, dispatched) = tokio::join!(server, dispatching);
    served.and(dispatched)
}

/// The whole binary: environment in, serving, exit code out.
pub fn main() -> ExitCode {
    let config = Config::parse();
    service::process::run("notify-svc", async |shutdown| start(config, shutdown).await?.finished().await)
}
