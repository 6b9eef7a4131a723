//! How far the database had come, in a file outside of it.
//!
//! RocksDB takes a damaged end of its list of files for a write that a crash interrupted, and opens as it was before. So
//! the sequence number of the last write is noted after each checkpoint, without a sync: the database that is opened may be
//! further, never behind.

use std::path::Path;

use millpond_common::{Error, Result, SqlState};

use crate::directory;
use crate::frame::Frame;

const REACHED: &str = "REACHED";
const FRAME: Frame = Frame { magic: b"MPRC", version: 1, what: "the note of how far the database had come" };

/// Notes a number. That it cannot be written is no reason to fail: the older note still holds.
pub(crate) fn note(dir: &Path, sequence: u64) {
    let new = dir.join(format!("{REACHED}.new"));
    let written = std::fs::write(&new, FRAME.seal(&sequence.to_le_bytes())).and_then(|()| std::fs::rename(&new, dir.join(REACHED)));
    if let Err(error) = written {
        tracing::warn!(%error, "cannot note how far the database has come");
    }
}

/// Fails if the database is behind the note. As the note is not synced, one that cannot be read says nothing.
pub(crate) fn check(dir: &Path, sequence: u64) -> Result<()> {
    let path = dir.join(REACHED);
    if !path.try_exists()? {
        return Ok(());
    }
    let noted = match FRAME.read(&path).and_then(|body| body.try_into().map_err(|_| FRAME.damaged())) {
        Ok(noted) => u64::from_le_bytes(noted),
        Err(error) => {
            tracing::warn!(%error, "the note says nothing");
            return Ok(());
        }
    };
    if sequence >= noted {
        return Ok(());
    }
    Err(Error::new(SqlState::DATA_CORRUPTED, "the database has lost what was written to it")
        .with_detail(format!(
            "A file in \"{}\" is damaged, probably its MANIFEST: the database ends at write {sequence}, and had come to {noted}.",
            directory::database(dir).display()
        ))
        .with_hint("Restore the directory from a copy, or continue from a savepoint of it."))
}

/// Another database takes the place of this one.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    match std::fs::remove_file(dir.join(REACHED)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(directory::sync(dir)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_may_be_further_never_behind() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 0).unwrap();
        note(dir.path(), 7);
        check(dir.path(), 7).unwrap();
        check(dir.path(), 8).unwrap();
        assert_eq!(check(dir.path(), 6).unwrap_err().state(), SqlState::DATA_CORRUPTED);
        std::fs::write(dir.path().join(REACHED), "MPRC").unwrap();
        check(dir.path(), 6).unwrap();
        note(dir.path(), 9);
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        check(dir.path(), 6).unwrap();
    }
}
