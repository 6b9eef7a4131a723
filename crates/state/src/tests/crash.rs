//! A process that ends at any step of writing loses nothing that it has acknowledged, and doubles nothing.
//!
//! The test starts itself again as a child whose work ends at a failpoint, then reads what the child left.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use millpond_common::{RelationId, StateTableId};

use super::support::*;
use crate::failpoint::FAILPOINTS;
use crate::{FrozenTable, ReadView, SavepointKind, Store, fork};

const KEYED: u32 = 1;
const BAG: u32 = 2;
const STATE: StateTableId = StateTableId(3);
/// Relations that come and go have numbers from here.
const PASSING: u32 = 100;
const EPOCHS: u64 = 12;
/// Of the child that restores.
const ROUNDS: u64 = 6;

const DIRECTORY: &str = "MILLPOND_CRASH_TEST_DIRECTORY";

/// Says that something is durable, where the parent will find it.
fn acknowledge(dir: &Path, what: &str, number: u64) {
    let mut file = std::fs::File::options().create(true).append(true).open(dir.join("acknowledged")).unwrap();
    file.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
}

fn register(store: &Store) {
    store.relation_add(spec(KEYED, true));
    store.relation_add(spec(BAG, false));
}

/// After epoch e, the bag has one row e times, the keyed relation's two keys have the value e, state says e.
fn work(store: &Store, epoch: u64) {
    let (old, new) = (format!("v{}", epoch - 1), format!("v{epoch}"));
    let mut changes = vec![(1, new.as_str(), 1), (2, new.as_str(), 1)];
    if epoch > 1 {
        changes.extend([(1, old.as_str(), -1), (2, old.as_str(), -1)]);
    }
    store.publish(RelationId(KEYED), epoch, vec![delta(&changes)]);
    store.publish(RelationId(BAG), epoch, vec![delta(&[(7, "x", 1)])]);
    store.set_visible(epoch, 0);
}

fn commit(store: &Store, epoch: u64, log_seq: u64) {
    let mut checkpoint = checkpoint(epoch, log_seq);
    let entries = [(b"\x05key".to_vec(), Some(epoch.to_le_bytes().to_vec())), (epoch.to_le_bytes()[..1].to_vec(), Some(vec![]))];
    checkpoint.frozen.push(FrozenTable { table: STATE, entries: entries.into_iter().collect() });
    store.commit(checkpoint).unwrap();
}

/// What the child does, unless a savepoint is to be restored.
#[test]
#[ignore = "runs as a child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let (store, _) = open(&dir.join("data"));
    register(&store);
    for epoch in 1..=EPOCHS {
        let seq = store.log_append(&[vec![epoch as u8], vec![epoch as u8, 2]]).unwrap()[1];
        acknowledge(dir, "log", seq);
        store.catalog_write(&[(vec![epoch as u8], vec![1])], &[]).unwrap();
        acknowledge(dir, "catalog", epoch);
        let passing = RelationId(PASSING + epoch as u32);
        store.relation_add(spec(passing.0, false));
        store.publish(passing, epoch, vec![delta(&[(1, "gone soon", 1)])]);
        work(&store, epoch);
        if epoch % 2 == 0 {
            commit(&store, epoch, seq - 1);
            acknowledge(dir, "commit", epoch);
        }
        if epoch > 2 {
            store.relation_remove(RelationId(passing.0 - 2)).unwrap();
            acknowledge(dir, "drop", u64::from(passing.0 - 2));
            store.savepoint_release(&format!("s{}", epoch - 2)).unwrap();
            acknowledge(dir, "release", epoch - 2);
        }
        store.savepoint_create(&format!("s{epoch}"), SavepointKind::Manual, "").unwrap();
        acknowledge(dir, "savepoint", epoch);
    }
}

/// The last number acknowledged for each kind.
fn acknowledged(dir: &Path, what: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(dir.join("acknowledged")).unwrap_or_default();
    text.lines().filter_map(|l| l.split_once(' ')).filter(|(kind, _)| *kind == what).map(|(_, n)| n.parse().unwrap()).collect()
}

fn check_view(view: &ReadView, epoch: u64) {
    let value = format!("v{epoch}");
    let (keyed, bag) =
        if epoch == 0 { (rows(&[]), rows(&[])) } else { (rows(&[(1, &value, 1), (2, &value, 1)]), rows(&[(7, "x", epoch as i64)])) };
    assert_eq!(read(view, KEYED), keyed);
    assert_eq!(read(view, BAG), bag);
    assert_eq!(view.row_estimate(RelationId(BAG)), epoch);
}

fn check_rows(store: &Arc<Store>, epoch: u64) {
    check_view(&store.durable_view(), epoch);
    let values = state_entries(store, STATE.0, 0..256).unwrap().into_iter().map(|(_, value)| value).filter(|v| !v.is_empty());
    let state = values.map(|v| u64::from_le_bytes(v.try_into().unwrap())).collect::<Vec<_>>();
    assert_eq!(state, if epoch == 0 { vec![] } else { vec![epoch] });
}

/// Every savepoint is whole; those that were answered are there, those whose release was answered are not.
fn check_savepoints(dir: &Path, store: &Store) {
    let (made, released) = (acknowledged(dir, "savepoint"), acknowledged(dir, "release"));
    let list = store.savepoint_list().unwrap();
    for (name, known) in &list {
        let reader = store.savepoint_open(name).unwrap();
        let epoch = name[1..].parse::<u64>().unwrap() / 2 * 2;
        assert_eq!((known.as_ref().unwrap().epoch, reader.recovered().epoch), (epoch, epoch));
        check_view(&reader.view([spec(KEYED, true), spec(BAG, false)]).unwrap(), epoch);
    }
    let there = list.iter().map(|(name, _)| name[1..].parse().unwrap()).collect::<BTreeSet<u64>>();
    assert!(released.iter().all(|s| !there.contains(s)), "{there:?}");
    // The release after the last answered one may have begun.
    let begun = released.last().copied().unwrap_or(0) + 1;
    assert!(made.iter().filter(|s| **s > begun).all(|s| there.contains(s)), "{there:?}");
    let left = std::fs::read_dir(dir.join("data/savepoints")).map_or(0, |entries| entries.count());
    assert_eq!(left, there.len(), "nothing unfinished is left");
}

/// Another child: goes on from epoch 2 to 4 and back, time and again, and makes a fork each time.
#[test]
#[ignore = "runs as a child of the test below"]
fn restoring_child() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let (dir, data) = (Path::new(&dir), Path::new(&dir).join("data"));
    let (mut store, _) = open(&data);
    for round in 0..ROUNDS {
        register(&store);
        for epoch in if round == 0 { 1..=4 } else { 3..=4 } {
            work(&store, epoch);
            if epoch % 2 == 0 {
                commit(&store, epoch, 0);
            }
            if round == 0 && epoch == 2 {
                store.savepoint_create("two", SavepointKind::Manual, "").unwrap();
            }
        }
        acknowledge(dir, "four", round);
        fork(&data, "two", &dir.join(format!("fork{round}"))).unwrap();
        acknowledge(dir, "fork", round);
        store.savepoint_restore("two").unwrap();
        acknowledge(dir, "ordered", round);
        drop(store);
        store = open(&data).0;
        acknowledge(dir, "restored", round);
    }
}

fn check_restored(dir: &Path) {
    let text = std::fs::read_to_string(dir.join("acknowledged")).unwrap();
    let (last, round) = text.lines().last().unwrap().split_once(' ').unwrap();
    for _ in 0..2 {
        let (store, recovered) = open(&dir.join("data"));
        register(&store);
        check_rows(&store, recovered.epoch);
        match last {
            "four" => assert_eq!(recovered.epoch, 4),
            "fork" => assert!([2, 4].contains(&recovered.epoch)),
            _ => assert_eq!(recovered.epoch, 2),
        }
        check_view(&store.savepoint_open("two").unwrap().view([spec(KEYED, true), spec(BAG, false)]).unwrap(), 2);
        let left = std::fs::read_dir(dir.join("data")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.filter(|f| f.starts_with("db.") || f.starts_with("RESTORE")).count(), 0);
    }
    let forked = dir.join(format!("fork{round}"));
    if !forked.exists() {
        assert_ne!(last, "fork");
        fork(&dir.join("data"), "two", &forked).unwrap();
    }
    let (store, _) = open(&forked);
    register(&store);
    check_rows(&store, 2);
}

fn check(dir: &Path) {
    let (store, recovered) = open(&dir.join("data"));
    register(&store);
    check_savepoints(dir, &store);
    let committed = acknowledged(dir, "commit").last().copied().unwrap_or(0);
    let epoch = recovered.epoch;
    assert!(epoch == committed || epoch == committed + 2, "checkpoint {epoch}, acknowledged {committed}");
    assert_eq!(recovered.meta, if epoch == 0 { vec![] } else { epoch.to_be_bytes().to_vec() });
    check_rows(&store, epoch);

    let contained = if epoch == 0 { 0 } else { 2 * epoch - 1 };
    let tail = recovered.log_tail.iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
    let last = tail.last().copied().unwrap_or(contained);
    assert_eq!(tail, (contained + 1..=last).collect::<Vec<_>>());
    assert!(last >= acknowledged(dir, "log").last().copied().unwrap_or(0));
    assert_eq!(last % 2, 0, "the entries of one call come together");

    let catalog = recovered.catalog.iter().map(|(key, _)| u64::from(key[0])).collect::<BTreeSet<_>>();
    assert!(acknowledged(dir, "catalog").iter().all(|n| catalog.contains(n)));

    // It goes on from there, and what was dropped leaves.
    let next = epoch + 1;
    work(&store, next);
    commit(&store, next, last);
    check_rows(&store, next);
    drop(store);
    let (store, recovered) = open(&dir.join("data"));
    register(&store);
    assert!(recovered.log_tail.is_empty());
    check_rows(&store, next);
    for dropped in acknowledged(dir, "drop") {
        store.relation_add(spec(dropped as u32, false));
        assert_eq!(read(&store.read_view(), dropped as u32), rows(&[]));
    }
    assert_eq!(std::fs::read_dir(dir.join("data/staging")).unwrap().count(), 0);
}

/// For faults that this test cannot make itself: run the child under a tool that makes writes fail, then this.
#[test]
#[ignore = "examines what a child run by hand has left"]
fn examine() {
    if let Ok(dir) = std::env::var(DIRECTORY) {
        check(Path::new(&dir));
    }
}

/// Runs a child in `dir`; whether it came to its end.
fn run_child(child: &str, dir: &Path, failpoint: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", &format!("tests::crash::{child}")]).env(DIRECTORY, dir);
    if let Some(failpoint) = failpoint {
        command.env("MILLPOND_FAILPOINT", failpoint);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || text.contains("failpoint"), "{text}");
    output.status.success()
}

#[test]
fn a_crash_at_any_step_loses_and_doubles_nothing() {
    for name in FAILPOINTS {
        for count in [1, 2, 5] {
            let dir = tempfile::tempdir().unwrap();
            let restoring = name.starts_with("restore-") || name.starts_with("fork-");
            let child = if restoring { "restoring_child" } else { "child" };
            let completed = run_child(child, dir.path(), Some(&format!("{name}:{count}")));
            assert!(!completed, "{name} is reached {count} times");
            if restoring { check_restored(dir.path()) } else { check(dir.path()) }
        }
    }
}

#[test]
fn a_child_without_a_crash_leaves_everything() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run_child("child", dir.path(), None));
    assert_eq!(acknowledged(dir.path(), "commit").last(), Some(&EPOCHS));
    check(dir.path());
    let dir = tempfile::tempdir().unwrap();
    assert!(run_child("restoring_child", dir.path(), None));
    check_restored(dir.path());
}
