//! Both services in this process: started receiver first, stopped sender first.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    databases::{NOTIFY, Ownership, REFERRAL},
    postgres::{PrivatePostgres, SUPERUSER},
};

/// The running pair.
pub(crate) struct Pair {
    pub(crate) referral: Running,
    pub(crate) notify: Running,
}

/// One running service.
pub(crate) struct Running {
    name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    shutdown: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Pair {
    /// Starts notify-svc, then referral-svc; with `follow`, referral-svc publishes to where notify-svc listens. notify-svc is
    /// told where referral-svc will listen, if that is known yet and nobody said otherwise.
    pub(crate) async fn start(
        mut referral: referral_svc::Config,
        mut notify: notify_svc::Config,
        follow: bool,
    ) -> anyhow::Result<Self> {
        if notify.referral_url.is_none() && referral.listen.port() != 0 {
            notify.referral_url = Some(format!("http://{}", reachable(referral.listen)));
        }
        let shutdown = CancellationToken::new();
        let handle = notify_svc::start(notify, shutdown.clone()).await.context("notify-svc did not start")?;
        let addresses = (handle.local_addr, handle.http_addr);
        let notify = Running::new("notify-svc", addresses, shutdown, tokio::spawn(handle.finished()));
        if follow {
            referral.notify_url = format!("http://{}", reachable(notify.address));
        }
        let shutdown = CancellationToken::new();
        match referral_svc::start(referral, shutdown.clone()).await.context("referral-svc did not start") {
            Ok(handle) => {
                let addresses = (handle.local_addr, handle.http_addr);
                let referral = Running::new("referral-svc", addresses, shutdown, tokio::spawn(handle.finished()));
                Ok(Self { referral, notify })
            }
            Err(error) => {
                let _ = notify.stop().await;
                Err(error)
            }
        }
    }

    /// Returns when a service ends that nobody has stopped.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        let (name, result) = tokio::select! {
            result = self.referral.ended() => (self.referral.name, result),
            result = self.notify.ended() => (self.notify.name, result),
        };
        match result {
            Ok(()) => anyhow::anyhow!("{name} ended by itself"),
            Err(error) => error.context(format!("{name} failed")),
        }
    }

    /// Drains referral-svc, then notify-svc; what is not published yet waits in the outbox for the next start.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let referral = self.referral.stop().await;
        let notify = self.notify.stop().await;
        referral.and(notify)
    }
}

impl Running {
    fn new(
        name: &'static str,
        (address, http): (SocketAddr, SocketAddr),
        shutdown: CancellationToken,
        task: JoinHandle<anyhow::Result<()>>,
    ) -> Self {
        Self { name, address, http, shutdown, task: Some(task) }
    }

    async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let result = task.await;
        self.task = None;
        result.context("its task panicked")?
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.ended().await.with_context(|| format!("{} did not stop cleanly", self.name))
    }
}

/// Where a local client reaches a server that listens there.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())) } else { listen }
}

/// Sets up roles and databases on a private server.
pub(crate) async fn prepare(postgres: &PrivatePostgres) -> anyhow::Result<()> {
    let client = postgres.connect(SUPERUSER, "postgres").await?;
    for ownership in [REFERRAL, NOTIFY] {
        ownership.create_roles(&client).await?;
        ownership.create_database(&client, ownership.database, "template1").await?;
        ownership.close_schema(&postgres.connect(SUPERUSER, ownership.database).await?).await?;
    }
    Ok(())
}

/// The URL to serve from and the URL to migrate by.
pub(crate) fn urls(postgres: &PrivatePostgres, ownership: &Ownership) -> (String, String) {
    let url = |role| postgres.url(role, ownership.database);
    (url(ownership.service), url(ownership.owner))
}
