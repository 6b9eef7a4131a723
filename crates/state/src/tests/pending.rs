//! Transactions that wait for their epoch, against two maps: the rows of all of them, and of the visible ones.

use std::collections::VecDeque;

use millpond_common::RelationId;

use super::support::*;
use crate::ReadView;

const T: u32 = 1;
const V: u32 = 2;

fn apply(rows: &mut Rows, changes: &[(i64, String, i64)]) {
    for (k, v, weight) in changes {
        *rows.entry((*k, v.clone())).or_default() += weight;
    }
    rows.retain(|_, n| *n != 0);
}

fn as_delta(changes: &[(i64, String, i64)]) -> millpond_common::Delta {
    delta(&changes.iter().map(|(k, v, w)| (*k, v.as_str(), *w)).collect::<Vec<_>>())
}

fn check(view: &ReadView, (keyed, bag): &(Rows, Rows)) {
    assert_eq!(&read(view, T), keyed);
    assert_eq!(&lookup(view, T, &(0..40).collect::<Vec<_>>()), keyed);
    assert_eq!(&read(view, V), bag);
    assert_eq!(view.row_estimate(RelationId(V)), bag.values().sum::<i64>() as u64);
}

#[test]
fn transactions_are_read_before_and_after_their_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(T, true));
    store.relation_add(spec(V, false));
    let mut random = Random(3);
    let (mut newest, mut visible) = (<(Rows, Rows)>::default(), <(Rows, Rows)>::default());
    let mut waiting = VecDeque::new();
    let mut held: Vec<(ReadView, (Rows, Rows))> = vec![];
    let mut epoch = 0;
    for seq in 1..=600u64 {
        let k = random.below(40) as i64;
        let value = format!("v{seq}");
        let mut changes = newest.0.keys().filter(|(key, _)| *key == k).map(|(k, v)| (*k, v.clone(), -1)).collect::<Vec<_>>();
        if random.below(3) > 0 {
            changes.insert(random.below(changes.len() as u64 + 1) as usize, (k, value, 1));
        }
        let bag = vec![(k, "x".to_owned(), if newest.1.contains_key(&(k, "x".to_owned())) && seq % 2 == 0 { -1 } else { 2 })];
        apply(&mut newest.0, &changes);
        apply(&mut newest.1, &bag);
        store.pending_add(seq, vec![(RelationId(T), as_delta(&changes)), (RelationId(V), as_delta(&bag))]);
        waiting.push_back((seq, changes, bag));
        if random.below(3) == 0 {
            check(&store.newest_view(), &newest);
        }
        if random.below(30) == 0 {
            held.push((store.newest_view(), newest.clone()));
        }
        if random.below(25) == 0 {
            epoch += 1;
            let before = visible.clone();
            let mut log_seq = 0;
            for _ in 0..random.below(waiting.len() as u64 + 1) {
                let (seq, changes, bag) = waiting.pop_front().unwrap();
                apply(&mut visible.0, &changes);
                apply(&mut visible.1, &bag);
                log_seq = seq;
            }
            for (relation, before, after) in [(T, &before.0, &visible.0), (V, &before.1, &visible.1)] {
                let mut net = after.clone();
                before.iter().for_each(|(row, n)| *net.entry(row.clone()).or_default() -= n);
                let net = net.iter().filter(|(_, n)| **n != 0).map(|((k, v), n)| (*k, v.clone(), *n)).collect::<Vec<_>>();
                store.publish(RelationId(relation), epoch, vec![as_delta(&net)]);
            }
            check(&store.newest_view(), &newest);
            store.set_visible(epoch, log_seq);
            check(&store.newest_view(), &newest);
            check(&store.read_view(), &visible);
            if random.below(2) == 0 {
                store.commit(checkpoint(epoch, log_seq)).unwrap();
                check(&store.newest_view(), &newest);
            }
            held.iter().for_each(|(view, rows)| check(view, rows));
            held.truncate(3);
        }
    }
}

/// Numbers of concurrent transactions may arrive out of order.
#[test]
fn a_late_transaction_is_not_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.relation_add(spec(V, false));
    let expected = |rows_: &[i64]| rows_.iter().map(|k| ((*k, "x".to_owned()), 1)).collect::<Rows>();
    for (seq, all) in [(1, &[1][..]), (3, &[1, 3]), (2, &[1, 2, 3]), (4, &[1, 2, 3, 4])] {
        store.pending_add(seq, vec![(RelationId(V), delta(&[(seq as i64, "x", 1)]))]);
        assert_eq!(read(&store.newest_view(), V), expected(all));
    }
}
