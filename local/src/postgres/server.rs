//! The running server process, and the line by which it notices that we are gone.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{POLL, account::Account, binaries::Binaries};

/// The shell becomes the server (so its process ID is the server's) and leaves a watcher behind that reads a pipe from us.
/// A process that ends, in whatever way, closes the pipe without a word; then the watcher stops the server. Unlike a
/// parent-death signal that needs no particular thread, user or system.
/// The watcher is a grandchild, lest PostgreSQL take it for a process of its own.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
ended() {
  for i in $(seq "$1"); do kill -0 $$ 2>/dev/null || return 0; sleep 0.05; done
  return 1
}
(
  (
    trap '' HUP INT QUIT TERM
    if ! read -r word <&3; then
      cd /
      kill -INT $$ 2>/dev/null
      ended 600 || kill -QUIT $$ 2>/dev/null
      ended 100 || kill -KILL $$ 2>/dev/null
      rm -rf ${THROW_AWAY:+"$THROW_AWAY"} ${SHORT:+"$SHORT"}
    fi
  ) &
)
exec "$@" 3<&-
"#;

/// How a server is ended: politely, then at once, then by force, and how long each may take.
pub(super) const ENDING: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(5)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// A server that this process started.
pub(crate) struct Server {
    child: Child,
    line: Option<ChildStdin>,
    log: PathBuf,
    /// Where in the log this server begins.
    log_begin: u64,
}

/// Where a server's files are.
pub(crate) struct Places<'a> {
    pub(crate) home: &'a Path,
    pub(crate) data: &'a Path,
    pub(crate) socket_directory: &'a Path,
    /// Goes when the server does: all of its files, or none.
    pub(crate) throw_away: Option<&'a Path>,
    /// Goes likewise: a directory for the socket alone.
    pub(crate) short: Option<&'a Path>,
}

impl Server {
    pub(crate) fn spawn(binaries: &Binaries, account: &Account, places: &Places) -> anyhow::Result<Self> {
        let log_path = places.home.join("postgres.log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let log_begin = log.metadata()?.len();
        let mut command = command(Path::new("/bin/sh"), account, places.home);
        command
            .args(["-c", LAUNCH, "postgres"])
            .arg(&binaries.postgres)
            .arg("-D")
            .arg(places.data)
            .args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "port=5432"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", places.socket_directory.display()))
            .args(["-c", "max_connections=400", "-c", "logging_collector=off", "-c", "log_destination=stderr"])
            .args(["-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"])
            .env("THROW_AWAY", places.throw_away.unwrap_or(Path::new("")))
            .env("SHORT", places.short.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command.spawn().context("can't run /bin/sh to start PostgreSQL")?;
        let line = child.stdin.take();
        Ok(Self { child, line, log: log_path, log_begin })
    }

    /// Whether the process lives. Once it has ended, the watcher is let go: the process ID may become somebody else's.
    pub(crate) fn is_running(&mut self) -> bool {
        let running = matches!(self.child.try_wait(), Ok(None));
        if !running && let Some(mut line) = self.line.take() {
            // It fails only if the watcher is gone already.
            let _ = writeln!(line, "ended");
        }
        running
    }

    pub(crate) fn running_pid(&mut self) -> Option<Pid> {
        let pid = i32::try_from(self.child.id()).ok()?;
        self.is_running().then(|| Pid::from_raw(pid))
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(pid) = self.running_pid() {
            if signal == Signal::SIGKILL {
                kill_children(pid)?;
            }
            kill(pid, signal).context("can't signal PostgreSQL")?;
        }
        Ok(())
    }

    /// What the server said last, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let mut log = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.log_begin))?;
            file.read_to_end(&mut log)
        });
        if let Err(error) = read {
            return format!("{} can't be read: {error}", self.log.display());
        }
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (signal, limit) in ENDING {
            let deadline = Instant::now() + limit;
            let _ = self.signal(signal);
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
    }
}

/// By force, everything ends at once: processes that outlived their postmaster would finish what they are just doing. It is
/// held meanwhile, so that it starts no new ones.
fn kill_children(postmaster: Pid) -> anyhow::Result<()> {
    kill(postmaster, Signal::SIGSTOP).context("can't stop PostgreSQL")?;
    // Where there is no /proc, they notice it themselves, if a little later.
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if parent(pid) == Some(postmaster.as_raw()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; after it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// What the server tells about itself in `postmaster.pid`.
pub(crate) struct Postmaster {
    pub(crate) pid: Pid,
    pub(crate) socket_directory: PathBuf,
    pub(crate) ready: bool,
}

impl Postmaster {
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: Pid::from_raw(lines.first()?.parse().ok()?),
            socket_directory: PathBuf::from(lines.get(4)?),
            ready: lines.get(7).is_some_and(|status| *status == "ready"),
        })
    }

    /// Whether a server listens there, rather than only its file being left.
    pub(crate) fn answers(&self) -> bool {
        UnixStream::connect(self.socket_directory.join(".s.PGSQL.5432")).is_ok()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context("can't stop the PostgreSQL server that an earlier run left behind"),
        }
    }
}

/// A command in the server's account, with a process group of its own: a Ctrl-C in the terminal is for us alone.
pub(crate) fn command(program: &Path, account: &Account, home: &Path) -> Command {
    let mut command = account.command(program);
    command.current_dir(home).process_group(0).env("LC_ALL", "C");
    for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGOPTIONS"] {
        command.env_remove(name);
    }
    command
}
