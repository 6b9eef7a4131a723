//! Columns that were read stay in memory for as long as they are what is stored.

use arrow::array::ArrayRef;
use millpond_common::RelationId;

use super::support::*;
use crate::{ReadView, Scan};

const T: u32 = 1;
const BAG: u32 = 2;

/// The first column of a whole scan, in one batch.
fn column(view: &ReadView, relation: u32) -> ArrayRef {
    let batches = view.scan(RelationId(relation), Scan::default()).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(batches.len(), 1);
    std::sync::Arc::clone(batches[0].column(0))
}

fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    std::sync::Arc::ptr_eq(a, b)
}

#[test]
fn what_no_checkpoint_has_changed_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(T, true));
    store.relation_add(spec(BAG, false));
    let change = |epoch, relation, row: (i64, &str, i64)| {
        store.publish(RelationId(relation), epoch, vec![delta(&[row])]);
        store.set_visible(epoch, 0);
    };
    change(1, T, (1, "a", 1));
    change(1, BAG, (7, "x", 3));
    store.commit(checkpoint(1, 0)).unwrap();
    let (first, bag) = (column(&store.read_view(), T), column(&store.read_view(), BAG));
    assert!(same(&first, &column(&store.read_view(), T)) && same(&bag, &column(&store.read_view(), BAG)));

    // A change that no checkpoint has.
    let old = store.read_view();
    change(2, T, (2, "b", 1));
    assert_eq!(read(&store.read_view(), T), rows(&[(1, "a", 1), (2, "b", 1)]));
    assert!(same(&first, &column(&old, T)), "the older view has the same rows as before");
    store.commit(checkpoint(2, 0)).unwrap();
    assert_eq!(read(&store.read_view(), T), rows(&[(1, "a", 1), (2, "b", 1)]));
    assert_eq!(read(&store.read_view(), T), rows(&[(1, "a", 1), (2, "b", 1)]), "from memory");
    assert!(same(&bag, &column(&store.read_view(), BAG)), "others do not notice");
    assert_eq!(read(&old, T), rows(&[(1, "a", 1)]));

    // Emptied to be filled anew.
    store.clear(RelationId(T), &[]).unwrap();
    assert_eq!(read(&store.read_view(), T), rows(&[]));
    change(3, T, (9, "z", 1));
    store.commit(checkpoint(3, 0)).unwrap();
    assert_eq!(read(&store.read_view(), T), rows(&[(9, "z", 1)]));

    store.relation_remove(RelationId(BAG)).unwrap();
    store.commit(checkpoint(4, 0)).unwrap();
    assert_eq!(read(&store.read_view(), T), rows(&[(9, "z", 1)]));
}
