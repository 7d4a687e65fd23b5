//! The local pair's signing key: made at the first start, and kept beside its data.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use uuid::Uuid;

const FILE: &str = "audit-signing-key";

/// The key in this directory, as hex; made if there is none yet.
pub(crate) fn key(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join(FILE);
    if !path.exists() {
        make(data_dir, &path).with_context(|| format!("can't make {}", path.display()))?;
    }
    let key = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(key.trim().to_owned())
}

/// Under another name first: whoever finds the file finds all of it, and of two processes one's key wins.
fn make(data_dir: &Path, path: &Path) -> std::io::Result<()> {
    let seed: [u8; 32] = rand::random();
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = data_dir.join(format!("{FILE}-{}", Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{hex}").and_then(|()| file.sync_all());
    let made = written.and_then(|()| fs::hard_link(&draft, path)).or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    });
    fs::remove_file(&draft)?;
    made?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = key(directory.path()).expect("a key");
        assert!(first.len() == 64 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(key(directory.path()).expect("the key"), first);
        // A process that found none a moment ago.
        make(directory.path(), &directory.path().join(FILE)).expect("the other's key stays");
        assert_eq!(key(directory.path()).expect("the key"), first);
        let files: Vec<_> = fs::read_dir(directory.path()).expect("files").map(|file| file.expect("a file")).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0].metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
    }
}
