//! The power fails: what was not synced is gone, entries of directories too. `disk.c` keeps a copy of each file as its last
//! sync found it, and notes how directories change. From that the data directory is made anew as a disk may have it: of each
//! directory what its last sync found, and of what came later nothing, everything, or what came before some moment; of each
//! file its last sync, and perhaps some bytes more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::disk;
use super::victim::Victim;
use crate::finding::{Finding, Tally};

/// Names in a directory: inodes, and whether they are directories.
type Entries = BTreeMap<String, (u64, bool)>;

/// A data directory whose contents are on disk when it begins.
struct Disk {
    root: PathBuf,
    keep: PathBuf,
    note: PathBuf,
    directories: BTreeMap<u64, Entries>,
    /// Files that were there.
    files: BTreeSet<u64>,
    /// So that their inodes are not used again.
    _open: Vec<File>,
}

/// How much was not on disk.
#[derive(Default)]
struct Dropped {
    entries: usize,
    bytes: u64,
}

impl Disk {
    fn begin(dir: &Path) -> Disk {
        let (root, keep, note) = (dir.join("db"), dir.join("keep"), dir.join("note"));
        let _ = (fs::remove_dir_all(&keep), fs::remove_file(&note));
        fs::create_dir(&keep).unwrap();
        let mut disk = Disk { root, keep, note, directories: BTreeMap::new(), files: BTreeSet::new(), _open: vec![] };
        disk.take_in(&disk.root.clone());
        disk
    }

    fn take_in(&mut self, dir: &Path) {
        self._open.push(File::open(dir).unwrap());
        let mut entries = Entries::new();
        for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
            let (inode, is_dir) = (entry.metadata().unwrap().ino(), entry.file_type().unwrap().is_dir());
            entries.insert(entry.file_name().to_string_lossy().into_owned(), (inode, is_dir));
            if is_dir {
                self.take_in(&entry.path());
            } else if self.files.insert(inode) {
                fs::hard_link(entry.path(), self.keep.join(format!("live-{inode}"))).unwrap();
            }
        }
        self.directories.insert(fs::metadata(dir).unwrap().ino(), entries);
    }

    /// Puts what a disk may have in the place of the data directory. No process may use it.
    fn lose_power(mut self, random: &mut StdRng) -> Dropped {
        let note = fs::read_to_string(&self.note).unwrap_or_default();
        let lines = note.lines().map(|l| l.split_once(' ').unwrap()).map(|(op, rest)| (op, rest.split_once(' ').unwrap_or((rest, ""))));
        let lines = lines.map(|(op, (dir, rest))| (op, dir.parse::<u64>().unwrap(), rest)).collect::<Vec<_>>();
        let mut synced = BTreeMap::new();
        for (at, (_, dir, _)) in lines.iter().enumerate().filter(|(_, (op, ..))| *op == "=") {
            synced.insert(*dir, at);
        }
        let moment = [0, lines.len(), random.random_range(0..=lines.len())][random.random_range(0..3)];
        let mut dropped = Dropped::default();
        for (at, (op, dir, rest)) in lines.iter().enumerate().filter(|(_, (op, ..))| *op != "=") {
            if at > moment && synced.get(dir).is_none_or(|synced| at > *synced) {
                dropped.entries += 1;
                continue;
            }
            let entries = self.directories.entry(*dir).or_default();
            if *op == "-" {
                entries.remove(*rest);
                continue;
            }
            let mut parts = rest.splitn(3, ' ');
            let (inode, kind, name) = (parts.next().unwrap().parse().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let name = match name.split_once('/') {
                Some((old, new)) => {
                    entries.remove(old);
                    new
                }
                None => name,
            };
            entries.insert(name.to_string(), (inode, kind == "d"));
        }
        let (inode, made) = (fs::metadata(&self.root).unwrap().ino(), self.root.with_extension("made"));
        self.build(inode, &made, random, &mut BTreeMap::new(), &mut dropped);
        fs::remove_dir_all(&self.root).unwrap();
        fs::rename(&made, &self.root).unwrap();
        dropped
    }

    fn build(&self, inode: u64, to: &Path, random: &mut StdRng, made: &mut BTreeMap<u64, PathBuf>, dropped: &mut Dropped) {
        fs::create_dir(to).unwrap();
        for (name, (inode, is_dir)) in self.directories.get(&inode).into_iter().flatten() {
            let path = to.join(name);
            if *is_dir {
                self.build(*inode, &path, random, made, dropped);
            } else if let Some(first) = made.get(inode) {
                fs::hard_link(first, &path).unwrap();
            } else {
                fs::write(&path, self.contents(*inode, random, dropped)).unwrap();
                made.insert(*inode, path);
            }
        }
    }

    fn contents(&self, inode: u64, random: &mut StdRng, dropped: &mut Dropped) -> Vec<u8> {
        let read = |what: &str| fs::read(self.keep.join(format!("{what}-{inode}"))).ok();
        let live = read("live").unwrap_or_default();
        let mut synced = read("synced").unwrap_or_else(|| if self.files.contains(&inode) { live.clone() } else { vec![] });
        if random.random_bool(0.5) && live.len() > synced.len() && live.starts_with(&synced) {
            let end = random.random_range(synced.len()..=live.len());
            synced = live[..end].to_vec();
        }
        dropped.bytes += live.len().saturating_sub(synced.len()) as u64;
        synced
    }
}

async fn lose(dir: &Path, victim: &mut Victim, dropped: &mut Dropped) -> Result<(), Finding> {
    let library = disk::library().map_err(Finding::Misbehaved)?;
    victim.server.kill();
    let disk = Disk::begin(dir);
    let mut environment = disk::environment(library, &disk.root, &disk.note);
    environment.push(("MILLPOND_DISK_KEEP", disk.keep.to_str().expect("temporary paths are text")));
    victim.restart(&environment).await?;
    victim.verify().await?;
    let life = Duration::from_millis(victim.statements.random.random_range(5..700));
    tokio::select! { _ = victim.work(usize::MAX, None) => {}, () = tokio::time::sleep(life) => {} }
    victim.server.kill();
    let lost = disk.lose_power(&mut victim.statements.random);
    (dropped.entries, dropped.bytes) = (dropped.entries + lost.entries, dropped.bytes + lost.bytes);
    victim.restart(&[]).await?;
    victim.verify().await
}

/// So many losses of power. Prints what came of them and returns what was found.
pub async fn table(losses: u64, seed: u64, plant: Option<&str>) -> Tally {
    const LOSSES_PER_DIRECTORY: u64 = 10;
    let mut found = Tally::default();
    println!(
        "{:>6} {:>7} {:>9} {:>12} {:>16} {:>14} {:>12} {:>6} {:>6}",
        "seed", "losses", "answered", "comparisons", "entries dropped", "bytes dropped", "divergences", "lost", "other"
    );
    let (mut left, mut seed) = (losses, seed);
    while left > 0 {
        let (dir, mut tally, mut dropped, mut done) = (tempfile::tempdir().unwrap(), Tally::default(), Dropped::default(), 0);
        fs::create_dir(dir.path().join("db")).unwrap();
        let mut victim = Victim::start(dir.path(), seed, &["--parallelism", if seed.is_multiple_of(2) { "1" } else { "2" }]).await;
        victim.plant = plant.map(str::to_string);
        while done < left.min(LOSSES_PER_DIRECTORY) && tally.total() == 0 {
            done += 1;
            if let Err(finding) = lose(dir.path(), &mut victim, &mut dropped).await {
                tally.add(&finding.context(&format!("seed {seed}, loss {done}")));
            }
        }
        println!(
            "{seed:>6} {done:>7} {:>9} {:>12} {:>16} {:>14} {:>12} {:>6} {:>6}",
            victim.answered, victim.comparisons, dropped.entries, dropped.bytes, tally.diverged, tally.lost, tally.misbehaved
        );
        found.merge(tally);
        (left, seed) = (left - done, seed + 1);
    }
    found
}
