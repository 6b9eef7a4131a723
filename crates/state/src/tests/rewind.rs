//! Back to the last checkpoint, and to the beginning.

use millpond_common::{RelationId, StateTableId};

use super::support::*;
use crate::FrozenTable;

const V: u32 = 2;
const S: u32 = 9;

#[test]
fn a_relation_goes_back_while_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(1, true));
    store.relation_add(spec(V, false));
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 1)])]);
    store.set_visible(1, 0);
    store.commit(checkpoint(1, 0)).unwrap();
    store.publish(RelationId(V), 2, vec![delta(&[(1, "a", -1), (2, "b", 1)])]);
    store.publish(RelationId(1), 2, vec![delta(&[(7, "t", 1)])]);
    store.publish(RelationId(1), 3, vec![delta(&[(8, "t", 1)])]);
    store.set_visible(3, 0);
    let before = store.read_view();
    assert_eq!(read(&before, V), rows(&[(2, "b", 1)]));
    assert_eq!(store.changes(RelationId(1), 2, 3).iter().map(|d| d.len()).sum::<usize>(), 1);
    store.rewind(RelationId(V), 1);
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 1)]));
    assert_eq!(read(&store.read_view(), 1), rows(&[(7, "t", 1), (8, "t", 1)]));
    assert_eq!(read(&before, V), rows(&[(2, "b", 1)]), "a view never changes");
    store.commit(checkpoint(3, 0)).unwrap();
    assert!(store.changes(RelationId(1), 0, 3).is_empty(), "a checkpoint forgets what it holds");
    store.publish(RelationId(V), 4, vec![delta(&[(3, "c", 1)])]);
    store.set_visible(4, 0);
    assert_eq!(read(&store.read_view(), V), rows(&[(1, "a", 1), (3, "c", 1)]));
}

#[test]
fn what_is_cleared_can_be_filled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(V, true));
    let frozen = |key: u8| vec![FrozenTable { table: StateTableId(S), entries: [(vec![0, key], Some(vec![key]))].into_iter().collect() }];
    store.publish(RelationId(V), 1, vec![delta(&[(1, "a", 1), (2, "b", 1)])]);
    store.set_visible(1, 0);
    store.commit(crate::Checkpoint { frozen: frozen(1), ..checkpoint(1, 0) }).unwrap();
    store.clear(RelationId(V), &[StateTableId(S)]).unwrap();
    let state = || state_entries(&store, S, 0..256).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!((read(&store.read_view(), V), state().len()), (rows(&[]), 0));
    store.publish(RelationId(V), 2, vec![delta(&[(2, "c", 1)])]);
    store.set_visible(2, 0);
    store.commit(crate::Checkpoint { frozen: frozen(5), ..checkpoint(2, 0) }).unwrap();
    assert_eq!((read(&store.read_view(), V), state()), (rows(&[(2, "c", 1)]), vec![vec![0, 5]]));
}
