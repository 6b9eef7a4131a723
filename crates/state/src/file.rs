//! What `std::fs` does, with the path in every error.

use std::fs::{self, File, ReadDir};
use std::io;
use std::path::Path;

/// Names the file or directory that an error is about.
pub(crate) fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("\"{}\": {e}", path.display())))
}

pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    named(path, fs::create_dir_all(path))
}

pub(crate) fn read_dir(path: &Path) -> io::Result<ReadDir> {
    named(path, fs::read_dir(path))
}

pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    named(path, fs::remove_dir_all(path))
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    named(path, fs::remove_file(path))
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    named(from, fs::rename(from, to))
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    named(path, fs::read(path))
}

/// Returns when a file's bytes, or a directory's entries, are on disk.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    named(path, File::open(path).and_then(|file| file.sync_all()))
}
