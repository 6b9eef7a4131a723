//! Random publishes, epochs, commits, restarts and readers, against a map per relation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millpond_common::{Delta, RelationId};

use super::support::*;
use crate::{ReadView, Store};

const KEYED: u32 = 1;
const BAG: u32 = 2;
const LOG: u32 = 3;
const RELATIONS: [u32; 3] = [KEYED, BAG, LOG];

/// All relations at one epoch.
type Cut = BTreeMap<u32, Rows>;

struct Model {
    random: Random,
    store: Arc<Store>,
    /// The rows after each epoch since the last checkpoint, that one's included.
    cuts: BTreeMap<u64, Cut>,
    published: u64,
    visible: u64,
    committed: u64,
    /// Views with what they must show for ever.
    held: Vec<(ReadView, Cut)>,
}

fn start(dir: &Path) -> Arc<Store> {
    let (store, _) = open(dir);
    store.relation_add(spec(KEYED, true));
    store.relation_add(spec(BAG, false));
    store.relation_add(appended(LOG));
    store
}

impl Model {
    fn publish(&mut self) {
        let mut cut = self.cuts[&self.published].clone();
        self.published += 1;
        for relation in RELATIONS {
            let rows = cut.entry(relation).or_default();
            let before = rows.clone();
            for _ in 0..self.random.below(30) {
                let (k, v) = (self.random.below(60) as i64, format!("v{}", self.random.below(9)));
                match relation {
                    KEYED => {
                        rows.retain(|(key, _), _| *key != k);
                        if self.random.below(3) > 0 {
                            rows.insert((k, v), 1);
                        }
                    }
                    BAG if self.random.below(2) == 0 => drop(rows.remove(&(k, v))),
                    _ => *rows.entry((k, v)).or_default() += 1 + self.random.below(2) as i64,
                }
            }
            let mut changes = Vec::new();
            for row in before.keys().chain(rows.keys().filter(|r| !before.contains_key(*r))) {
                let weight = rows.get(row).unwrap_or(&0) - before.get(row).unwrap_or(&0);
                if weight != 0 {
                    changes.push((row.0, row.1.as_str(), weight));
                }
            }
            // Any order, any distribution over workers and chunks.
            let mut chunks: [Vec<_>; 3] = Default::default();
            for change in changes {
                let chunk = &mut chunks[self.random.below(3) as usize];
                let at = self.random.below(chunk.len() as u64 + 1) as usize;
                chunk.insert(at, change);
            }
            let id = RelationId(relation);
            let lanes = [0, if self.random.below(2) == 0 { 0 } else { 128 }];
            self.store.publish_from(lanes[0], id, self.published, vec![delta(&chunks[0]), delta(&chunks[1])]);
            self.store.publish_from(lanes[1], id, self.published, vec![delta(&chunks[2])]);
        }
        self.cuts.insert(self.published, cut);
    }

    fn check(&self, view: &ReadView, cut: &Cut) {
        for relation in RELATIONS {
            let expected = cut.get(&relation).cloned().unwrap_or_default();
            assert_eq!(read(view, relation), expected, "relation {relation} in {view:?}");
            let total: i64 = expected.values().sum();
            assert_eq!(view.row_estimate(RelationId(relation)), total as u64);
            assert_eq!(count(view, relation), total);
            if relation == KEYED {
                // More than are looked up together.
                assert_eq!(lookup(view, relation, &(-100..70).collect::<Vec<_>>()), expected);
            } else if relation == BAG {
                let keys = expected.keys().map(|(k, v)| (*k, v.as_str())).chain([(-1, "none")]).collect::<Vec<_>>();
                assert_eq!(lookup_rows(view, relation, &keys), expected);
            }
        }
    }

    fn check_all(&mut self) {
        assert_eq!(self.store.visible_epoch(), self.visible);
        let view = self.store.read_view();
        assert_eq!(view.epoch(), self.visible);
        self.check(&view, &self.cuts[&self.visible]);
        self.check(&self.store.durable_view(), &self.cuts[&self.committed]);
        for (view, cut) in &self.held {
            self.check(view, cut);
        }
        if self.random.below(4) == 0 {
            self.held.push((view, self.cuts[&self.visible].clone()));
        }
        if self.held.len() > 3 {
            let gone = self.random.below(self.held.len() as u64) as usize;
            self.held.swap_remove(gone);
        }
    }

    fn commit(&mut self) {
        let epoch = self.committed + self.random.below(self.visible - self.committed + 1);
        self.store.commit(checkpoint(epoch, 0)).unwrap();
        self.committed = epoch;
        self.cuts.retain(|e, _| *e >= epoch);
    }

    fn restart(&mut self, dir: &Path) {
        self.held.clear();
        self.store.close();
        self.store = start(dir);
        self.cuts.retain(|e, _| *e == self.committed);
        self.published = self.committed;
        self.visible = self.committed;
    }
}

fn run(seed: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path());
    let cuts = BTreeMap::from([(0, Cut::new())]);
    let mut model = Model { random: Random(seed), store, cuts, published: 0, visible: 0, committed: 0, held: vec![] };
    // Seldom-read stretches let runs pile up, often-read ones exercise the layers.
    let mut reads = 2;
    for step in 0..steps {
        match model.random.below(20) {
            0..9 => model.publish(),
            9..14 => {
                model.visible += model.random.below(model.published - model.visible + 1);
                model.store.set_visible(model.visible, 0);
            }
            14..16 => model.commit(),
            16 if step % 7 == 0 => model.restart(dir.path()),
            17 => reads = 1 + model.random.below(12),
            _ => {}
        }
        if model.random.below(reads) == 0 {
            model.check_all();
        }
    }
    model.check_all();
}

#[test]
fn any_history_reads_as_the_model_does() {
    for seed in 0..4 {
        run(seed, 300);
    }
}

/// A reader that comes during commits sees the same rows as before and after.
#[test]
fn commits_do_not_disturb_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path());
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers = (0..2).map(|_| {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut views = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let view = store.read_view();
                let epoch = view.epoch() as i64;
                // Epoch e adds the row e to the bag and sets the value of each of 10 keys to e.
                assert_eq!(count(&view, BAG), epoch);
                let expected = (0..10).filter(|_| epoch > 0).map(|k| ((k, format!("v{epoch}")), 1)).collect::<Rows>();
                assert_eq!(read(&view, KEYED), expected, "{view:?}");
                assert_eq!(lookup(&view, KEYED, &[3]).len(), usize::from(epoch > 0));
                views += 1;
            }
            views
        })
    });
    let readers = readers.collect::<Vec<_>>();
    let committer = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.commit(checkpoint(store.visible_epoch(), 0)).unwrap();
            }
        })
    };
    for epoch in 1..=400u64 {
        let (old, new) = (format!("v{}", epoch - 1), format!("v{epoch}"));
        let mut changes = (0..10).map(|k| (k, new.as_str(), 1)).collect::<Vec<_>>();
        changes.extend((0..10).filter(|_| epoch > 1).map(|k| (k, old.as_str(), -1)));
        store.publish(RelationId(KEYED), epoch, vec![delta(&changes)]);
        store.publish(RelationId(BAG), epoch, vec![Delta::insert(delta(&[(epoch as i64, "x", 1)]).batch)]);
        store.set_visible(epoch, 0);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    committer.join().unwrap();
    for reader in readers {
        assert!(reader.join().unwrap() > 10);
    }
}
