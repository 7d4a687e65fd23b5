//! A private PostgreSQL for the test process, and fresh databases on it, copied from migrated templates.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use p2phub::{
    databases::{NOTIFY, Ownership, REFERRAL},
    postgres::{PrivatePostgres, SUPERUSER},
};
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::wait;

/// A server with migrated templates. It vanishes with the process.
pub struct Server {
    postgres: PrivatePostgres,
    count: AtomicU32,
}

/// The names of a pair's two databases.
#[derive(Clone, Debug)]
pub struct Databases {
    pub referral: String,
    pub notify: String,
}

/// As which role a test speaks SQL.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The service's own.
    Service,
    /// The one that migrates.
    Owner,
    /// May do everything.
    Superuser,
}

/// A database's copy takes over which numbers its sequences may still hand out without a record in the WAL, but no record of
/// them: a crash soon after would have them handed out again. Now there are none.
const LOG_SEQUENCES: &str = "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, last_value)
    FROM pg_sequences WHERE last_value IS NOT NULL";

impl Server {
    /// The server that all tests of this process share; never stop it.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Server>> = OnceCell::const_new();
        SHARED.get_or_init(|| async { Arc::new(Self::own().await) }).await.clone()
    }

    /// A server for one test, which may stop and kill it.
    pub async fn own() -> Self {
        let postgres = PrivatePostgres::throw_away().await.expect("a private PostgreSQL");
        let server = Self { postgres, count: AtomicU32::new(0) };
        let superuser = server.superuser().await;
        for ownership in [REFERRAL, NOTIFY] {
            ownership.create_roles(&superuser).await.expect("roles");
            ownership.create_database(&superuser, &template(&ownership), "template1").await.expect("a template");
        }
        server.migrate_templates().await;
        server
    }

    /// Two new databases, migrated and empty.
    pub async fn fresh(&self) -> Databases {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let databases = Databases { referral: format!("referral_{number}"), notify: format!("notify_{number}") };
        let superuser = self.superuser().await;
        for (ownership, name) in [(REFERRAL, &databases.referral), (NOTIFY, &databases.notify)] {
            // A connection that just ended may keep its database busy for a moment.
            wait::until("a copy of the template", async || {
                ownership.create_database(&superuser, name, &template(&ownership)).await.ok()
            })
            .await;
        }
        databases
    }

    /// Drops databases that no test needs any more.
    pub async fn discard(&self, databases: &Databases) {
        let superuser = self.superuser().await;
        for name in [&databases.referral, &databases.notify] {
            superuser.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.expect("a drop");
        }
    }

    /// The URL of one of referral-svc's databases.
    pub fn referral_url(&self, databases: &Databases, role: Role) -> String {
        self.postgres.url(role.name(&REFERRAL), &databases.referral)
    }

    /// The URL of one of notify-svc's databases.
    pub fn notify_url(&self, databases: &Databases, role: Role) -> String {
        self.postgres.url(role.name(&NOTIFY), &databases.notify)
    }

    async fn superuser(&self) -> Client {
        self.postgres.connect(SUPERUSER, "postgres").await.expect("a superuser's connection")
    }

    /// Each service migrates its template as it would any database: by starting on it.
    async fn migrate_templates(&self) {
        let mut config = notify_svc::Config::new(self.postgres.url(NOTIFY.service, &template(&NOTIFY)));
        config.migration_url = Some(self.postgres.url(NOTIFY.owner, &template(&NOTIFY)));
        config.listen = ([127, 0, 0, 1], 0).into();
        let stop = CancellationToken::new();
        let notify = notify_svc::start(config, stop.clone()).await.expect("notify-svc starts");
        stop.cancel();
        notify.finished().await.expect("notify-svc stops");

        let mut config = referral_svc::Config::new(self.postgres.url(REFERRAL.service, &template(&REFERRAL)));
        config.migration_url = Some(self.postgres.url(REFERRAL.owner, &template(&REFERRAL)));
        config.listen = ([127, 0, 0, 1], 0).into();
        let stop = CancellationToken::new();
        let referral = referral_svc::start(config, stop.clone()).await.expect("referral-svc starts");
        stop.cancel();
        referral.finished().await.expect("referral-svc stops");

        for ownership in [REFERRAL, NOTIFY] {
            let client =
                self.postgres.connect(SUPERUSER, &template(&ownership)).await.expect("a superuser's connection");
            client.batch_execute(LOG_SEQUENCES).await.expect("sequences");
        }
    }
}

impl Deref for Server {
    type Target = PrivatePostgres;

    fn deref(&self) -> &PrivatePostgres {
        &self.postgres
    }
}

impl Role {
    fn name(self, ownership: &Ownership) -> &'static str {
        match self {
            Self::Service => ownership.service,
            Self::Owner => ownership.owner,
            Self::Superuser => SUPERUSER,
        }
    }
}

fn template(ownership: &Ownership) -> String {
    format!("{}_template", ownership.database)
}

/// A connection by URL, as a role of one's choice.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}
