//! The system account that the server runs as: PostgreSQL refuses to run as root.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use nix::unistd::{User, chown, geteuid};

/// How a server's processes are started: as ourselves or, if this process is root, as somebody unprivileged.
pub(crate) struct Account {
    user: Option<User>,
    /// Set where a parent of the server's directory is closed to the account: the program that lets it pass.
    setpriv: Option<PathBuf>,
}

impl Account {
    /// Ourselves; for root `postgres`, else `nobody`, who then owns `home`.
    pub(crate) fn owning(home: &Path) -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { user: None, setpriv: None });
        }
        let mut found = None;
        for name in ["postgres", "nobody"] {
            found = match found {
                None => User::from_name(name)?,
                some => some,
            };
        }
        let Some(user) = found else {
            bail!("PostgreSQL can't run as root, and there is neither a user postgres nor nobody");
        };
        chown(home, Some(user.uid), Some(user.gid))
            .with_context(|| format!("can't change the owner of {}", home.display()))?;
        let setpriv = match closed_parent(&user, home) {
            None => None,
            Some(parent) => match find_program("setpriv") {
                Some(program) => Some(program),
                None => bail!(
                    "this process is root, so PostgreSQL runs as the user {}, who can't enter {parent}; set P2PHUB_DATA_DIR to a \
                     directory whose parents everybody may enter, or open it with: chmod o+x {parent}",
                    user.name,
                    parent = parent.display(),
                ),
            },
        };
        Ok(Self { user: Some(user), setpriv })
    }

    /// A command that runs as this account.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some(user) = &self.user else {
            return Command::new(program);
        };
        let Some(setpriv) = &self.setpriv else {
            let mut command = Command::new(program);
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            return command;
        };
        // Root itself may pass every directory; of all that root may do, this is what the account keeps.
        let mut command = Command::new(setpriv);
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .args(["--clear-groups", "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"])
            .args(["--bounding-set=-all,+dac_read_search", "--"])
            .arg(program);
        command
    }
}

/// The nearest parent that the user may not enter.
fn closed_parent<'a>(user: &User, directory: &'a Path) -> Option<&'a Path> {
    directory.ancestors().skip(1).find(|parent| {
        fs::metadata(parent).is_ok_and(|metadata| {
            let bit = if metadata.uid() == user.uid.as_raw() {
                0o100
            } else if metadata.gid() == user.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            metadata.mode() & bit == 0
        })
    })
}

fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}
