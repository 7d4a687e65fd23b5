//! Finds the PostgreSQL programs on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::bail;

/// Where versioned installations live: the directory, and what stands before and after the version.
const VERSIONED: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

/// The two programs that are needed.
pub(crate) struct Binaries {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
}

impl Binaries {
    /// `PG_BIN_DIR`, else the version that made `data`, else the newest versioned installation, else `PATH`.
    pub(crate) fn find(data: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
            let directory = PathBuf::from(directory);
            return match Self::within(&directory) {
                Some(found) => Ok(found),
                None => bail!("PG_BIN_DIR is {}, which holds no initdb and postgres", directory.display()),
            };
        }
        let mut versions: Vec<(u32, PathBuf)> = VERSIONED.iter().flat_map(versions_in).collect();
        let made_by = fs::read_to_string(data.join("PG_VERSION")).ok();
        let made_by: Option<u32> = made_by.and_then(|text| text.trim().parse().ok());
        versions.sort_by_key(|(version, _)| (Some(*version) == made_by, *version));
        let versions = versions.into_iter().rev().map(|(_, directory)| directory);
        let path = env::var_os("PATH").unwrap_or_default();
        let found = versions.chain(env::split_paths(&path)).find_map(|directory| Self::within(&directory));
        match found {
            Some(found) => Ok(found),
            None => bail!(
                "no PostgreSQL found: install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), \
                 set PG_BIN_DIR to the directory that holds initdb and postgres, or set REFERRAL_DATABASE_URL and NOTIFY_DATABASE_URL"
            ),
        }
    }

    fn within(directory: &Path) -> Option<Self> {
        let found = Self { initdb: directory.join("initdb"), postgres: directory.join("postgres") };
        (found.initdb.is_file() && found.postgres.is_file()).then_some(found)
    }
}

fn versions_in(&(root, prefix, inner): &(&str, &str, &str)) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(inner)))
        })
        .collect()
}
