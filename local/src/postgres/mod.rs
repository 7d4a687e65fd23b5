//! A PostgreSQL server of our own, for `cargo run` and the tests: created, started, watched and stopped from here.

mod account;
mod binaries;
mod server;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::{
    account::Account,
    binaries::Binaries,
    server::{ENDING, Places, Postmaster, Server},
};

const START_LIMIT: Duration = Duration::from_secs(60);
/// More than a killed process's watcher takes to end its server by force.
const ORPHAN_LIMIT: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(10);

/// The role that may do everything. There are no passwords: the socket is closed to everybody but our own user.
pub const SUPERUSER: &str = "postgres";

/// A private server on a directory of its own. It ends with this process, whichever way that ends.
///
/// Two processes may open the same directory: the second one uses the server that the first one runs.
pub struct PrivatePostgres {
    home: PathBuf,
    socket_directory: PathBuf,
    binaries: Binaries,
    account: Account,
    server: Mutex<Option<Server>>,
    /// Held by the process that runs the server; none in one that only uses it.
    lock: Option<Flock<File>>,
    /// The home, if it goes with the server.
    throw_away: Option<TempDir>,
    /// Holds the socket where the home's own path is too long for one.
    short: Option<TempDir>,
}

impl PrivatePostgres {
    /// Opens the server in `directory`, created at the first use; what it holds is kept.
    pub async fn open(directory: &Path) -> anyhow::Result<Self> {
        let home = directory.join("postgres");
        fs::create_dir_all(&home).with_context(|| format!("can't create the directory {}", home.display()))?;
        Self::create(fs::canonicalize(home)?, None).await
    }

    /// Starts an empty server whose directory vanishes with it, even if this process is killed.
    pub async fn throw_away() -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("p2phub-").tempdir()?;
        Self::create(fs::canonicalize(home.path())?, Some(home)).await
    }

    async fn create(home: PathBuf, throw_away: Option<TempDir>) -> anyhow::Result<Self> {
        let account = Account::owning(&home)?;
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        let lock = File::options().create(true).truncate(false).write(true).open(home.join("lock"))?;
        let mut postgres = Self {
            binaries: Binaries::find(&home.join("data"))?,
            socket_directory: home.clone(),
            home,
            account,
            server: Mutex::new(None),
            lock: None,
            throw_away,
            short: None,
        };
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => postgres.lock = Some(lock),
            Err(_) => {
                postgres.attach().await?;
                return Ok(postgres);
            }
        }
        if !fits_socket(&postgres.home) {
            let short = tempfile::Builder::new().prefix("p2phub-").tempdir_in("/tmp")?;
            Account::owning(short.path())?;
            postgres.socket_directory = short.path().to_owned();
            postgres.short = Some(short);
        }
        postgres.end_orphan().await?;
        if !postgres.data().exists() {
            postgres.initialise()?;
        }
        postgres.start().await?;
        Ok(postgres)
    }

    /// The unix socket that the server listens on.
    pub fn socket(&self) -> PathBuf {
        self.socket_directory.join(".s.PGSQL.5432")
    }

    /// One of PostgreSQL's own programs, as `pgbench`, of the version that runs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.postgres.with_file_name(name)
    }

    /// Whether this process runs the server, rather than using another's.
    pub fn is_ours(&self) -> bool {
        self.lock.is_some()
    }

    /// A connection URL for a role and a database.
    pub fn url(&self, role: &str, database: &str) -> String {
        let host = self.socket_directory.display();
        format!("postgresql://{role}@/{database}?host={host}")
    }

    /// Connects; the connection's task runs on the current tokio runtime until the client is dropped.
    pub async fn connect(&self, role: &str, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let url = self.url(role, database);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Starts the server if it doesn't run, and returns when it takes connections.
    pub async fn start(&self) -> anyhow::Result<()> {
        ensure!(self.is_ours(), "another process runs this server");
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = self.try_start(deadline).await {
            // After a SIGKILL the old backends may need a moment to notice that their postmaster is gone.
            let lingering = format!("{error:#}").contains("pre-existing shared memory block");
            if !lingering || Instant::now() > deadline {
                return Err(error);
            }
            sleep(POLL * 10).await;
        }
        Ok(())
    }

    async fn try_start(&self, deadline: Instant) -> anyhow::Result<()> {
        if !self.slot().as_mut().is_some_and(Server::is_running) {
            let places = Places {
                home: &self.home,
                data: &self.data(),
                socket_directory: &self.socket_directory,
                throw_away: self.throw_away.as_ref().map(TempDir::path),
                short: self.short.as_ref().map(TempDir::path),
            };
            *self.slot() = Some(Server::spawn(&self.binaries, &self.account, &places)?);
        }
        loop {
            let pid = match self.slot().as_mut() {
                Some(server) => match server.running_pid() {
                    Some(pid) => pid,
                    None => bail!("PostgreSQL did not start: {}", server.last_words()),
                },
                None => bail!("PostgreSQL did not start"),
            };
            if Postmaster::read(&self.data()).is_some_and(|found| found.ready && found.pid == pid) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "PostgreSQL was not ready in {START_LIMIT:?}");
            sleep(POLL).await;
        }
    }

    /// Stops the server cleanly if it can be: connections are ended, everything is on disk. A process that only uses it
    /// stops nothing.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.end(&ENDING).await
    }

    /// Kills the server with SIGKILL, as a crash would.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.end(&ENDING[2..]).await
    }

    /// Stops the server and starts it again.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await?;
        self.start().await
    }

    async fn end(&self, ending: &[(Signal, Duration)]) -> anyhow::Result<()> {
        for (signal, limit) in ending {
            let deadline = Instant::now() + *limit;
            if let Some(server) = self.slot().as_mut() {
                server.signal(*signal)?;
            }
            while Instant::now() < deadline {
                if !self.slot().as_mut().is_some_and(Server::is_running) {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        }
        bail!("PostgreSQL does not even end by SIGKILL");
    }

    /// Uses the server that another process runs on this directory.
    async fn attach(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(found) = Postmaster::read(&self.data()).filter(|found| found.ready) {
                self.socket_directory = found.socket_directory;
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "another process holds {}, but its server is not ready",
                self.home.display()
            );
            sleep(POLL).await;
        }
    }

    /// Ends a server whose process was killed a moment ago and that has not finished stopping.
    async fn end_orphan(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ORPHAN_LIMIT;
        let mut told = false;
        // The process ID alone proves nothing after a crash of the machine; a socket that answers does.
        while let Some(found) = Postmaster::read(&self.data()).filter(Postmaster::answers) {
            if !told {
                found.signal(Signal::SIGINT)?;
                told = true;
            }
            ensure!(
                Instant::now() < deadline,
                "a PostgreSQL server (process {}) still runs on {}",
                found.pid,
                self.home.display()
            );
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Creates the files, under another name first: a creation that was interrupted leaves nothing that looks whole.
    fn initialise(&self) -> anyhow::Result<()> {
        let unfinished = self.home.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let output = server::command(&self.binaries.initdb, &self.account, &self.home)
            .args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--username", SUPERUSER])
            .arg("--pgdata")
            .arg(&unfinished)
            .output()
            .with_context(|| format!("can't run {}", self.binaries.initdb.display()))?;
        ensure!(
            output.status.success(),
            "initdb failed in {}: {}",
            self.home.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        fs::rename(&unfinished, self.data())?;
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Before its directories go, as the fields do next.
        self.slot().take();
    }
}

/// Unix socket paths hold 107 bytes, and only these characters mean themselves in a URL and in PostgreSQL's settings.
fn fits_socket(directory: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let path = directory.join(".s.PGSQL.5432");
    path.to_str().is_some_and(|path| path.len() <= 107 && path.chars().all(plain))
}
