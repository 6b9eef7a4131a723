//! One promise at a time.

use std::sync::Arc;

use millpond_common::{RelationId, SqlState, StateTableId};

use super::support::*;
use crate::{FrozenTable, KeyBound, KeyRange, Scan, Store, StoreOptions};

const T: u32 = 1;
const V: u32 = 2;

fn two_relations(store: &Store) {
    store.relation_add(spec(T, true));
    store.relation_add(spec(V, false));
}

#[test]
fn an_empty_directory_becomes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovered) = open(dir.path());
    assert_eq!((recovered.epoch, recovered.catalog.len(), recovered.log_tail.len()), (0, 0, 0));
    let error = Store::open(dir.path(), &StoreOptions::default()).err().unwrap();
    assert!(error.message().contains("is in use by process"), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn readers_see_visible_epochs_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1), (2, "b", 1)])]);
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 2)])]);
    assert_eq!(read(&store.read_view(), T), rows(&[]));
    store.set_visible(1, 0);
    let one = store.read_view();
    store.publish(RelationId(T), 2, vec![delta(&[(1, "a", -1), (1, "c", 1)])]);
    store.publish(RelationId(T), 2, vec![delta(&[(2, "b", -1)])]);
    store.publish(RelationId(V), 2, vec![delta(&[(1, "a", -1), (7, "x", 1)])]);
    assert_eq!(read(&store.read_view(), T), rows(&[(1, "a", 1), (2, "b", 1)]));
    store.set_visible(2, 0);
    let two = store.read_view();
    store.commit(checkpoint(2, 0)).unwrap();
    for view in [&two, &store.read_view(), &store.durable_view()] {
        assert_eq!(read(view, T), rows(&[(1, "c", 1)]));
        assert_eq!(read(view, V), rows(&[(1, "a", 1), (7, "x", 1)]));
        assert_eq!(lookup(view, T, &[2, 1, 5]), rows(&[(1, "c", 1)]));
        assert_eq!(lookup_rows(view, V, &[(7, "x"), (7, "y")]), rows(&[(7, "x", 1)]));
        assert_eq!((view.row_estimate(RelationId(T)), view.row_estimate(RelationId(V))), (1, 2));
        assert_eq!(count(view, V), 2);
    }
    assert_eq!(read(&one, T), rows(&[(1, "a", 1), (2, "b", 1)]), "a view never changes");
    assert_eq!(read(&one, V), rows(&[(1, "a", 2)]));
    assert_eq!(one.epoch(), 1);
}

#[test]
fn a_durable_view_shows_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 1)])]);
    store.publish(RelationId(V), 2, vec![delta(&[(2, "b", 1)])]);
    store.set_visible(2, 0);
    assert_eq!(read(&store.durable_view(), V), rows(&[]));
    store.commit(checkpoint(1, 0)).unwrap();
    assert_eq!(read(&store.durable_view(), V), rows(&[(1, "a", 1)]));
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 1), (2, "b", 1)]));
}

#[test]
fn a_keyed_relation_has_one_row_per_key_whatever_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    // new row first, old row last; from two workers; not consolidated
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1), (2, "b", 1), (3, "c", 1), (4, "d", 1), (5, "e", 1), (6, "f", 1)])]);
    store.publish(RelationId(T), 2, vec![delta(&[(1, "new", 1), (1, "a", -1), (3, "c", -1), (5, "old", -1), (5, "new", 1)])]);
    store.publish(RelationId(T), 2, vec![delta(&[(2, "new", 1), (5, "e", -1), (5, "old", 1), (6, "f", -1), (6, "g", 1)])]);
    store.publish(RelationId(T), 2, vec![delta(&[(2, "b", -1), (9, "x", 1), (9, "x", -1), (4, "d", -1), (4, "d", 1), (6, "g", -1)])]);
    store.publish(RelationId(T), 2, vec![delta(&[(8, "never", -1), (8, "never", 1)])]);
    store.set_visible(2, 0);
    let expected = rows(&[(1, "new", 1), (2, "new", 1), (4, "d", 1), (5, "new", 1)]);
    assert_eq!(read(&store.read_view(), T), expected);
    store.commit(checkpoint(2, 0)).unwrap();
    assert_eq!(read(&store.read_view(), T), expected);
}

#[test]
fn newest_view_adds_pending_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    let mut expected = Rows::new();
    for i in 0..20 {
        let seq = store.log_append(&[vec![i]]).unwrap()[0];
        assert_eq!(seq, u64::from(i) + 1);
        let text = i.to_string();
        let mut changes = vec![(i64::from(i % 5), text.as_str(), 1)];
        let before = i.checked_sub(5).map(|b| b.to_string());
        if let Some(before) = &before {
            changes.push((i64::from(i % 5), before, -1));
            expected.remove(&(i64::from(i % 5), before.clone()));
        }
        expected.insert((i64::from(i % 5), text.clone()), 1);
        store.pending_add(seq, vec![(RelationId(T), delta(&changes))]);
        assert_eq!(read(&store.newest_view(), T), expected);
        assert_eq!(lookup(&store.newest_view(), T, &[0, 1, 2, 3, 4, 5]), expected);
    }
    assert_eq!(read(&store.read_view(), T), rows(&[]));
    // An epoch takes over the first eighteen.
    let first = (13..18).map(|i| (i % 5, i.to_string())).collect::<Vec<_>>();
    let first = first.iter().map(|(k, v)| (*k, v.as_str(), 1)).collect::<Vec<_>>();
    store.publish(RelationId(T), 1, vec![delta(&first)]);
    store.set_visible(1, 18);
    assert_eq!(read(&store.read_view(), T), rows(&first));
    assert_eq!(read(&store.newest_view(), T), expected);
    store.pending_add(18, vec![(RelationId(T), delta(&[(99, "late", 1)]))]);
    assert_eq!(read(&store.newest_view(), T), expected, "what an epoch contains is pending no more");
}

#[test]
fn a_transaction_sees_its_own_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1)])]);
    store.set_visible(1, 0);
    let view = store.newest_view();
    let changed = view.with_changes(RelationId(T), delta(&[(1, "a", -1), (1, "b", 1)]));
    let changed = changed.with_changes(RelationId(T), delta(&[(1, "b", -1), (2, "c", 1)]));
    assert_eq!(read(&changed, T), rows(&[(2, "c", 1)]));
    assert_eq!(lookup(&changed, T, &[1, 2]), rows(&[(2, "c", 1)]));
    assert_eq!(changed.row_estimate(RelationId(T)), 1);
    assert_eq!(read(&view, T), rows(&[(1, "a", 1)]));
}

#[test]
fn heavy_rows_fill_several_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 20_000), (2, "b", 3)])]);
    store.set_visible(1, 0);
    let batches = store.read_view().scan(RelationId(V), Scan::default()).unwrap().map(|b| b.unwrap().num_rows()).collect::<Vec<_>>();
    assert_eq!(batches.iter().sum::<usize>(), 20_003);
    assert!(batches.iter().all(|n| *n <= 8192), "{batches:?}");
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 20_000), (2, "b", 3)]));
}

#[test]
fn vnode_ranges_partition_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    let all = (0..1000).map(|i| (i, "x", 1)).collect::<Vec<_>>();
    store.publish(RelationId(T), 1, vec![delta(&all[..600])]);
    store.commit(checkpoint(1, 0)).unwrap();
    store.publish(RelationId(T), 2, vec![delta(&all[600..])]);
    store.set_visible(2, 0);
    let mut found = Rows::new();
    for vnodes in [0..1, 1..100, 100..100, 100..255, 255..256] {
        for batch in store.read_view().scan(RelationId(T), Scan { vnodes, ..Scan::default() }).unwrap() {
            collect(&mut found, &batch.unwrap());
        }
    }
    assert_eq!(found, rows(&all));
}

#[test]
fn catalog_and_log_survive() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.catalog_write(&[(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())], &[]).unwrap();
    store.catalog_write(&[(b"c".to_vec(), b"3".to_vec())], &[b"a".to_vec()]).unwrap();
    assert_eq!(store.log_append(&[b"x".to_vec(), b"y".to_vec()]).unwrap(), [1, 2]);
    assert_eq!(store.log_append(&[b"z".to_vec()]).unwrap(), [3]);
    store.commit(checkpoint(5, 2)).unwrap();
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered.epoch, 5);
    assert_eq!(recovered.meta, 5u64.to_be_bytes());
    assert_eq!(recovered.catalog, [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    assert_eq!(recovered.log_tail, [(3, b"z".to_vec())]);
    store.commit(checkpoint(6, 3)).unwrap();
    drop(store);
    let (store, recovered) = open(dir.path());
    assert!(recovered.log_tail.is_empty());
    assert_eq!(store.log_append(&[vec![]]).unwrap(), [4], "numbers go on after an empty log");
}

#[test]
fn concurrent_appends_share_syncs_and_keep_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let threads = (0..8u8).map(|thread| {
        let store = Arc::clone(&store);
        std::thread::spawn(move || (0..50u8).map(|i| store.log_append(&[vec![thread, i]]).unwrap()[0]).collect::<Vec<_>>())
    });
    let mut numbers = Vec::new();
    for (thread, handle) in threads.collect::<Vec<_>>().into_iter().enumerate() {
        let mine = handle.join().unwrap();
        assert!(mine.is_sorted());
        numbers.extend(mine.into_iter().enumerate().map(|(i, seq)| (seq, vec![thread as u8, i as u8])));
    }
    numbers.sort();
    assert_eq!(numbers.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=400).collect::<Vec<_>>());
    drop(store);
    assert_eq!(open(dir.path()).1.log_tail, numbers);
}

#[test]
fn operator_state_is_loaded_by_vnode() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let entries = |list: &[(&[u8], Option<&[u8]>)]| list.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
    let mut first = checkpoint(1, 0);
    first.frozen.push(FrozenTable { table: StateTableId(8), entries: entries(&[(b"\x09a", Some(b"1")), (b"\x02b", Some(b"2"))]) });
    first.frozen.push(FrozenTable { table: StateTableId(9), entries: entries(&[(b"\x02z", Some(b"other"))]) });
    first.frozen.push(FrozenTable { table: StateTableId(8), entries: entries(&[(b"\xffc", Some(b""))]) });
    assert_eq!(store.commit(first).unwrap().entries, 4);
    let mut second = checkpoint(2, 0);
    second.frozen.push(FrozenTable { table: StateTableId(8), entries: entries(&[(b"\x09a", None), (b"\x02b", Some(b"3"))]) });
    store.commit(second).unwrap();
    drop(store);
    let (store, _) = open(dir.path());
    let load = |table, vnodes| state_entries(&store, table, vnodes).unwrap();
    assert_eq!(load(8, 0..256), [(b"\x02b".to_vec(), b"3".to_vec()), (b"\xffc".to_vec(), vec![])]);
    assert_eq!(load(8, 0..3), [(b"\x02b".to_vec(), b"3".to_vec())]);
    assert_eq!(load(9, 0..256).len(), 1);
    store.state_remove(&[StateTableId(8)]).unwrap();
    store.commit(checkpoint(3, 0)).unwrap();
    assert_eq!(load(8, 0..256), []);
    assert_eq!(load(9, 0..256).len(), 1);
}

#[test]
fn removed_relations_and_leftovers_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1)])]);
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 1)])]);
    store.commit(checkpoint(1, 0)).unwrap();
    let view = store.read_view();
    store.relation_remove(RelationId(T)).unwrap();
    assert!(store.read_view().spec(RelationId(T)).is_none());
    let error = store.read_view().scan(RelationId(T), Scan::default()).err().unwrap();
    assert_eq!(error.state(), SqlState::UNDEFINED_TABLE);
    store.publish(RelationId(T), 2, vec![delta(&[(2, "late", 1)])]);
    store.set_visible(2, 0);
    assert_eq!(read(&view, T), rows(&[(1, "a", 1)]), "a view that has it keeps it");
    drop(view);
    // The deletion is remembered over a restart and done by the next commit.
    drop(store);
    let (store, _) = open(dir.path());
    store.commit(checkpoint(2, 0)).unwrap();
    drop(store);
    let (store, _) = open(dir.path());
    two_relations(&store);
    assert_eq!(read(&store.read_view(), T), rows(&[]));
    assert_eq!(store.read_view().row_estimate(RelationId(T)), 0);
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 1)]));
    // Nobody knows of V: it goes.
    assert_eq!(store.remove_unknown(&[T].into()).unwrap(), 1);
    store.commit(checkpoint(3, 0)).unwrap();
    assert_eq!(store.remove_unknown(&[T].into()).unwrap(), 0);
    assert_eq!(read(&store.durable_view(), V), rows(&[]));
}

#[test]
fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.close();
    assert_eq!(store.log_append(&[vec![1]]).unwrap_err().state(), SqlState::ADMIN_SHUTDOWN);
    assert_eq!(store.commit(checkpoint(1, 0)).unwrap_err().state(), SqlState::ADMIN_SHUTDOWN);
    assert_eq!(store.catalog_write(&[], &[]).unwrap_err().state(), SqlState::ADMIN_SHUTDOWN);
    open(dir.path());
}

#[test]
fn a_failed_commit_poisons_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 1)])]);
    store.commit(checkpoint(1, 0)).unwrap();
    store.log_append(&[b"kept".to_vec()]).unwrap();
    store.publish(RelationId(V), 2, vec![delta(&[(2, "b", 1)])]);
    std::fs::remove_dir(dir.path().join("staging")).unwrap();
    store.commit(checkpoint(2, 1)).unwrap_err();
    std::fs::create_dir(dir.path().join("staging")).unwrap();
    for error in [store.commit(checkpoint(2, 1)).unwrap_err(), store.log_append(&[vec![]]).unwrap_err()] {
        assert_eq!(error.state(), SqlState::IO_ERROR);
        assert!(error.message().contains("nothing more is written") && error.hint().is_some(), "{error}");
    }
    drop(store);
    let (store, recovered) = open(dir.path());
    two_relations(&store);
    assert_eq!((recovered.epoch, recovered.log_tail), (1, vec![(1, b"kept".to_vec())]));
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 1)]));
}

#[test]
fn a_key_of_no_columns_means_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let mut one = spec(T, true);
    one.key = Some(vec![]);
    store.relation_add(one);
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1)])]);
    store.commit(checkpoint(1, 0)).unwrap();
    store.publish(RelationId(T), 2, vec![delta(&[(1, "a", -1), (5, "b", 1)])]);
    store.set_visible(2, 0);
    assert_eq!(read(&store.read_view(), T), rows(&[(5, "b", 1)]));
    store.commit(checkpoint(2, 0)).unwrap();
    assert_eq!(read(&store.read_view(), T), rows(&[(5, "b", 1)]));
}

/// A start that finds a relation half filled clears it and fills it again under the same number.
#[test]
fn a_relation_can_be_cleared_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    let state = |value: &[u8], key: &[u8]| FrozenTable {
        table: StateTableId(8),
        entries: [(key.to_vec(), Some(value.to_vec()))].into_iter().collect(),
    };
    for relation in [T, V] {
        store.publish(RelationId(relation), 1, vec![delta(&[(1, "a", 1), (2, "b", 1)])]);
    }
    let mut first = checkpoint(1, 0);
    first.frozen.push(state(b"old", b"\x01k"));
    store.commit(first).unwrap();
    let load = |store: &Arc<Store>| state_entries(store, 8, 0..256).unwrap();
    drop(store);
    for round in 0..3 {
        let (store, _) = open(dir.path());
        store.state_remove(&[StateTableId(8)]).unwrap();
        for relation in [T, V] {
            store.relation_add(spec(relation, relation == T));
            store.relation_remove(RelationId(relation)).unwrap();
            store.relation_add(spec(relation, relation == T));
        }
        assert_eq!(load(&store), []);
        if round == 0 {
            continue; // it ends before anything is filled in: the next start has to do it
        }
        let epoch = round + 1;
        let refill = [(1, "a", 1), (3, "c", 1)];
        for relation in [T, V] {
            assert_eq!(read(&store.read_view(), relation), rows(&[]));
            store.publish(RelationId(relation), epoch, vec![delta(&refill)]);
        }
        store.set_visible(epoch, 0);
        let check = |store: &Store| {
            for relation in [T, V] {
                assert_eq!(read(&store.read_view(), relation), rows(&refill));
                assert_eq!(store.read_view().row_estimate(RelationId(relation)), 2);
            }
            assert_eq!(lookup(&store.read_view(), T, &[1, 2, 3]), rows(&refill));
            assert_eq!(lookup_rows(&store.read_view(), V, &[(1, "a"), (2, "b"), (3, "c")]), rows(&refill));
        };
        check(&store);
        let mut next = checkpoint(epoch, 0);
        next.frozen.push(state(b"new", b"\x02k"));
        store.commit(next).unwrap();
        check(&store);
        drop(store);
        let (store, _) = open(dir.path());
        two_relations(&store);
        check(&store);
        assert_eq!(load(&store), [(b"\x02k".to_vec(), b"new".to_vec())]);
        let rocks = store.rocks().unwrap();
        rocks.db().compact_range_cf(rocks.data(), None::<&[u8]>, None::<&[u8]>);
        check(&store);
    }
}

#[test]
fn adding_a_relation_again_keeps_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    two_relations(&store);
    store.publish(RelationId(T), 1, vec![delta(&[(1, "a", 1)])]);
    two_relations(&store);
    store.set_visible(1, 0);
    assert_eq!(read(&store.read_view(), T), rows(&[(1, "a", 1)]));
}

/// Ranges of keys: by a key of one column, and by the first of several; stored rows, changes of both kinds, bounds of every kind.
#[test]
fn ranges_of_keys_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(T, true));
    store.relation_add(spec(V, false));
    let row = |k: i64| (k, ["a", "b", "\u{ff}"][(k % 3).unsigned_abs() as usize]);
    let publish = |epoch, rows: &[(i64, i64)]| {
        for id in [T, V] {
            let rows = rows.iter().map(|(k, weight)| (row(*k).0, row(*k).1, *weight)).collect::<Vec<_>>();
            store.publish(RelationId(id), epoch, vec![delta(&rows)]);
        }
        store.set_visible(epoch, 0);
    };
    publish(1, &(-500..500).map(|k| (k, 1)).collect::<Vec<_>>());
    store.commit(checkpoint(1, 0)).unwrap();
    publish(2, &[(7, -1), (-3, -1), (600, 1), (-700, 1), (499, -1)]);
    publish(3, &[(7, 1), (601, 1)]);
    let view = store.read_view();
    let all = read(&view, T);
    assert_eq!(all, read(&view, V));
    let found = |id, range: &KeyRange| {
        let mut rows = Rows::new();
        for batch in view.scan_range(RelationId(id), Scan::default(), range).unwrap() {
            collect(&mut rows, &batch.unwrap());
        }
        rows
    };
    let bound = |columns: Vec<arrow::array::ArrayRef>, inclusive| Some(KeyBound { columns, inclusive });
    let (number, text) = (
        |k: i64| std::sync::Arc::new(arrow::array::Int64Array::from(vec![k])) as arrow::array::ArrayRef,
        |v: &str| std::sync::Arc::new(arrow::array::StringArray::from(vec![v])) as arrow::array::ArrayRef,
    );
    for (low, high) in [(-4, 8), (-700, -499), (498, 601), (7, 7), (8, 7), (-10_000, 10_000), (255, 256)] {
        for (low_in, high_in) in [(true, true), (true, false), (false, true), (false, false)] {
            let within = |k: i64| (k > low || (low_in && k == low)) && (k < high || (high_in && k == high));
            let wanted = all.clone().into_iter().filter(|((k, _), _)| within(*k)).collect::<Rows>();
            let range = KeyRange { from: bound(vec![number(low)], low_in), until: bound(vec![number(high)], high_in) };
            assert_eq!(found(T, &range), wanted, "{range:?}");
            // Of the rows, which are the keys of the other relation: one value of the first column, a range of the second.
            for v in ["a", "\u{ff}", "none"] {
                let wanted = wanted.clone().into_iter().filter(|((_, w), _)| w == v).collect::<Rows>();
                let range =
                    KeyRange { from: bound(vec![text(v), number(low)], low_in), until: bound(vec![text(v), number(high)], high_in) };
                assert_eq!(found(V, &range), wanted, "{range:?}");
            }
        }
        let above = KeyRange { from: bound(vec![number(low)], false), until: None };
        assert_eq!(found(T, &above), all.clone().into_iter().filter(|((k, _), _)| *k > low).collect::<Rows>());
        let below = KeyRange { from: None, until: bound(vec![number(low)], true) };
        assert_eq!(found(T, &below), all.clone().into_iter().filter(|((k, _), _)| *k <= low).collect::<Rows>());
    }
    let prefix = KeyRange { from: bound(vec![text("b")], true), until: bound(vec![text("b")], true) };
    assert_eq!(found(V, &prefix), all.into_iter().filter(|((_, v), _)| v == "b").collect::<Rows>());
}

/// Of many rows a small range is searched for, a large one is not.
#[test]
fn a_range_is_searched_for_where_that_pays() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(T, true));
    store.publish(RelationId(T), 1, vec![delta(&(0..210_000).map(|k| (k, "x", 1)).collect::<Vec<_>>())]);
    store.set_visible(1, 0);
    let number = |k: i64| Arc::new(arrow::array::Int64Array::from(vec![k])) as arrow::array::ArrayRef;
    let below = |k: i64| KeyRange { from: None, until: Some(KeyBound { columns: vec![number(k)], inclusive: false }) };
    let rows = |range| {
        let scan = Scan { projection: Some(vec![]), keys: Some(range), ..Scan::default() };
        store.read_view().scan(RelationId(T), scan).unwrap().map(|b| b.unwrap().num_rows()).sum::<usize>()
    };
    assert_eq!(rows(below(100)), 100, "before a checkpoint");
    store.commit(checkpoint(1, 0)).unwrap();
    assert_eq!(rows(below(100)), 100);
    assert_eq!(rows(below(100_000)), 210_000, "who asks still has to filter");
}
