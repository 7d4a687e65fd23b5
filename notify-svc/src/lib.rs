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
mod feed;
mod ingest;
mod jobs;
mod metrics;
mod retention;
mod sampler;
mod status;
mod store;
mod template;
mod unsubscribe;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use futures_util::future::join_all;
use p2phub_proto::notify::v1::{
    notification_ingest_service_server::NotificationIngestServiceServer,
    notification_service_server::NotificationServiceServer, operator_service_server::OperatorServiceServer,
};
use service::{
    database::{self, DatabaseConfig},
    health::Health,
    http::HttpServer,
    peer::Peer,
    server::{GrpcServer, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Running},
    telemetry::report::{ReportIn, Scope},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use config::{Config, HTTP_LISTEN};

use api::NotificationApi;
use channel::Senders;
use dispatch::Dispatcher;
use feed::Listener;
use jobs::Jobs;
use store::{inbox::Rules, signing_keys};
use template::Templates;
use unsubscribe::UnsubscribeTokens;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/notify");
/// Connections for what writes: one for the dispatcher, the rest for the streams that come in.
const WRITERS: usize = 8;
const SERVICE_NAMES: [&str; 3] = [
    "p2phub.notify.v1.NotificationIngestService",
    "p2phub.notify.v1.NotificationService",
    "p2phub.notify.v1.OperatorService",
];

/// A running service.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub local_addr: SocketAddr,
    /// Where it listens for HTTP.
    pub http_addr: SocketAddr,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Handle {
    /// Waits until it has stopped.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.task.await.context("the service's task was lost")?
    }
}

/// Checks the configuration, answers over HTTP, migrates, listens, and serves and delivers until `shutdown` is cancelled.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Handle> {
    let config = config.checked()?;
    let database = config.database()?;
    database.check("NOTIFY_DATABASE_URL", "NOTIFY_MIGRATION_URL")?;
    let policy = Arc::new(config.policy()?);
    let senders = Arc::new(Senders::build(&config)?);
    let templates = Arc::new(Templates::load(config.app_url.as_deref())?);
    let peer = Peer::new("referral-svc", config.referral()?);
    let pool = database::pool(&database, "notify-svc")?;
    let health = Health::default();
    let http = HttpServer::start(config.http(), health.clone(), peer).await?;
    database::migrate(&database, MIGRATIONS)
        .await
        .context("NOTIFY_MIGRATION_URL or NOTIFY_DATABASE_URL: the database can't be migrated")?;
    let key = signing_keys::key(&mut database::connect(&pool).await?, "unsubscribe").await?;
    let unsubscribe = UnsubscribeTokens::new(&key);
    // However many reads wait for the pool, what comes in and what goes out don't.
    let writing = DatabaseConfig { pool_size: WRITERS, ..database.clone() };
    let writers = database::pool_beside(&writing, "notify-svc writer", &pool)?;

    // Of this service alone: whatever ends it must not end its neighbours in the same process.
    let stop = shutdown.child_token();
    let queued = Arc::new(Notify::new());
    let rules = Rules { channels: senders.channels(), policy: Arc::clone(&policy) };
    let ingest = ingest::IngestService::new(writers.clone(), rules.clone(), Arc::clone(&queued), stop.clone());
    tokio::spawn(retention::run(pool.clone(), Arc::clone(&policy), stop.clone()).report_in(Scope::of("retention")));
    let (feed, listener) = Listener::new(database, Arc::clone(&queued));
    let api = NotificationApi {
        pool,
        channels: senders.channels(),
        templates: Arc::clone(&templates),
        unsubscribe: unsubscribe.clone(),
        feed,
        job_created: Arc::default(),
    };
    let jobs =
        Jobs { pool: writers.clone(), rules, created: Arc::clone(&api.job_created), queued: Arc::clone(&queued) };
    let sampler = sampler::run(api.pool.clone(), stop.clone());
    let server = serve(&config, ingest, api, health, stop.clone()).await?;
    metrics::init(&senders.channels());
    tokio::spawn(sampler);
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
    let (local_addr, http_addr) = (server.local_addr, http.local_addr);
    let tasks = [
        tokio::spawn(dispatcher.run(stop.clone()).report_in(Scope::of("dispatcher"))),
        tokio::spawn(jobs.run(stop.clone()).report_in(Scope::of("jobs"))),
        tokio::spawn(listener.run(stop.clone()).report_in(Scope::of("listener"))),
    ];
    Ok(Handle { local_addr, http_addr, task: tokio::spawn(supervise(server, tasks, http, stop)) })
}

async fn serve(
    config: &Config,
    ingest: ingest::IngestService,
    api: NotificationApi,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<Running> {
    let ingest = NotificationIngestServiceServer::new(ingest)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    let pool = api.pool.clone();
    let operators = OperatorServiceServer::new(api.clone())
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    let api = NotificationServiceServer::new(api)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    GrpcServer::new(status::ERROR_DOMAIN, &SERVICE_NAMES)
        .health(health)
        .add_service(ingest)
        .add_service(api)
        .add_service(operators)
        .serve(config.listen, pool, stop)
        .await
}

/// No part goes on without the others.
async fn supervise(
    server: Running,
    tasks: impl IntoIterator<Item = JoinHandle<()>>,
    http: HttpServer,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let _stop_all = stop.clone().drop_guard();
    let server = async {
        let ended = server.task.await;
        stop.cancel();
        ended.context("the server's task was lost")?
    };
    let tasks = join_all(tasks.into_iter().map(async |task| {
        let ended = task.await;
        stop.cancel();
        ended.context("a task was lost")
    }));
    let (served, worked) = tokio::join!(server, tasks);
    http.stop().await;
    worked.into_iter().fold(served, anyhow::Result::and)
}

/// The whole binary: environment in, serving, exit code out.
pub fn main() -> ExitCode {
    let config = Config::parse();
    service::process::run("notify-svc", async |shutdown| start(config, shutdown).await?.finished().await)
}
