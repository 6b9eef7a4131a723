//! RocksDB's settings take effect, at the start and later.

use millpond_common::RelationId;

use super::support::*;
use crate::{Compression, Store, StoreOptions, Tuning};

const BAG: u32 = 1;

/// Commits rows that can be compressed well; returns the bytes of the file.
fn commit(store: &Store, epoch: u64) -> u64 {
    // Not alike in their first bytes, which stored keys share in any case.
    let values = (0..2000).map(|k| format!("{:x} {}", k * 7919 % 2000, "compressible ".repeat(40))).collect::<Vec<_>>();
    let rows = values.iter().map(|v| (epoch as i64, v.as_str(), 1)).collect::<Vec<_>>();
    store.publish(RelationId(BAG), epoch, vec![delta(&rows)]);
    store.commit(checkpoint(epoch, 0)).unwrap().bytes
}

fn compressed(compression: Compression) -> Tuning {
    Tuning { compression, ..Tuning::default() }
}

#[test]
fn compression_is_chosen_at_the_start_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { tuning: compressed(Compression::None), ..StoreOptions::default() };
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    store.relation_add(spec(BAG, false));
    let none = commit(&store, 1);
    store.tune(&compressed(Compression::Lz4)).unwrap();
    let lz4 = commit(&store, 2);
    store.tune(&compressed(Compression::Zstd)).unwrap();
    let zstd = commit(&store, 3);
    store.tune(&compressed(Compression::Snappy)).unwrap();
    let snappy = commit(&store, 4);
    store.tune(&compressed(Compression::None)).unwrap();
    let again = commit(&store, 5);
    assert!(
        none > 1_000_000 && again > 1_000_000 && snappy < none / 5 && lz4 < none / 5 && zstd < lz4,
        "{none} {lz4} {snappy} {zstd} {again}"
    );
    assert_eq!(count(&store.durable_view(), BAG), 10_000, "all of them are read");
    drop(store);
    let (store, _) = open(dir.path());
    store.relation_add(spec(BAG, false));
    assert_eq!(count(&store.durable_view(), BAG), 10_000);
}

#[test]
fn cache_and_buffer_have_the_sizes_that_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tuning =
        |cache: u64, buffer: u64| Tuning { compression: Compression::None, block_cache_bytes: Some(cache), write_buffer_bytes: buffer };
    let options = StoreOptions { tuning: tuning(64 << 20, 64 << 20), ..StoreOptions::default() };
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    store.relation_add(spec(BAG, false));
    for epoch in 1..=4 {
        commit(&store, epoch);
    }
    let cached = || {
        count(&store.durable_view(), BAG);
        store.rocks().unwrap().property("rocksdb.block-cache-usage")
    };
    assert!(cached() > 3 << 20, "four files are in the cache: {}", cached());
    store.tune(&tuning(1 << 20, 64 << 10)).unwrap();
    assert!(cached() < 3 << 20, "{}", cached());
    // The log's files appear as soon as the smaller buffer is full.
    let before = store.stats().files;
    for _ in 0..8 {
        store.log_append(&[vec![1; 40 << 10]]).unwrap();
    }
    for _ in 0..100 {
        if store.stats().files > before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(store.stats().files > before);
}
