//! What RocksDB does for the store: damaged logs, compaction, many files.

use std::path::{Path, PathBuf};

use millpond_common::{RelationId, SqlState};

use super::support::*;
use crate::{Store, StoreOptions};

const V: u32 = 2;

fn newest_wal(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir.join("db")).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
}

fn appended(dir: &Path) -> std::sync::Arc<Store> {
    let (store, _) = open(dir);
    store.commit(checkpoint(1, 0)).unwrap();
    for i in 0..10u8 {
        store.log_append(&[vec![i; 100]]).unwrap();
    }
    store
}

#[test]
fn a_torn_tail_of_the_log_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let _store = appended(&dir.path().join("live"));
    let length = std::fs::metadata(newest_wal(&dir.path().join("live"))).unwrap().len();
    for torn in [1, 50, 100, 130, 300] {
        let left = dir.path().join(format!("torn{torn}"));
        copy(&dir.path().join("live"), &left);
        let wal = std::fs::File::options().write(true).open(newest_wal(&left)).unwrap();
        wal.set_len(length - torn).unwrap();
        let (_, recovered) = open(&left);
        assert_eq!(recovered.epoch, 1);
        let numbers = recovered.log_tail.iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() < 10 && numbers.len() >= 10 - (torn as usize / 100 + 1), "{torn} bytes torn: {numbers:?}");
    }
}

/// Damage before the end is not skipped: what followed it had been acknowledged.
#[test]
fn damage_inside_of_the_log_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let _store = appended(&dir.path().join("live"));
    let left = dir.path().join("damaged");
    copy(&dir.path().join("live"), &left);
    let wal = newest_wal(&left);
    let mut bytes = std::fs::read(&wal).unwrap();
    let middle = bytes.len() - 500;
    bytes[middle] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    let error = Store::open(&left, &StoreOptions::default()).err().unwrap();
    assert_eq!(error.state(), SqlState::DATA_CORRUPTED, "{error}");
}

#[test]
fn weights_that_cancel_out_leave_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(V, false));
    let compact = || {
        let rocks = store.rocks().unwrap();
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        rocks.db().compact_range_cf_opt(rocks.data(), None::<&[u8]>, None::<&[u8]>, &options);
        rocks.db().iterator_cf(rocks.data(), rocksdb::IteratorMode::Start).count()
    };
    let mut epoch = 0;
    for round in 0..3 {
        for weight in [1, -1, 2] {
            epoch += 1;
            let changes = (0..500).map(|k| (k, "x", weight)).collect::<Vec<_>>();
            store.publish(RelationId(V), epoch, vec![delta(&changes)]);
            store.commit(checkpoint(epoch, 0)).unwrap();
        }
        assert_eq!(read(&store.read_view(), V).values().sum::<i64>(), 1000 * (round + 1));
    }
    epoch += 1;
    let changes = (0..500).map(|k| (k, "x", if k < 100 { -5 } else { -6 })).collect::<Vec<_>>();
    let before = store.read_view();
    store.publish(RelationId(V), epoch, vec![delta(&changes)]);
    store.commit(checkpoint(epoch, 0)).unwrap();
    compact();
    assert_eq!(read(&before, V).values().sum::<i64>(), 3000, "an older view keeps reading what it read");
    drop(before);
    compact();
    let left = compact();
    assert_eq!(left, 101, "a hundred rows and the marker");
    assert_eq!(read(&store.read_view(), V).len(), 100);
    assert_eq!(count(&store.read_view(), V), 100);
}

#[test]
fn hundreds_of_checkpoints_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(V, false));
    for epoch in 1..=200u64 {
        store.log_append(&[vec![0; 50]]).unwrap();
        store.publish(RelationId(V), epoch, vec![delta(&[(epoch as i64, "x", 1)])]);
        store.set_visible(epoch, epoch);
        store.commit(checkpoint(epoch, epoch)).unwrap();
    }
    assert_eq!(count(&store.read_view(), V), 200);
    for _ in 0..100 {
        if store.stats().files < 30 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(store.stats().files < 30, "{:?}", store.stats());
    assert_eq!((store.stats().overlay_rows, store.stats().overlay_bytes), (0, 0));
}
