//! Reading in parts while the relation changes, with commits and other readers' shares in between.

use millpond_common::ids::vnodes_of;
use millpond_common::{Delta, RelationId, RelationSpec};

use super::support::*;
use crate::{KeySplitter, Store, Unread};

const R: RelationId = RelationId(1);

/// Adds a delta's rows to what has been read.
fn take(held: &mut Rows, delta: &Delta) {
    for row in 0..delta.len() {
        let mut one = Rows::new();
        collect(&mut one, &delta.batch.slice(row, 1));
        let key = one.into_keys().next().unwrap();
        *held.entry(key).or_default() += delta.weight(row);
    }
    held.retain(|_, n| *n != 0);
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Keyed,
    Bag,
    Appended,
}

impl Kind {
    fn spec(self) -> RelationSpec {
        if self == Kind::Appended { appended(1) } else { spec(1, self == Kind::Keyed) }
    }
}

/// A random change of rows that fits what is there: with a key, every key has one row at most.
fn change(random: &mut Random, now: &Rows, kind: Kind) -> Vec<(i64, String, i64)> {
    let keyed = kind == Kind::Keyed;
    let mut list: Vec<(i64, String, i64)> = Vec::new();
    for _ in 0..random.below(30) {
        let k = random.below(400) as i64;
        if list.iter().any(|(other, ..)| *other == k) {
            continue;
        }
        let old = now.iter().find(|((key, _), _)| *key == k);
        if let Some(((_, v), n)) = old.filter(|_| keyed || kind == Kind::Bag && random.below(2) == 0) {
            list.push((k, v.clone(), -*n));
        }
        if random.below(3) > 0 {
            let n = if keyed { 1 } else { 1 + random.below(3) as i64 };
            list.push((k, format!("v{}", random.below(1000)), n));
        }
    }
    list
}

/// By two workers.
fn publish(store: &Store, epoch: u64, list: &[(i64, String, i64)]) -> [(u8, Delta); 2] {
    let (first, second) = list.split_at(list.len() / 3);
    let published = [(0, first), (128, second)].map(|(lane, list)| {
        let delta = delta(&list.iter().map(|(k, v, n)| (*k, v.as_str(), *n)).collect::<Vec<_>>());
        store.publish_from(lane, R, epoch, vec![delta.clone()]);
        (lane, delta)
    });
    store.set_visible(epoch, 0);
    published
}

#[test]
fn what_is_read_in_parts_is_exact_at_every_step() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let kind = [Kind::Keyed, Kind::Bag, Kind::Appended][seed as usize % 3];
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        store.relation_add(kind.spec());
        let first = (0..300).map(|k| (k, format!("v{k}"), if kind == Kind::Keyed { 1 } else { 1 + k % 3 })).collect::<Vec<_>>();
        publish(&store, 1, &first);
        let (mut unread, mut held) = (Unread::all(0..256), Rows::new());
        let mut epoch = 1;
        while !unread.is_empty() {
            if random.below(3) == 0 {
                store.commit(checkpoint(epoch, 0)).unwrap();
            }
            epoch += 1;
            let now = read(&store.read_view(), 1);
            for (lane, delta) in publish(&store, epoch, &change(&mut random, &now, kind)) {
                let (passed, _) = KeySplitter::new(kind.spec(), lane).unwrap().split(delta, &unread).unwrap();
                take(&mut held, &passed);
            }
            // One to three readers, each of its virtual nodes: as many as it likes at every step.
            let (view, readers) = (store.read_view(), 1 + random.below(3) as usize);
            let mut left = Unread::default();
            for reader in 0..readers {
                let mut mine = unread.within(&vnodes_of(reader, readers));
                for part in view.read_part(R, &mut mine, 1 + random.below(25) as usize).unwrap() {
                    take(&mut held, &part);
                }
                left.append(mine);
            }
            unread = left;
            let mut all = held.clone();
            for part in view.read_part(R, &mut unread.clone(), usize::MAX).unwrap() {
                take(&mut all, &part);
            }
            assert_eq!(all, read(&view, 1), "seed {seed}, epoch {epoch}: what was read and what was not are all there is");
        }
        assert!(epoch > 4, "it was read in parts");
        assert_eq!(held, read(&store.read_view(), 1));
    }
}
