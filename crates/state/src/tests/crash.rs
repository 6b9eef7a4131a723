//! A process that ends at any step of writing loses nothing that it has acknowledged, and doubles nothing.
//!
//! The test starts itself again as a child whose work ends at a failpoint, then reads what the child left.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use millpond_common::{RelationId, StateTableId};

use super::support::*;
use crate::failpoint::FAILPOINTS;
use crate::{FrozenTable, Store};

const KEYED: u32 = 1;
const BAG: u32 = 2;
const STATE: StateTableId = StateTableId(3);
/// Relations that come and go have numbers from here.
const PASSING: u32 = 100;
const EPOCHS: u64 = 12;

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
    let entries = vec![(b"\x05key".to_vec(), Some(epoch.to_le_bytes().to_vec())), (epoch.to_le_bytes()[..1].to_vec(), Some(vec![]))];
    checkpoint.frozen.push(FrozenTable { table: STATE, entries });
    store.commit(checkpoint).unwrap();
}

/// What the child does.
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
        }
    }
}

/// The last number acknowledged for each kind.
fn acknowledged(dir: &Path, what: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(dir.join("acknowledged")).unwrap_or_default();
    text.lines().filter_map(|l| l.split_once(' ')).filter(|(kind, _)| *kind == what).map(|(_, n)| n.parse().unwrap()).collect()
}

fn check_rows(store: &Store, epoch: u64) {
    let view = store.durable_view();
    let value = format!("v{epoch}");
    let (keyed, bag) =
        if epoch == 0 { (rows(&[]), rows(&[])) } else { (rows(&[(1, &value, 1), (2, &value, 1)]), rows(&[(7, "x", epoch as i64)])) };
    assert_eq!(read(&view, KEYED), keyed);
    assert_eq!(read(&view, BAG), bag);
    assert_eq!(view.row_estimate(RelationId(BAG)), epoch);
    let mut state = Vec::new();
    let mut take = |_: &[u8], value: &[u8]| {
        state.extend((!value.is_empty()).then(|| u64::from_le_bytes(value.try_into().unwrap())));
        Ok(())
    };
    store.state_load(STATE, 0..256, &mut take).unwrap();
    assert_eq!(state, if epoch == 0 { vec![] } else { vec![epoch] });
}

fn check(dir: &Path) {
    let (store, recovered) = open(&dir.join("data"));
    register(&store);
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

/// Runs the child in `dir`; whether it came to its end.
fn run_child(dir: &Path, failpoint: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "tests::crash::child"]).env(DIRECTORY, dir);
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
            let completed = run_child(dir.path(), Some(&format!("{name}:{count}")));
            assert!(!completed, "{name} is reached {count} times");
            check(dir.path());
        }
    }
}

#[test]
fn a_child_without_a_crash_leaves_everything() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run_child(dir.path(), None));
    assert_eq!(acknowledged(dir.path(), "commit").last(), Some(&EPOCHS));
    check(dir.path());
}
