//! Savepoints: made, read, listed, released, restored, forked, damaged.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use millpond_common::{RelationId, SqlState};

use super::support::*;
use crate::{Savepoint, SavepointKind, SavepointReader, Store, fork, restore_at_next_open};

const KEYED: u32 = 1;
const BAG: u32 = 2;

fn register(store: &Store) {
    store.relation_add(spec(KEYED, true));
    store.relation_add(spec(BAG, false));
}

/// After epoch e the keyed relation has the keys 1..=e, the bag has one row e times.
fn advance(store: &Store, epoch: u64) {
    store.publish(RelationId(KEYED), epoch, vec![delta(&[(epoch as i64, "x", 1)])]);
    store.publish(RelationId(BAG), epoch, vec![delta(&[(7, "bag", 1)])]);
    store.set_visible(epoch, 0);
    store.commit(checkpoint(epoch, 0)).unwrap();
}

fn check(view: &crate::ReadView, epoch: u64) {
    let keyed = (1..=epoch as i64).map(|k| (k, "x", 1)).collect::<Vec<_>>();
    assert_eq!(read(view, KEYED), rows(&keyed));
    assert_eq!(read(view, BAG), rows(&[(7, "bag", epoch as i64)]));
    assert_eq!(view.row_estimate(RelationId(BAG)), epoch);
    assert_eq!(lookup(view, KEYED, &[epoch as i64]), rows(&[(epoch as i64, "x", 1)]));
}

fn view(reader: &SavepointReader) -> crate::ReadView {
    reader.view([spec(KEYED, true), spec(BAG, false)]).unwrap()
}

fn create(store: &Store, name: &str) -> Savepoint {
    store.savepoint_create(name, SavepointKind::Manual, "by hand").unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.savepoint_list().unwrap().into_iter().map(|(name, _)| name).collect()
}

fn files(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_savepoint_is_read_while_the_database_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    (1..=3).for_each(|epoch| advance(&store, epoch));
    store.catalog_write(&[(b"table".to_vec(), b"one".to_vec())], &[]).unwrap();
    store.log_append(&[b"entry".to_vec()]).unwrap();
    let made = create(&store, "three");
    assert_eq!((made.epoch, made.log_seq, made.kind, made.comment.as_str()), (3, 0, SavepointKind::Manual, "by hand"));
    assert!(made.bytes > 0 && made.duration < Duration::from_secs(1), "{made:?}");

    (4..=12).for_each(|epoch| advance(&store, epoch));
    store.catalog_write(&[(b"table".to_vec(), b"two".to_vec())], &[]).unwrap();
    store.relation_remove(RelationId(BAG)).unwrap();
    store.commit(checkpoint(13, 1)).unwrap();
    let database = crate::directory::database(&crate::directory::savepoints(dir.path()).join("three"));
    let before = files(&database);
    let reader = store.savepoint_open("three").unwrap();
    check(&view(&reader), 3);
    assert_eq!(reader.recovered().epoch, 3);
    assert_eq!(reader.recovered().catalog, [(b"table".to_vec(), b"one".to_vec())]);
    assert_eq!(reader.recovered().log_tail, [(1, b"entry".to_vec())]);
    assert_eq!(files(&database), before, "reading writes nothing");
    assert!(std::sync::Arc::ptr_eq(&reader, &store.savepoint_open("three").unwrap()), "readers share it");

    // It survives a restart of the store, and what is dropped in it.
    drop(reader);
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(names(&store), ["three"]);
    assert_eq!(store.savepoint_list().unwrap()[0].1.as_ref().unwrap(), &made);
    check(&view(&store.savepoint_open("three").unwrap()), 3);
}

#[test]
fn names_are_checked_and_savepoints_released() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    let state = |result: millpond_common::Result<()>| result.unwrap_err().state();
    assert_eq!(state(store.savepoint_release("a")), SqlState::UNDEFINED_OBJECT);
    assert_eq!(state(store.savepoint_open("a").map(drop)), SqlState::UNDEFINED_OBJECT);
    assert_eq!(state(store.savepoint_restore("a")), SqlState::UNDEFINED_OBJECT);
    assert_eq!(state(store.savepoint_release("../db")), SqlState::UNDEFINED_OBJECT);
    assert_eq!(state(store.savepoint_release("")), SqlState("42602"));
    create(&store, "a"); // of an empty database
    advance(&store, 1);
    assert_eq!(state(store.savepoint_create("a", SavepointKind::Manual, "").map(drop)), SqlState::DUPLICATE_OBJECT);
    create(&store, "b");
    let reader = store.savepoint_open("b").unwrap();
    let of_b = view(&reader);
    drop(reader);
    assert_eq!(state(store.savepoint_release("b")), SqlState("55006"));
    check(&of_b, 1);
    drop(of_b);
    store.savepoint_release("b").unwrap();
    assert_eq!(names(&store), ["a"]);
    assert_eq!(read(&view(&store.savepoint_open("a").unwrap()), KEYED), rows(&[]));
    create(&store, "b");
    check(&view(&store.savepoint_open("b").unwrap()), 1);
}

#[test]
fn a_start_continues_from_a_savepoint() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    (1..=4).for_each(|epoch| advance(&store, epoch));
    store.log_append(&[b"in".to_vec()]).unwrap();
    create(&store, "four");
    store.log_append(&[b"out".to_vec()]).unwrap();
    (5..=9).for_each(|epoch| advance(&store, epoch));
    store.savepoint_restore("four").unwrap();
    assert_eq!(store.visible_epoch(), 9, "nothing happens before the next start");
    drop(store);
    for _ in 0..2 {
        let (store, recovered) = open(dir.path());
        register(&store);
        assert_eq!(recovered.epoch, 4);
        assert_eq!(recovered.log_tail, [(1, b"in".to_vec())]);
        check(&store.read_view(), 4);
        assert_eq!(names(&store), ["four"]);
        assert_eq!(store.log_append(&[b"again".to_vec()]).unwrap(), [2]);
        (5..=6).for_each(|epoch| advance(&store, epoch));
        check(&store.read_view(), 6);
        check(&view(&store.savepoint_open("four").unwrap()), 4);
        drop(store);
        restore_at_next_open(dir.path(), "four").unwrap();
    }
    open(dir.path());
    assert!(files(dir.path()).iter().all(|f| !f.starts_with("db.") && f != "RESTORE"), "{:?}", files(dir.path()));
}

/// If the savepoint has been damaged since the order was given, the present database is still there.
#[test]
fn a_restore_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    advance(&store, 1);
    create(&store, "one");
    advance(&store, 2);
    store.savepoint_restore("one").unwrap();
    store.savepoint_release("one").unwrap();
    drop(store);
    let error = try_open(dir.path()).err().unwrap();
    assert_eq!(error.state(), SqlState::UNDEFINED_OBJECT);
    assert!(error.hint().unwrap().contains("RESTORE"), "{error}");
    std::fs::remove_file(dir.path().join("RESTORE")).unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    check(&store.read_view(), 2);
}

#[test]
fn a_fork_is_a_database_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir.path().join("live"));
    register(&store);
    (1..=5).for_each(|epoch| advance(&store, epoch));
    create(&store, "five");
    advance(&store, 6);
    let other = dir.path().join("other");
    fork(&dir.path().join("live"), "five", &other).unwrap();
    let (forked, recovered) = open(&other);
    register(&forked);
    assert_eq!((recovered.epoch, forked.savepoint_list().unwrap().len()), (5, 0));
    check(&forked.read_view(), 5);
    (6..=30).for_each(|epoch| advance(&forked, epoch));
    (7..=20).for_each(|epoch| advance(&store, epoch));
    check(&forked.read_view(), 30);
    check(&store.read_view(), 20);
    check(&view(&store.savepoint_open("five").unwrap()), 5);

    let error = fork(&dir.path().join("live"), "five", &other).unwrap_err();
    assert!(error.message().contains("is not an empty directory"), "{error}");
    assert_eq!(fork(&dir.path().join("live"), "six", &dir.path().join("x")).unwrap_err().state(), SqlState::UNDEFINED_OBJECT);
    // Another file system has no links to this one.
    if let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") {
        let other = elsewhere.path().join("data");
        fork(&dir.path().join("live"), "five", &other).unwrap();
        let (forked, _) = open(&other);
        register(&forked);
        check(&forked.read_view(), 5);
    }
}

fn data_files(savepoint: &Path) -> Vec<std::fs::Metadata> {
    let paths = std::fs::read_dir(crate::directory::database(savepoint)).unwrap().map(|e| e.unwrap().path());
    paths.filter(|p| p.extension().is_some_and(|e| e == "sst")).map(|p| std::fs::metadata(p).unwrap()).collect()
}

#[test]
fn a_full_checkpoint_shares_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    (1..=3).for_each(|epoch| advance(&store, epoch));
    create(&store, "linked");
    let full = store.checkpoint_full().unwrap();
    assert_eq!((full.kind, full.epoch, full.name.as_str()), (SavepointKind::Full, 3, "full-3"));
    let path = |name: &str| crate::directory::savepoints(dir.path()).join(name);
    assert!(data_files(&path("linked")).iter().any(|f| f.nlink() > 1));
    assert!(data_files(&path("full-3")).iter().all(|f| f.nlink() == 1));
    let written = data_files(&path("full-3")).iter().map(|f| f.len()).sum::<u64>();
    assert!(full.bytes >= written && written > 0, "{} bytes in all, {written} of data", full.bytes);
    store.checkpoint_full().unwrap();
    assert_eq!(names(&store), ["full-3", "linked"]);
    advance(&store, 4);
    store.checkpoint_full().unwrap();
    assert_eq!(names(&store), ["full-4", "linked"], "the newest is kept");
    check(&view(&store.savepoint_open("full-4").unwrap()), 4);
    check(&store.read_view(), 4);
}

#[test]
fn a_full_checkpoint_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    (1..=3).for_each(|epoch| advance(&store, epoch));
    store.checkpoint_full().unwrap();
    advance(&store, 4);
    let database = crate::directory::database(dir.path());
    let paths = std::fs::read_dir(&database).unwrap().map(|e| e.unwrap().path());
    let damaged = paths.filter(|p| p.extension().is_some_and(|e| e == "sst")).max_by_key(|p| p.file_name().map(ToOwned::to_owned)).unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let error = store.checkpoint_full().unwrap_err();
    assert_eq!(error.state(), SqlState::DATA_CORRUPTED);
    let file = damaged.file_name().unwrap().to_str().unwrap();
    assert!(error.detail().is_some_and(|d| d.contains(file)) && error.hint().is_some(), "{error:?}");
    assert_eq!(names(&store), ["full-3"], "the one before is kept");
    check(&view(&store.savepoint_open("full-3").unwrap()), 3);
}

#[test]
fn the_last_checkpoints_are_retained() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    advance(&store, 1);
    store.set_checkpoint_retention(3);
    create(&store, "one");
    (2..=9).for_each(|epoch| advance(&store, epoch));
    assert_eq!(names(&store), ["checkpoint-7", "checkpoint-8", "checkpoint-9", "one"]);
    let reader = store.savepoint_open("checkpoint-7").unwrap();
    (10..=11).for_each(|epoch| advance(&store, epoch));
    assert_eq!(names(&store), ["checkpoint-10", "checkpoint-11", "checkpoint-7", "checkpoint-9", "one"], "7 is being read");
    check(&view(&reader), 7);
    drop(reader);
    // Another history of the same epochs.
    store.savepoint_restore("checkpoint-9").unwrap();
    drop(store);
    let (store, _) = open(dir.path());
    register(&store);
    store.set_checkpoint_retention(2);
    (10..=11).for_each(|epoch| advance(&store, epoch));
    assert_eq!(names(&store), ["checkpoint-10", "checkpoint-11", "one"]);
    store.set_checkpoint_retention(0);
    advance(&store, 12);
    assert_eq!(names(&store), ["one"], "what a user has made stays");
}

#[test]
fn damage_to_a_savepoint_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    register(&store);
    (1..=3).for_each(|epoch| advance(&store, epoch));
    store.log_append(&[b"entry".to_vec()]).unwrap();
    create(&store, "good");
    let savepoint = crate::directory::savepoints(dir.path()).join("good");
    let database = crate::directory::database(&savepoint);
    let all = ["SAVEPOINT".to_owned(), "FORMAT".to_owned()].map(|f| savepoint.join(f));
    for path in all.into_iter().chain(files(&database).iter().map(|f| database.join(f))) {
        if ["LOG", "OPTIONS"].iter().any(|idle| path.file_name().unwrap().to_str().unwrap().starts_with(idle)) {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        let sst = path.extension().is_some_and(|e| e == "sst");
        let middle = whole.len() / 2;
        let mut flipped = whole.clone();
        flipped.get_mut(middle).into_iter().for_each(|byte| *byte ^= 4);
        let changed = if whole.is_empty() { vec![vec![1]] } else { vec![whole[..middle].to_vec(), flipped] };
        for bad in changed.into_iter().take(if sst { 1 } else { 2 }) {
            // Not in place: a data file is the live database's, too.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bad).unwrap();
            let error = store.savepoint_open("good").err().unwrap();
            assert_eq!((error.state(), error.message()), (SqlState::DATA_CORRUPTED, "savepoint \"good\" is damaged"), "{error}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.detail().unwrap().contains(name), "{name}: {error}");
            assert_eq!(store.savepoint_restore("good").unwrap_err().state(), SqlState::DATA_CORRUPTED);
            assert_eq!(names(&store), ["good"]);
        }
        std::fs::write(&path, whole).unwrap();
    }
    check(&view(&store.savepoint_open("good").unwrap()), 3);
    std::fs::write(savepoint.join("SAVEPOINT"), "").unwrap();
    assert!(store.savepoint_list().unwrap()[0].1.is_err());
    store.savepoint_release("good").unwrap();
    assert!(names(&store).is_empty());
    check(&store.read_view(), 3);
}
