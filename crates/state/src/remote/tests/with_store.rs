//! A whole database goes up, is lost or damaged, and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_common::{Result, SqlState};

use super::s3::{Fault, Server};
use super::support::{Place, options};
use crate::remote::{Cancel, Opened, RemoteOptions, RemoteStorage, Uploader, UploaderOptions, open_or_restore};
use crate::tests::support::{checkpoint, delta, read, rows, spec};
use crate::{Store, StoreOptions};

const RELATION: u32 = 1;
const OFTEN: UploaderOptions = UploaderOptions { interval: Duration::from_millis(10), keep: 2 };

fn store_options() -> StoreOptions {
    StoreOptions { memory: 64 << 20, ..Default::default() }
}

fn open(dir: &Path, storage: &RemoteStorage) -> Result<Opened> {
    let opened = open_or_restore(dir, &store_options(), storage, &Cancel::default())?;
    opened.store.relation_add(spec(RELATION, true));
    Ok(opened)
}

/// After this, the relation has one row for each epoch, and a checkpoint.
fn work(store: &Store, epoch: u64) {
    store.publish(millpond_common::RelationId(RELATION), epoch, vec![delta(&[(epoch as i64, "row", 1)])]);
    store.set_visible(epoch, 0);
    store.commit(checkpoint(epoch, 0)).unwrap();
}

fn check(store: &Store, epochs: u64) {
    let expected = (1..=epochs).map(|e| (e as i64, "row", 1)).collect::<Vec<_>>();
    assert_eq!(read(&store.durable_view(), RELATION), rows(&expected));
}

fn uploaded(uploader: &Uploader, epoch: u64) {
    let started = Instant::now();
    while uploader.status().last.is_none_or(|(u, _)| u.epoch < epoch) {
        let status = uploader.status();
        assert!(started.elapsed() < Duration::from_secs(60) && status.failed == 0, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three checkpoints, the third one in the storage; then an entry of the log and a record of the catalog, which are there too.
fn three(dir: &Path, storage: &Arc<RemoteStorage>) {
    let opened = open(dir, storage).unwrap();
    assert!(opened.restored.is_none());
    let uploader = opened.store.upload_to(Arc::clone(storage), OFTEN).unwrap();
    for epoch in 1..=3 {
        work(&opened.store, epoch);
        uploaded(&uploader, epoch);
    }
    opened.store.log_append(&[b"entry".to_vec()]).unwrap();
    opened.store.catalog_write(&[(b"view".to_vec(), b"definition".to_vec())], &[]).unwrap();
    let before = uploader.status().completed;
    let started = Instant::now();
    while uploader.status().completed == before {
        assert!(started.elapsed() < Duration::from_secs(60), "what came after the checkpoint is uploaded, too");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Twice: the first upload may have begun between the two.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(uploader.status().failed, 0, "{:?}", uploader.status());
}

fn check_restored(dir: &Path, storage: &Arc<RemoteStorage>) {
    let opened = open(dir, storage).unwrap();
    let restored = opened.restored.unwrap();
    assert_eq!((restored.epoch, restored.warnings.len()), (3, 0));
    assert_eq!((opened.recovered.epoch, opened.recovered.meta.as_slice()), (3, &3u64.to_be_bytes()[..]));
    assert_eq!(opened.recovered.log_tail, [(1, b"entry".to_vec())]);
    assert_eq!(opened.recovered.catalog, [(b"view".to_vec(), b"definition".to_vec())]);
    check(&opened.store, 3);
    assert!(opened.store.savepoint_list().unwrap().is_empty());
    // It goes on, there and here; and the next start needs no storage.
    let uploader = opened.store.upload_to(Arc::clone(storage), OFTEN).unwrap();
    work(&opened.store, 4);
    uploaded(&uploader, 4);
    drop((uploader, opened.store));
    let opened = open(dir, storage).unwrap();
    assert!(opened.restored.is_none());
    check(&opened.store, 4);
    assert!(fs::read_dir(dir.join("savepoints")).unwrap().next().is_none());
}

#[test]
fn an_empty_directory_is_filled_from_the_storage() {
    for place in Place::all() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(place.open());
        three(&dir.path().join("first"), &storage);
        check_restored(&dir.path().join("second"), &storage);
        assert!(!dir.path().join("second/db.damaged").exists());
        // The directory that was lost comes back: it may take over again, being the same database.
        let opened = open(&dir.path().join("first"), &storage).unwrap();
        assert!(opened.restored.is_none());
        check(&opened.store, 3);
    }
}

/// Some file of the database whose name ends so.
fn file(dir: &Path, pattern: &str) -> PathBuf {
    let files = fs::read_dir(dir.join("db")).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.file_name().unwrap().to_str().unwrap().contains(pattern)).max().unwrap()
}

#[test]
fn a_damaged_database_is_replaced_and_kept() {
    type Damage = fn(&Path);
    let damages: [(Damage, bool); 6] = [
        (|dir| fs::remove_dir_all(dir.join("db")).unwrap(), false),
        (|dir| fs::remove_file(file(dir, "CURRENT")).unwrap(), true),
        (|dir| fs::remove_file(file(dir, ".sst")).unwrap(), true),
        (|dir| fs::File::options().write(true).open(file(dir, ".sst")).unwrap().set_len(100).unwrap(), true),
        (|dir| fs::write(file(dir, "MANIFEST-"), "nonsense").unwrap(), true),
        (|dir| fs::remove_file(file(dir, "MANIFEST-")).unwrap(), true),
    ];
    for (i, (damage, kept)) in damages.into_iter().enumerate() {
        let place = Place::directory();
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(place.open());
        three(dir.path(), &storage);
        damage(dir.path());
        check_restored(dir.path(), &storage);
        assert_eq!(dir.path().join("db.damaged").exists(), kept, "damage {i}");
    }
}

#[test]
fn nothing_is_made_up_when_the_storage_is_away() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(server.open());
    let (good, lost) = (dir.path().join("good"), dir.path().join("lost"));
    three(&good, &storage);
    server.faults(|_, _| Some(Fault::Status(503)));
    check(&open(&good, &storage).unwrap().store, 3);
    let error = open(&lost, &storage).err().unwrap();
    assert_eq!(error.state(), SqlState::IO_ERROR);
    fs::remove_dir_all(good.join("db")).unwrap();
    assert_eq!(open(&good, &storage).err().unwrap().state(), SqlState::IO_ERROR);
    server.no_faults();
    check_restored(&good, &storage);
    let opened = open(&lost, &storage).unwrap();
    assert_eq!(opened.restored.unwrap().epoch, 4);
}

#[test]
fn another_database_is_refused() {
    let place = Place::directory();
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(place.open());
    three(&dir.path().join("one"), &storage);
    let other = Store::open(&dir.path().join("other"), &store_options()).unwrap().0;
    let uploader = other.upload_to(Arc::clone(&storage), OFTEN).unwrap();
    let started = Instant::now();
    while !uploader.status().lost {
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(uploader.status().error.unwrap().message().contains("another database"));
}

/// Which database it is: damage is told, and the form without a checksum is read.
#[test]
fn the_identity_is_guarded() {
    let place = Place::directory();
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(place.open());
    three(dir.path(), &storage);
    let path = dir.path().join("IDENTITY");
    let whole = fs::read(&path).unwrap();
    let store = open(dir.path(), &storage).unwrap().store;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for bad in [flipped, whole[..at].to_vec()] {
            fs::write(&path, bad).unwrap();
            let error = store.upload_to(Arc::clone(&storage), OFTEN).err().unwrap();
            assert!(error.to_string().contains("identity") && error.detail().is_some_and(|d| d.contains("IDENTITY")), "{error}");
        }
    }
    let bare = &whole[whole.len() - 32..];
    fs::write(&path, bare).unwrap();
    let uploader = store.upload_to(Arc::clone(&storage), OFTEN).unwrap();
    work(&store, 4);
    uploaded(&uploader, 4);
}

const DIRECTORY: &str = "MILLPOND_RESTORE_CRASH_TEST_DIRECTORY";

/// What the child below does.
#[test]
#[ignore = "runs as a child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let storage = Arc::new(storage_of(dir));
    open(&dir.join("data"), &storage).unwrap();
}

fn storage_of(dir: &Path) -> RemoteStorage {
    let place = dir.join("storage");
    fs::create_dir_all(&place).unwrap();
    RemoteStorage::open(&format!("file://{}", place.display()), options(None)).unwrap()
}

#[test]
fn a_crash_while_restoring_is_made_good_by_the_next_start() {
    let points = [
        "remote-claimed",
        "remote-restore-begin",
        "remote-restore-file:3",
        "remote-restore-verified",
        "remote-restore-renamed",
        "remote-arrived",
        "restore-recorded",
        "remote-ordered",
        "restore-linked",
        "restore-moved",
        "restore-swapped",
        "restore-done",
    ];
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let (data, storage) = (dir.path().join("data"), Arc::new(storage_of(dir.path())));
        three(&data, &storage);
        fs::write(file(&data, "MANIFEST-"), "nonsense").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "remote::tests::with_store::child"]);
        let output = command.env(DIRECTORY, dir.path()).env("MILLPOND_FAILPOINT", point).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("failpoint"), "{point}: {text}");
        let opened = open(&data, &storage).unwrap();
        assert_eq!(opened.recovered.epoch, 3, "{point}");
        assert_eq!(opened.recovered.log_tail.len(), 1, "{point}");
        check(&opened.store, 3);
        assert!(opened.store.savepoint_list().unwrap().is_empty(), "{point}");
    }
}

/// For an object store that others have made: give its URL here, and the rest in its own variables.
#[test]
#[ignore = "needs an object store, named by MILLPOND_TEST_STORAGE"]
fn with_an_object_store() {
    let url = std::env::var("MILLPOND_TEST_STORAGE").unwrap();
    let storage = Arc::new(RemoteStorage::open(&url, RemoteOptions::default()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    three(&dir.path().join("first"), &storage);
    check_restored(&dir.path().join("second"), &storage);
    // A file in parts.
    let large = super::support::Tree::from([("large".to_owned(), super::support::bytes(1, 20 << 20))]);
    let claim = storage.claim(None, &Cancel::default()).unwrap();
    let sent = storage.upload(&claim, super::support::plant(&large).path(), 1000, &Cancel::default()).unwrap();
    println!("sent {} bytes in {:?}", sent.bytes_sent, sent.duration);
    let (restored, found) = super::support::restore(&storage, crate::remote::Which::Latest).unwrap();
    println!("fetched {} bytes in {:?}", restored.bytes, restored.duration);
    assert_eq!(found, large);
    assert!(storage.gc(&claim, 1, &Cancel::default()).unwrap().objects > 0);
    let displaced = storage.claim(None, &Cancel::default()).and_then(|_| storage.gc(&claim, 1, &Cancel::default()));
    assert!(displaced.unwrap_err().message().contains("taken over"));
}
