//! Data directories of all versions so far open; one of a later version does not.

use std::path::{Path, PathBuf};

use millpond_common::SqlState;
use millpond_common::hash::hash_bytes;

use super::sample::*;
use super::support::*;

/// Directories that each version has written, as a crash left them.
fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../data/golden/v{version}"))
}

#[test]
#[ignore = "writes the directory that the test below reads: only for a new version of the format"]
fn make_golden_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    make(&dir);
    copy(&dir, &golden(VERSION));
    remove_idle_files(&golden(VERSION));
}

/// The lock, RocksDB's messages, the options that it was opened with.
fn remove_idle_files(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            remove_idle_files(&entry.path());
        } else if ["LOCK", "LOG", "OPTIONS"].iter().any(|idle| name.starts_with(idle)) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn directories_of_all_versions_are_read() {
    for version in 1..=VERSION {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("data");
        copy(&golden(version), &dir);
        let written = std::fs::read(dir.join("FORMAT")).unwrap();
        assert_eq!(crate::format::check_format_file(&written).unwrap(), version);
        assert_eq!(examine_version(&dir, version).unwrap(), whole());
        // Once it has been opened and closed it reads the same, and is of the newest version: older programs must not write to it.
        let written = std::fs::read(dir.join("FORMAT")).unwrap();
        assert_eq!(crate::format::check_format_file(&written).unwrap(), VERSION);
        assert_eq!(examine_version(&dir, version).unwrap(), whole());
        crate::restore_at_next_open(&dir, "two").unwrap();
        assert_eq!(examine_version(&dir, version).unwrap().epoch, 2);
    }
}

#[test]
fn a_directory_from_the_future_is_refused_and_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    copy(&golden(VERSION), &dir);
    let mut future = b"MILLPOND\x07\0\0\0".to_vec();
    future.extend_from_slice(&hash_bytes(&future).to_le_bytes());
    let present = std::fs::read(dir.join("FORMAT")).unwrap();
    std::fs::write(dir.join("FORMAT"), &future).unwrap();
    let error = try_open(&dir).err().unwrap();
    assert_eq!(error.state(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.message().contains("format 7") && error.hint().unwrap().contains("newer"), "{error}");
    assert!(error.detail().unwrap().contains(dir.to_str().unwrap()), "{error}");
    std::fs::write(dir.join("FORMAT"), present).unwrap();
    // A savepoint alone may be from the future: then it is not restored, and not called damaged.
    let savepoint = dir.join("savepoints/two/SAVEPOINT");
    let mut bytes = std::fs::read(&savepoint).unwrap();
    bytes[4] = 9;
    std::fs::write(&savepoint, bytes).unwrap();
    let error = crate::restore_at_next_open(&dir, "two").unwrap_err();
    assert_eq!(error.state(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.message().contains("format 9"), "{error}");
    let found = examine(&dir).unwrap();
    assert_eq!((found.epoch, found.savepoints["two"].is_err()), (EPOCHS, true));
}
