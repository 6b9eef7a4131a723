//! Columns that were read stay in memory for as long as they are what is stored.

use arrow::array::ArrayRef;
use millpond_common::RelationId;

use super::support::*;
use crate::{ReadView, Scan};

const T: u32 = 1;
const BAG: u32 = 2;

/// The first column of the batches of a whole scan.
fn batches(view: &ReadView, relation: u32) -> Vec<ArrayRef> {
    view.scan(RelationId(relation), Scan::default()).unwrap().map(|batch| std::sync::Arc::clone(batch.unwrap().column(0))).collect()
}

/// The same where there is one batch.
fn column(view: &ReadView, relation: u32) -> ArrayRef {
    let mut batches = batches(view, relation);
    assert_eq!(batches.len(), 1);
    batches.remove(0)
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
    assert!(same(&first, &batches(&store.read_view(), T)[0]), "what has not changed is not read again");
    assert!(same(&first, &column(&old, T)), "the older view has the same rows as before");
    store.commit(checkpoint(2, 0)).unwrap();
    assert!(same(&first, &batches(&store.read_view(), T)[0]), "nor after a checkpoint");
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

/// Many rows in many batches, some of them many times; every few rounds a checkpoint, or more changes than columns outlive.
#[test]
fn changes_are_patched_into_what_is_kept() {
    for keyed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        store.relation_add(spec(T, keyed));
        let mut random = Random(7);
        let copies = |random: &mut Random| if keyed || random.below(2000) > 0 { 1 } else { 1 + random.below(9000) as i64 };
        let mut model = (0..25_000).map(|k| ((k, format!("v{k}")), copies(&mut random))).collect::<Rows>();
        let publish = |epoch, changes: Vec<((i64, String), i64)>| {
            let changes = changes.iter().map(|((k, v), weight)| (*k, v.as_str(), *weight)).collect::<Vec<_>>();
            store.publish(RelationId(T), epoch, vec![delta(&changes)]);
            store.set_visible(epoch, 0);
        };
        publish(1, model.clone().into_iter().collect());
        store.commit(checkpoint(1, 0)).unwrap();
        assert_eq!(read(&store.read_view(), T), model);
        let first = batches(&store.read_view(), T);
        for epoch in 2..14 {
            let mut changes = vec![];
            for _ in 0..if epoch == 9 { 6000 } else { 20 + random.below(200) } {
                let k = random.below(26_000) as i64;
                let old = model.range((k, String::new())..(k + 1, String::new())).next().map(|(row, n)| (row.clone(), *n));
                if changes.iter().any(|((other, _), _)| *other == k) {
                    continue;
                }
                if let Some((row, n)) = old {
                    model.remove(&row);
                    changes.push((row, -n));
                }
                if random.below(3) > 0 {
                    let row = ((k, format!("w{epoch}")), copies(&mut random));
                    model.insert(row.0.clone(), row.1);
                    changes.push(row);
                }
            }
            let old = store.read_view();
            publish(epoch, changes);
            assert_eq!(read(&store.read_view(), T), model, "epoch {epoch}, keyed: {keyed}");
            assert_eq!(count(&store.read_view(), T), model.values().sum::<i64>());
            if epoch % 3 > 0 {
                store.commit(checkpoint(epoch, 0)).unwrap();
            }
            assert_eq!(read(&store.read_view(), T), model, "epoch {epoch}, keyed: {keyed}, after a checkpoint");
            assert_eq!(old.row_estimate(RelationId(T)), read(&old, T).values().sum::<i64>() as u64);
        }
        assert!(!batches(&store.read_view(), T).iter().any(|b| first.iter().any(|f| same(b, f))), "read anew after many changes");
    }
}
