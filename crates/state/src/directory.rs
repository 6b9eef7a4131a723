//! The data directory: who may use it, and whether it is one.
//!
//! `FORMAT` says what it is, `LOCK` is held while it is open, `db/` is RocksDB's, `staging/` has the files of a checkpoint
//! until they are ingested, `savepoints/` what its name says; `RESTORE` orders the next start to continue from one of them.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use millpond_common::{Error, Result, SqlState};

use crate::{file, format};

const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new"; // by replace_file
const LOCK: &str = "LOCK";
const DATABASE: &str = "db";

/// Where RocksDB's files are.
pub(crate) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Where files wait for ingestion.
pub(crate) fn staging(dir: &Path) -> PathBuf {
    dir.join("staging")
}

/// Where savepoints are.
pub(crate) fn savepoints(dir: &Path) -> PathBuf {
    dir.join("savepoints")
}

/// Creates the directory if there is none, checks that it is ours and readable, and locks it.
pub(crate) fn claim(dir: &Path) -> Result<File> {
    let failed = |e: io::Error| unusable(dir, &e);
    fs::create_dir_all(dir).map_err(failed)?;
    check_format(dir)?;
    let lock = lock(dir)?;
    // Under the lock, so that two processes that find an empty directory do not both make it theirs.
    match check_format(dir)? {
        Some(version) if format::is_current(version) => {}
        Some(_) => write_format(dir).map_err(failed)?,
        None => {
            fs::create_dir_all(database(dir)).map_err(failed)?;
            write_format(dir).map_err(failed)?;
        }
    }
    fs::create_dir_all(staging(dir)).map_err(failed)?;
    sync(dir).map_err(failed)?;
    Ok(lock)
}

/// Fails if the database or its table of contents is gone: RocksDB would make an empty one.
pub(crate) fn check_database(dir: &Path) -> Result<()> {
    let failed = |e: io::Error| unusable(dir, &e);
    let missing = |path: PathBuf| {
        Error::new(SqlState::DATA_CORRUPTED, "the database's files are missing")
            .with_detail(format!("There is no \"{}\".", path.display()))
            .with_hint("Restore the directory from a copy, or continue from a savepoint of it.")
    };
    let database = database(dir);
    if !database.try_exists().map_err(failed)? {
        return Err(missing(database));
    }
    let current = database.join("CURRENT");
    if !current.try_exists().map_err(failed)? {
        for entry in fs::read_dir(&database).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if [".sst", ".log"].iter().any(|end| name.to_string_lossy().ends_with(end)) {
                return Err(missing(current));
            }
        }
    }
    Ok(())
}

/// Makes sure that the directory's entries are on disk.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    file::sync(dir)
}

/// Writes a file of a directory as a whole: a crash leaves the old one or the new one. It is on disk on return.
pub(crate) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    file::named(&new, write())?;
    file::rename(&new, &dir.join(name))?;
    sync(dir)
}

/// Makes a directory ours.
pub(crate) fn write_format(dir: &Path) -> io::Result<()> {
    replace_file(dir, FORMAT, &format::format_file())
}

/// The directory's version; fails unless it has a good FORMAT file.
pub(crate) fn read_format(dir: &Path) -> Result<u32> {
    let path = dir.join(FORMAT);
    let named = |e: Error| e.with_detail(format!("The file is \"{}\".", path.display()));
    fs::read(&path).map_err(Error::from).and_then(|bytes| format::check_format_file(&bytes)).map_err(named)
}

/// The version if there is a FORMAT file, and a good one; a directory without one must hold nothing of anybody else's.
fn check_format(dir: &Path) -> Result<Option<u32>> {
    let failed = |e: io::Error| unusable(dir, &e);
    match dir.join(FORMAT).try_exists() {
        Ok(true) => return read_format(dir).map(Some),
        Ok(false) => {}
        Err(e) => return Err(failed(e)),
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let begun =
            name == LOCK || name == FORMAT_NEW || (name == DATABASE && fs::read_dir(database(dir)).is_ok_and(|mut d| d.next().is_none()));
        if !begun && name != "lost+found" {
            let message = format!("\"{}\" is not a Millpond data directory", dir.display());
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_detail(format!("It holds \"{}\" but no FORMAT file.", name.to_string_lossy()))
                .with_hint("Name an empty directory, or one that Millpond has made."));
        }
    }
    Ok(None)
}

/// A process that is just ending, or one that another thread of this one is just starting, may hold the lock for a moment.
fn patiently(try_lock: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    for _ in 0..20 {
        match try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(10)),
            result => return result,
        }
    }
    try_lock()
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let failed = |e: io::Error| unusable(dir, &e);
    let mut file = file::named(&path, File::options().read(true).write(true).create(true).truncate(false).open(&path)).map_err(failed)?;
    match patiently(|| file.try_lock()) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
            return Err(in_use(dir, &holder));
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    // For the message above; nothing depends on it.
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    file::named(&path, noted).map_err(failed)?;
    Ok(file)
}

/// The files of RocksDB's log, for [`name_log_files`]: opening moves their contents elsewhere.
pub(crate) fn log_files(dir: &Path) -> String {
    let entries = fs::read_dir(database(dir)).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut logs =
        entries.filter(|p| p.extension().is_some_and(|e| e == "log")).map(|p| format!("\"{}\"", p.display())).collect::<Vec<_>>();
    logs.sort();
    logs.join(", ")
}

/// Damage that was found without a file's name is in the log: RocksDB names all other files.
pub(crate) fn name_log_files(dir: &Path, logs: &str, error: Error) -> Error {
    let named = |text: &str| text.contains(&*dir.to_string_lossy());
    if error.state() != SqlState::DATA_CORRUPTED || error.detail().is_some_and(named) {
        return error;
    }
    let known = error.detail().map(|d| format!("{d}. ")).unwrap_or_default();
    error.with_detail(format!("{known}The files are in \"{}\"; the log is {logs}.", database(dir).display()))
}

/// Somebody else has the directory open.
pub(crate) fn in_use(dir: &Path, holder: &str) -> Error {
    let message = format!("data directory \"{}\" is in use by {holder}", dir.display());
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint("Stop the other server, or name another data directory.")
}

fn unusable(dir: &Path, error: &io::Error) -> Error {
    let message = format!("cannot use data directory \"{}\": {error}", dir.display());
    let state = if error.kind() == ErrorKind::StorageFull { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    let result = Error::new(state, message);
    match error.kind() {
        ErrorKind::PermissionDenied => result.with_hint("The server's user must be allowed to read and write it."),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => result.with_hint("It must be a directory."),
        ErrorKind::ReadOnlyFilesystem => result.with_hint("It must be on a file system that can be written to."),
        _ => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_an_empty_directory_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let held = claim(&dir).unwrap();
        let error = claim(&dir).unwrap_err();
        assert!(error.message().contains(&format!("in use by process {}", std::process::id())), "{error}");
        assert!(error.hint().is_some());
        drop(held);
        claim(&dir).unwrap();
    }

    #[test]
    fn refuses_what_is_not_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let error = claim(dir.path()).unwrap_err();
        assert!(error.message().contains("is not a Millpond data directory"), "{error}");
        assert!(error.message().contains(dir.path().to_str().unwrap()), "{error}");
        assert!(!dir.path().join(LOCK).exists(), "a foreign directory is left as it was");
        let error = claim(&dir.path().join("letter.txt")).unwrap_err();
        assert!(error.message().starts_with("cannot use data directory"), "{error}");
    }

    #[test]
    fn an_interrupted_creation_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FORMAT_NEW), "MILL").unwrap();
        fs::write(dir.path().join(LOCK), "").unwrap();
        claim(dir.path()).unwrap();
        assert!(check_format(dir.path()).unwrap().is_some());
        fs::write(dir.path().join(FORMAT), "MILLPOND").unwrap();
        assert_eq!(claim(dir.path()).unwrap_err().state(), SqlState::DATA_CORRUPTED);
    }
}
