//! Relations that only grow: how their rows lie in blocks, and that all of them are there after any commits.

use millpond_common::{Delta, RelationId};

use super::support::*;
use crate::rocks::BaseIterator;
use crate::{Scan, Store, format};

const R: RelationId = RelationId(1);

/// The ends of the stored blocks, by lane.
fn ends(store: &Store) -> Vec<(u8, u64)> {
    let base = std::sync::Arc::clone(&store.state.lock().base);
    let mut walk = BaseIterator::new(&base, format::vnode_bound(1, 0), format::vnode_bound(1, 256), false).unwrap();
    walk.with(|it| {
        let (mut ends, mut entries) = (vec![], 0u64);
        while let Some(key) = it.key() {
            assert_eq!(key[13..15], [0, (entries % 2) as u8], "an entry for each of two columns");
            ends.push((key[4], u64::from_be_bytes(key[5..13].try_into().unwrap())));
            entries += 1;
            it.next();
        }
        ends.dedup();
        ends
    })
}

fn insert(from: i64, rows: i64, text: &str) -> Delta {
    Delta::insert(delta(&(from..from + rows).map(|k| (k, text, 1)).collect::<Vec<_>>()).batch)
}

#[test]
fn small_blocks_are_put_together_and_large_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(appended(1));
    let mut rows = 0;
    // lane, rows added, ends of the blocks after the checkpoint
    let table: [(u8, i64, &[(u8, u64)]); 9] = [
        (0, 1, &[(0, 1)]),
        (0, 1, &[(0, 2)]),                                                             // 1 and 1 are one block of 2
        (0, 1, &[(0, 3)]),                                                             // 2 is not more than twice 1
        (0, 1, &[(0, 3), (0, 4)]),                                                     // 3 is
        (0, 1, &[(0, 5)]),                                                             // 1 and 1 and 3
        (7, 3, &[(0, 5), (7, 3)]),                                                     // another lane
        (0, 20_000, &[(0, 8192), (0, 16384), (0, 20005), (7, 3)]),                     // cut
        (0, 5000, &[(0, 8192), (0, 16384), (0, 24576), (0, 25005), (7, 3)]),           // the last one is small: written again
        (0, 20, &[(0, 8192), (0, 16384), (0, 24576), (0, 25005), (0, 25025), (7, 3)]), // 429 are many more than 20
    ];
    for (epoch, (lane, added, expected)) in (1..).zip(table) {
        store.publish_from(lane, R, epoch, vec![insert(rows, added, "x")]);
        store.set_visible(epoch, 0);
        store.commit(checkpoint(epoch, 0)).unwrap();
        rows += added;
        assert_eq!(ends(&store), expected, "after {added} rows in lane {lane}");
        let found = read(&store.read_view(), 1);
        assert_eq!((found.len() as i64, found.values().max()), (rows, Some(&1)));
        assert_eq!(found.keys().map(|(k, _)| *k).collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
    }
}

#[test]
fn wide_rows_are_in_smaller_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(appended(1));
    store.publish(R, 1, vec![insert(0, 40, &"w".repeat(100_000)), insert(40, 3, &"w".repeat(3_000_000))]);
    store.commit(checkpoint(1, 0)).unwrap();
    assert!(ends(&store).len() > 5, "{:?}", ends(&store));
    assert_eq!(read(&store.read_view(), 1).len(), 43);
}

/// A checkpoint of many wide rows writes them, and at most one block of those before.
#[test]
fn blocks_of_wide_rows_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(appended(1));
    let mut entries = vec![];
    for epoch in 1..=8 {
        store.publish(R, epoch, vec![insert(epoch as i64 * 3000, 3000, &"w".repeat(1000))]);
        store.set_visible(epoch, 0);
        entries.push(store.commit(checkpoint(epoch, 0)).unwrap().entries);
    }
    assert!(entries.iter().all(|e| *e <= 2 * entries[0]), "{entries:?}");
    assert_eq!(count(&store.read_view(), 1), 24_000);
}

/// Readers that share a relation read each row once between them, stored or not.
#[test]
fn several_readers_read_each_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(appended(1));
    for epoch in 1..=10 {
        store.publish_from((epoch % 2) as u8 * 128, R, epoch, vec![insert(epoch as i64 * 20_000, 20_000, "x")]);
        store.set_visible(epoch, 0);
        if epoch == 6 {
            store.commit(checkpoint(epoch, 0)).unwrap();
        }
    }
    let view = store.read_view();
    for readers in [1, 2, 3, 256] {
        let (mut all, mut busy) = (Rows::new(), 0);
        for reader in 0..readers {
            let vnodes = millpond_common::ids::vnodes_of(reader, readers);
            let before = all.len();
            for batch in view.scan(R, Scan { vnodes, ..Scan::default() }).unwrap() {
                collect(&mut all, &batch.unwrap());
            }
            busy += usize::from(all.len() > before);
        }
        assert!(busy >= readers.min(4), "{busy} of {readers} readers have something to read");
        assert_eq!((all.len(), all.values().max()), (200_000, Some(&1)));
    }
    // One lane, from its last row to its first.
    let (mut unread, mut first) = (crate::Unread::all(0..1), 10 * 20_000 + 20_000);
    while !unread.is_empty() {
        for part in view.read_part(R, &mut unread, 7777).unwrap() {
            let mut rows = Rows::new();
            collect(&mut rows, &part.batch);
            assert!(part.len() <= 7777 && rows.keys().last().unwrap().0 < first);
            first = rows.keys().next().unwrap().0;
        }
    }
    assert_eq!(first, 2 * 20_000);
}

/// What is emptied begins anew at place 0, and rows of its earlier life are neither read nor written again.
#[test]
fn an_emptied_relation_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(appended(1));
    store.publish(R, 1, vec![insert(0, 10, "old")]);
    store.commit(checkpoint(1, 0)).unwrap();
    store.clear(R, &[]).unwrap();
    store.publish(R, 2, vec![insert(0, 3, "new")]);
    store.set_visible(2, 0);
    let expected = rows(&[(0, "new", 1), (1, "new", 1), (2, "new", 1)]);
    assert_eq!(read(&store.read_view(), 1), expected);
    let parts = store.read_view().read_part(R, &mut crate::Unread::all(0..256), 100).unwrap();
    assert_eq!(parts.iter().map(Delta::len).sum::<usize>(), 3);
    store.commit(checkpoint(2, 0)).unwrap();
    assert_eq!((ends(&store), read(&store.read_view(), 1)), (vec![(0, 3)], expected));
}
