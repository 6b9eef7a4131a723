//! A RocksDB database as a set of files: linked, copied, listed, compared with a list.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use millpond_common::hash::hash_bytes;
use millpond_common::{Error, Result, SqlState};
use serde::{Deserialize, Serialize};

use crate::{directory, file};

/// A file as it was when its savepoint was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    name: String,
    bytes: u64,
    /// Of the small files. Data files have checksums of their own in every block.
    checksum: Option<u64>,
}

/// How a database's files come to another directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Data files, which never change, get another link; the others are copied.
    Link,
    /// Every byte is written.
    Copy,
}

/// Puts a database's files into a directory that does not exist yet; returns when they are on disk.
pub(super) fn clone_database(from: &Path, to: &Path, how: How) -> Result<()> {
    file::create_dir_all(to)?;
    for (name, _) in files_of(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if how == How::Copy || !is_immutable(&name) || !link(&source, &target)? {
            copy(&source, &target)?;
        }
    }
    Ok(directory::sync(to)?)
}

/// Makes sure that files which RocksDB has linked and copied are on disk.
pub(super) fn sync_all(dir: &Path) -> Result<()> {
    for (name, _) in files_of(dir)? {
        file::sync(&dir.join(name))?;
    }
    Ok(directory::sync(dir)?)
}

/// A list of a database's files.
pub(super) fn describe(dir: &Path) -> Result<Vec<FileEntry>> {
    let entry = |(name, bytes): (String, u64)| {
        let checksum = if is_immutable(&name) { None } else { Some(hash_bytes(&file::read(&dir.join(&name))?)) };
        Ok(FileEntry { name, bytes, checksum })
    };
    files_of(dir)?.into_iter().map(entry).collect()
}

/// Whether the files are still those of the list. Data files are looked at, not read: RocksDB checks what it reads.
pub(super) fn verify(dir: &Path, list: &[FileEntry]) -> Result<()> {
    for FileEntry { name, bytes, checksum } in list {
        let path = dir.join(name);
        let damaged = |what: String| {
            Error::new(SqlState::DATA_CORRUPTED, "a file is damaged").with_detail(format!("The file \"{}\" {what}.", path.display()))
        };
        let found = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(damaged("is missing".into())),
            Err(e) => return Err(damaged(format!("cannot be looked at: {e}"))),
        };
        if found != *bytes {
            return Err(damaged(format!("has {found} bytes instead of {bytes}")));
        }
        if let Some(checksum) = checksum
            && *checksum != hash_bytes(&fs::read(&path).map_err(|e| damaged(format!("cannot be read: {e}")))?)
        {
            return Err(damaged("has a wrong checksum".into()));
        }
    }
    Ok(())
}

/// Bytes of all files of a list.
pub(super) fn total_bytes(list: &[FileEntry]) -> u64 {
    list.iter().map(|f| f.bytes).sum()
}

/// Names and sizes of the files that make a database: not its messages and lock, nor the options that it was opened with.
fn files_of(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in file::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !["LOCK", "LOG", "OPTIONS"].iter().any(|idle| name.starts_with(idle)) {
            files.push((name, entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Such a file is written once and then only read.
fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst")
}

/// A second name for a file; `false` where the file system has no such thing, or is another one.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match file::named(to, fs::hard_link(from, to)) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::StorageFull | ErrorKind::AlreadyExists) => Err(e),
        Err(_) => Ok(false),
    }
}

/// Writes every byte (a file system that shares blocks between copies is not asked to) and syncs.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (file::named(from, File::open(from))?, file::named(to, File::create_new(to))?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file::named(from, source.read(&mut buffer))? {
            0 => return file::named(to, target.sync_all()),
            n => file::named(to, target.write_all(buffer.get(..n).unwrap_or_default()))?,
        }
    }
}

/// Removes a directory, if it is there.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match file::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
