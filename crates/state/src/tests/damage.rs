//! Damaged files: every flipped bit and torn write is told, with the file's name, or does not matter. Never a wrong
//! answer, never a panic.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::sample::*;
use super::support::*;

/// All files but those that hold nothing: the lock, RocksDB's messages and its note of options.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if !["LOCK", "LOG", "OPTIONS"].iter().any(|idle| name.starts_with(idle)) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Whether an error says where the damage is. RocksDB does not always name the very file when it opens; and of damage to its
/// list of files, or of a lost log, only what is missing then may be noticed.
fn names(error: &str, file: &Path) -> bool {
    let listing = ["CURRENT", "MANIFEST"].iter().any(|f| file.file_name().unwrap().to_str().unwrap().starts_with(f)) || !file.exists();
    let vague = listing || error.contains("may be corrupted");
    error.contains(file.to_str().unwrap()) || (vague && error.contains(file.parent().unwrap().to_str().unwrap()))
}

/// Examines a directory with one file changed, and says what came of it. `may_be_older`: an earlier checkpoint will do.
fn examine_changed(dir: &Path, file: &Path, may_be_older: bool) -> &'static str {
    let (whole, shown) = (whole(), file.display());
    let result = catch_unwind(AssertUnwindSafe(|| examine(dir))).unwrap_or_else(|_| panic!("{shown} makes a wrong answer"));
    match result {
        Err(error) => {
            assert!(names(&text(&error), file), "{shown} is not named: {error}");
            "error"
        }
        Ok(found) if found == whole => "no matter",
        Ok(found) if found.savepoints != whole.savepoints => {
            let bad = found.savepoints.iter().filter(|(_, s)| s.is_err()).collect::<Vec<_>>();
            assert!(!bad.is_empty() && found.savepoints.len() == whole.savepoints.len(), "{shown}: {found:?}");
            for (savepoint, error) in bad {
                let error = error.as_ref().unwrap_err();
                assert!(file.to_str().unwrap().contains(&format!("/savepoints/{savepoint}/")), "{shown} damages {savepoint}");
                assert!(names(error, file), "{shown} is not named: {error}");
            }
            "savepoint"
        }
        Ok(found) if may_be_older && found.epoch < EPOCHS => "older",
        Ok(found) => {
            assert!(shown.to_string().ends_with(".log"), "{shown} is lost: {found:?}");
            assert!(found.logged < LOGGED && found.torn, "entries are lost and nobody was told: {found:?}");
            "torn tail"
        }
    }
}

/// Calls `change` for each of some ways to damage a file, on a fresh copy each; counts what comes of it.
fn damage(dir: &Path, file: &Path, changed: impl Iterator<Item = Vec<u8>>, may_be_older: bool, counts: &mut BTreeMap<String, usize>) {
    let relative = file.strip_prefix(dir).unwrap();
    for bytes in changed {
        let copied = dir.with_extension("copy");
        if copied.exists() {
            std::fs::remove_dir_all(&copied).unwrap();
        }
        copy(dir, &copied);
        std::fs::write(copied.join(relative), bytes).unwrap();
        let outcome = examine_changed(&copied, &copied.join(relative), may_be_older);
        let kind = relative.extension().or(relative.file_name()).unwrap().to_str().unwrap();
        *counts.entry(format!("{}: {outcome}", kind.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()))).or_default() += 1;
    }
}

#[test]
fn flipped_bits_are_told_or_do_not_matter() {
    let flips = std::env::var("MILLPOND_FLIPS").map_or(300, |n| n.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    make(&dir);
    assert_eq!(examine_copy(&dir), whole());
    let (files, mut random, mut counts) = (files(&dir), Random(flips), BTreeMap::new());
    for _ in 0..flips {
        let file = &files[random.below(files.len() as u64) as usize];
        let mut bytes = std::fs::read(file).unwrap();
        if !bytes.is_empty() {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            damage(&dir, file, std::iter::once(bytes), false, &mut counts);
        }
    }
    println!("{counts:#?}");
}

fn examine_copy(dir: &Path) -> Found {
    let copied = dir.with_extension("first");
    copy(dir, &copied);
    examine(&copied).unwrap()
}

/// Our own files are small, so they are torn more often than RocksDB's list of files and the log, at every 512 bytes.
#[test]
fn torn_writes_are_told_or_do_not_matter() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    make(&dir);
    let mut counts = BTreeMap::new();
    for file in files(&dir) {
        let whole = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let ours = ["FORMAT", "SAVEPOINT"].contains(&name);
        let step = if ours { 31 } else { 512 };
        let torn_at = |at: usize| {
            let cut = whole[..at].to_vec();
            let zeros = [&cut[..], &vec![0; whole.len() - at]].concat();
            let other = [&cut[..], &vec![0xa5; whole.len() - at]].concat();
            [cut, zeros, other]
        };
        if ours || name.starts_with("MANIFEST") || name.starts_with("CURRENT") || name.ends_with(".log") {
            damage(&dir, &file, (0..whole.len()).step_by(step).flat_map(torn_at), true, &mut counts);
        }
    }
    println!("{counts:#?}");
}

/// The order to restore: torn or flipped anywhere, it is refused, and the file is named.
#[test]
fn a_damaged_order_to_restore_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    make(&dir);
    crate::restore_at_next_open(&dir, "two").unwrap();
    let order = dir.join("RESTORE");
    let whole = std::fs::read(&order).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for bad in [whole[..at].to_vec(), flipped] {
            std::fs::write(&order, bad).unwrap();
            let error = try_open(&dir).err().unwrap();
            assert!(text(&error).contains("RESTORE"), "{error}");
            assert!(error.hint().is_some());
        }
    }
    std::fs::write(&order, whole).unwrap();
    assert_eq!(examine(&dir).unwrap().epoch, 2);
}

/// Nothing is made anew in place of what is lost.
#[test]
fn missing_files_are_told() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    make(&dir);
    let mut lost = files(&dir.join("db"));
    lost.retain(|f| f.file_name().unwrap() != "IDENTITY");
    for file in lost.into_iter().chain([dir.join("db")]) {
        let copied = temporary.path().join("copy");
        copy(&dir, &copied);
        let file = copied.join(file.strip_prefix(&dir).unwrap());
        if file.is_dir() {
            std::fs::remove_dir_all(&file).unwrap()
        } else {
            std::fs::remove_file(&file).unwrap()
        }
        let error = examine(&copied).err().unwrap_or_else(|| panic!("{} is missing, and nobody notices", file.display()));
        assert!(names(&text(&error), &file), "{} is not named: {error}", file.display());
        std::fs::remove_dir_all(&copied).unwrap();
    }
    restore_what_is_left(&dir);
}

/// Savepoints outlive the database.
fn restore_what_is_left(dir: &Path) {
    std::fs::remove_dir_all(dir.join("db")).unwrap();
    crate::restore_at_next_open(dir, "two").unwrap();
    assert_eq!(examine(dir).unwrap().epoch, 2);
}

/// The tests above find a record that is accepted without its checksum.
#[test]
fn a_planted_bug_is_found() {
    for test in ["flipped_bits_are_told_or_do_not_matter", "torn_writes_are_told_or_do_not_matter"] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("tests::damage::{test}")]).env("MILLPOND_PLANT", "checksum-ignored");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && text.contains(&format!("{test} ... FAILED")), "{text}");
    }
}
