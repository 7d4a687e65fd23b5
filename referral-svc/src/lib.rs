//! referral-svc: partners, payments and a double-entry ledger, and an outbox that tells people of them.
//!
//! ```text
//! request → api (check, convert) → app (queue → batch: load → decide → write → commit) → store → PostgreSQL
//!                                     └ referral_domain decides                      outbox → publisher ⇉ notify-svc
//! ```

mod api;
mod app;
mod config;
mod metrics;
mod store;
mod verify;
mod wire;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use clap::Parser;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use p2phub_proto::referral::v1 as pb;
use service::{
    database::{self, DatabaseConfig, Pool},
    health::Health,
    http::HttpServer,
    peer::Peer,
    server::{GrpcServer, Running},
    telemetry::report::{ReportIn, Scope},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use app::{Bookkeeper, Broadcaster, CommandQueue, Committer, Publisher, Rules, Signer, Sweeper, Verifications};
pub use config::{Config, HTTP_LISTEN};
pub use store::clock::Clock;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/referral");

/// Calls at once: as many as can wait for a commit or be in one, and room for reads beside them.
const CALLS_MAX: usize = 2048;

/// Connections for what writes beside the committer: the publisher and the broadcaster, and one while a lost one is replaced.
const WRITERS: usize = 3;
/// The committer's own, which live on its thread: one, and one while that is replaced.
const COMMITTERS: usize = 2;

/// The largest request; the largest answer, a page of 500 partners, stays under 4 MiB.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// A running service.
pub struct Handle {
    /// Where it listens.
    pub local_addr: SocketAddr,
    /// Where it listens for HTTP.
    pub http_addr: SocketAddr,
    http: HttpServer,
    server: Running,
    jobs: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
    drained: CancellationToken,
}

impl Handle {
    /// Waits until the service has drained after its shutdown, or failed.
    pub async fn finished(self) -> anyhow::Result<()> {
        let served = self.server.task.await.context("the server's task")?;
        // The server may have failed by itself; and calls that outlast its drain hold nothing up.
        self.shutdown.cancel();
        self.drained.cancel();
        for job in self.jobs {
            job.await.context("a job's task")?;
        }
        self.http.stop().await;
        served
    }
}

/// Answers over HTTP, migrates, checks the plan, binds, and serves until `shutdown`.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Handle> {
    // Without `main` there is nothing yet that measures.
    service::telemetry::ensure();
    metrics::init();
    let (plan, methods, notify, signer) = (config.plan()?, config.methods()?, config.notify()?, config.signer()?);
    let ton = config.ton(&methods)?.map(verify::Ton::new).transpose()?.map(Arc::new);
    let database = config.database()?;
    database.check("REFERRAL_DATABASE_URL", "REFERRAL_MIGRATION_URL")?;
    let health = Health::default();
    let peer = Peer::new("notify-svc", Some(notify.clone()));
    let http = HttpServer::start(config.http(), health.clone(), peer).await?;
    database::migrate(&database, MIGRATIONS).await.context("REFERRAL_DATABASE_URL: migrating")?;
    let pool = database::pool(&database, "referral-svc")?;
    // However many reads wait for the pool, the committer and the publisher don't.
    let beside =
        |pool_size, name| database::pool_beside(&DatabaseConfig { pool_size, ..database.clone() }, name, &pool);
    let writers = beside(WRITERS, "referral-svc writer")?;
    let committers = beside(COMMITTERS, "referral-svc committer")?;
    let mut connection = database::connect(&pool).await.context("REFERRAL_DATABASE_URL")?;
    if !store::plans::note(&mut connection, &plan).await? {
        bail!(
            "PLAN_FILE: plan version {} is known with other content; a changed plan needs a new version",
            plan.version()
        );
    }
    drop(connection);

    let committed = Arc::new(Notify::new());
    let offer = ton.as_ref().map(|ton| watch::Sender::new(ton.offer()));
    let rules = Arc::new(Rules {
        plan,
        methods,
        clock: config.clock.clone(),
        ton: offer.as_ref().map(watch::Sender::subscribe),
    });
    let (queue, committer) = Committer::new(committers, rules, committed.clone(), config.batch_max.into());
    let broadcaster = Broadcaster {
        pool: writers.clone(),
        clock: config.clock.clone(),
        committed: committed.clone(),
        shutdown: shutdown.clone(),
    };
    let publisher = Publisher { pool: writers, notify, committed, shutdown: shutdown.clone() };
    let sweeper =
        Sweeper { pool: pool.clone(), clock: config.clock.clone(), queue: queue.clone(), shutdown: shutdown.clone() };
    let sampler = app::run_sampler(pool.clone(), config.clock.clone(), shutdown.clone());
    let bookkeeper = Bookkeeper { pool: pool.clone(), every: config.ledger_check_every(), shutdown: shutdown.clone() };
    let verifications = Verifications {
        pool: pool.clone(),
        clock: config.clock.clone(),
        queue: queue.clone(),
        verifiers: verify::verifiers(ton.as_ref()),
        shutdown: shutdown.clone(),
    };
    let rate = ton
        .zip(offer)
        .map(|(ton, offer)| app::keep_rate(pool.clone(), config.clock.clone(), ton, offer, shutdown.clone()));
    let server = server(&config, queue, pool.clone(), signer).health(health);
    let server = server.serve(config.listen, pool, shutdown.clone()).await?;
    let drained = CancellationToken::new();
    let committing = committer.spawn(drained.clone())?;
    let jobs = [
        tokio::spawn(publisher.run().report_in(Scope::of("publisher"))),
        tokio::spawn(broadcaster.run().report_in(Scope::of("broadcaster"))),
        tokio::spawn(sweeper.run().report_in(Scope::of("sweeper"))),
        tokio::spawn(sampler.report_in(Scope::of("sampler"))),
        tokio::spawn(bookkeeper.run().report_in(Scope::of("bookkeeper"))),
    ];
    let verifying = rate.map(|rate| {
        [
            tokio::spawn(verifications.run().report_in(Scope::of("verifier"))),
            tokio::spawn(rate.report_in(Scope::of("rate"))),
        ]
    });
    let jobs = [committing].into_iter().chain(jobs).chain(verifying.into_iter().flatten()).collect();
    Ok(Handle { local_addr: server.local_addr, http_addr: http.local_addr, http, server, jobs, shutdown, drained })
}

fn server(config: &Config, queue: CommandQueue, pool: Pool, signer: Option<Signer>) -> GrpcServer {
    use pb::{
        audit_service_server::AuditServiceServer, broadcast_service_server::BroadcastServiceServer,
        leaderboard_service_server::LeaderboardServiceServer, ledger_service_server::LedgerServiceServer,
        partner_service_server::PartnerServiceServer, payment_service_server::PaymentServiceServer,
        payout_service_server::PayoutServiceServer,
    };
    const NAMES: [&str; 7] = [
        "p2phub.referral.v1.PartnerService",
        "p2phub.referral.v1.PaymentService",
        "p2phub.referral.v1.LedgerService",
        "p2phub.referral.v1.PayoutService",
        "p2phub.referral.v1.LeaderboardService",
        "p2phub.referral.v1.AuditService",
        "p2phub.referral.v1.BroadcastService",
    ];
    let api = api::Api::new(queue, pool, config.clock.clone(), signer);
    GrpcServer::new("referral.p2phub", &NAMES)
        .max_in_flight(CALLS_MAX)
        .add_service(PartnerServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(PaymentServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(LedgerServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(PayoutServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(LeaderboardServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(BroadcastServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(AuditServiceServer::new(api).max_decoding_message_size(REQUEST_BYTES_MAX))
}

/// The whole binary: environment in, serving, exit code out.
pub fn main() -> ExitCode {
    let config = Config::parse();
    service::process::run("referral-svc", async |shutdown| start(config, shutdown).await?.finished().await)
}
