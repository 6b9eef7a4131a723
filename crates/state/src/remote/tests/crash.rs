//! A process that ends between any two steps leaves a storage with a whole checkpoint, and a directory that is either
//! restored or not there.
//!
//! The test starts itself again as a child whose work ends at a failpoint, then looks at what the child has left.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::support::*;
use crate::remote::{Cancel, FAILPOINTS, RemoteStorage, Which};

const DIRECTORY: &str = "MILLPOND_REMOTE_CRASH_TEST_DIRECTORY";
const CHECKPOINTS: u64 = 6;

fn open(dir: &Path) -> RemoteStorage {
    let place = dir.join("storage");
    std::fs::create_dir_all(&place).unwrap();
    RemoteStorage::open(&format!("file://{}", place.display()), options(None)).unwrap()
}

fn acknowledge(dir: &Path, checkpoint: u64) {
    let mut file = std::fs::File::options().create(true).append(true).open(dir.join("acknowledged")).unwrap();
    writeln!(file, "{checkpoint}").unwrap();
}

fn acknowledged(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("acknowledged")).unwrap_or_default();
    text.lines().last().map_or(0, |line| line.parse().unwrap())
}

/// What the child does.
#[test]
#[ignore = "runs as a child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    for checkpoint in 1..=CHECKPOINTS {
        let storage = open(dir);
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        upload(&storage, &claim, checkpoint);
        acknowledge(dir, checkpoint);
        storage.gc(&claim, 2, &Cancel::default()).unwrap();
        storage.restore(Which::Latest, &dir.join(format!("restored{checkpoint}")), &Cancel::default()).unwrap();
    }
}

fn run_child(dir: &Path, failpoint: &str) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "remote::tests::crash::child"]).env(DIRECTORY, dir).env("MILLPOND_FAILPOINT", failpoint);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || text.contains("failpoint"), "{text}");
    output.status.success()
}

fn check(dir: &Path) {
    let storage = open(dir);
    let acknowledged = acknowledged(dir);
    match restore(&storage, Which::Latest) {
        Ok((restored, found)) => {
            let checkpoint = restored.epoch / 10;
            assert!(checkpoint == acknowledged || checkpoint == acknowledged + 1, "{checkpoint} of {acknowledged}");
            assert_eq!(found, database(checkpoint));
            assert!(restored.warnings.is_empty(), "{:?}", restored.warnings);
        }
        Err(error) => assert_eq!(acknowledged, 0, "{error}"),
    }
    assert!(storage.list().unwrap().iter().all(|c| c.damage.is_none()), "none is left that lacks something");
    // A restore that was interrupted is done, or is finished now.
    for checkpoint in 1..=acknowledged {
        let into = dir.join(format!("restored{checkpoint}"));
        if !into.exists() {
            storage.restore(Which::Epoch(checkpoint * 10), &into, &Cancel::default()).unwrap();
        }
        assert_eq!(tree(&into), database(checkpoint));
        assert!(!dir.join(format!("restored{checkpoint}.restoring")).exists());
    }
    // The next server goes on, and nothing superfluous stays.
    let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
    upload(&storage, &claim, CHECKPOINTS + 1);
    storage.gc(&claim, 1, &Cancel::default()).unwrap();
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(CHECKPOINTS + 1));
    let left = tree(&dir.join("storage")).into_keys().collect::<Vec<_>>();
    let objects = left.iter().filter(|n| n.starts_with("objects/")).count();
    assert_eq!((left.len(), objects), (database(CHECKPOINTS + 1).len() + 2, database(CHECKPOINTS + 1).len()), "{left:?}");
}

#[test]
fn a_crash_at_any_step_leaves_a_whole_checkpoint() {
    for name in FAILPOINTS {
        for count in [1, 2, 5] {
            let dir = tempfile::tempdir().unwrap();
            assert!(!run_child(dir.path(), &format!("{name}:{count}")), "{name} is reached {count} times");
            check(dir.path());
        }
    }
}
