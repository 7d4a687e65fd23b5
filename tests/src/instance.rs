//! One running instance of a service: in this process, or as a process of its own that can be killed.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use chrono::TimeDelta;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{clients, ports, process, wait};

/// A running service.
pub struct Instance {
    pub address: SocketAddr,
    /// Where it answers over HTTP.
    pub http: SocketAddr,
    kind: Kind,
}

enum Kind {
    Task { shutdown: CancellationToken, task: JoinHandle<anyhow::Result<()>> },
    Process { child: Child, log: PathBuf, _directory: TempDir },
}

impl Instance {
    pub(crate) async fn referral(config: referral_svc::Config) -> Self {
        let shutdown = CancellationToken::new();
        let handle = referral_svc::start(config, shutdown.clone()).await.expect("referral-svc starts");
        let (address, http) = (handle.local_addr, handle.http_addr);
        Self { address, http, kind: Kind::Task { shutdown, task: tokio::spawn(handle.finished()) } }
    }

    pub(crate) async fn notify(config: notify_svc::Config) -> Self {
        let shutdown = CancellationToken::new();
        let handle = notify_svc::start(config, shutdown.clone()).await.expect("notify-svc starts");
        let (address, http) = (handle.local_addr, handle.http_addr);
        Self { address, http, kind: Kind::Task { shutdown, task: tokio::spawn(handle.finished()) } }
    }

    /// Starts a service with these variables and no others of ours but a port for HTTP; returns when it is healthy.
    pub async fn process(program: &str, service: &str, address: SocketAddr, variables: &[(String, String)]) -> Self {
        let directory = tempfile::Builder::new().prefix("p2phub-test-").tempdir().expect("a directory");
        let log = directory.path().join("log");
        let file = File::create(&log).expect("a log file");
        let http_variable = if service == "referral-svc" { "REFERRAL_HTTP_LISTEN" } else { "NOTIFY_HTTP_LISTEN" };
        let given = variables.iter().find(|(name, _)| name == http_variable);
        let http = given.map_or_else(ports::free, |(_, value)| value.parse().expect("an address"));
        let child = Command::new(program)
            .env_clear()
            .env(process::VARIABLE, service)
            .env(http_variable, http.to_string())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .spawn()
            .expect("a process");
        let mut instance = Self { address, http, kind: Kind::Process { child, log, _directory: directory } };
        wait::until(&format!("{service} to be healthy"), async || {
            assert!(instance.is_running(), "{service} ended at its start: {}", instance.log());
            clients::is_serving(address, "").await.then_some(())
        })
        .await;
        instance
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        match &mut self.kind {
            Kind::Task { task, .. } => !task.is_finished(),
            Kind::Process { child, .. } => matches!(child.try_wait(), Ok(None)),
        }
    }

    /// The process's ID; `None` for an instance in this process.
    pub fn process_id(&self) -> Option<u32> {
        match &self.kind {
            Kind::Task { .. } => None,
            Kind::Process { child, .. } => Some(child.id()),
        }
    }

    /// What a process has printed.
    pub fn log(&self) -> String {
        match &self.kind {
            Kind::Task { .. } => String::new(),
            Kind::Process { log, .. } => fs::read_to_string(log).unwrap_or_default(),
        }
    }

    /// Has a process that was started with `process::CLOCK_AHEAD` go so far ahead, from now on.
    pub async fn set_ahead(&mut self, ahead: TimeDelta) {
        let Kind::Process { child, .. } = &mut self.kind else {
            panic!("an instance in this process shares its clock");
        };
        let micros = ahead.num_microseconds().expect("not that long");
        writeln!(child.stdin.as_mut().expect("an input"), "{micros}").expect("a line");
        let shifted = process::shifted(micros);
        wait::until("a shifted clock", async || self.log().contains(&shifted).then_some(())).await;
    }

    /// Kills a process with SIGKILL; only processes can be.
    pub fn kill(mut self) {
        match &mut self.kind {
            Kind::Task { .. } => panic!("only an instance in a process of its own can be killed"),
            Kind::Process { child, .. } => {
                child.kill().expect("a kill");
                child.wait().expect("an end");
            }
        }
    }

    /// Has it drain, and waits until it has ended well.
    pub async fn stop(mut self) {
        match &mut self.kind {
            Kind::Task { shutdown, task } => {
                shutdown.cancel();
                task.await.expect("no panic").expect("a clean end");
            }
            Kind::Process { child, .. } => {
                let id = child.id().to_string();
                Command::new("kill").args(["-TERM", &id]).status().expect("a signal");
                let status = wait::until("a process to stop", async || child.try_wait().ok().flatten()).await;
                assert!(status.success(), "ended with {status}: {}", self.log());
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Task { shutdown, .. } => shutdown.cancel(),
            Kind::Process { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
