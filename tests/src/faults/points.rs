//! The server ends at each named step (`failpoint("…")` in the source), while statements of every kind run.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use tempfile::TempDir;

use super::victim::{Ended, Victim};
use crate::finding::{Finding, Tally};
use crate::server::{becomes, binary, repository, run, value};
use crate::workload::statements::{Kind, World};

/// Statements after which a step must have been reached.
const STEPS_MAX: usize = 600;

/// Longest wait for an upload to come to a step.
const UPLOAD_MAX: Duration = Duration::from_secs(20);

/// Steps with these names belong to these statements; others are reached by writing.
const WANTED: [(&str, Kind); 15] = [
    ("create-table-as", Kind::CreateTableAs),
    ("create-table", Kind::CreateTable),
    ("create-source", Kind::CreateSource),
    ("create-view", Kind::CreateView),
    ("replace-view", Kind::ReplaceView),
    ("drop", Kind::DropTable),
    ("alter-system", Kind::AlterSystem),
    ("alter-view", Kind::AlterView),
    ("restart", Kind::RestartView),
    ("catalog", Kind::CreateSchema),
    ("savepoint", Kind::Savepoint),
    ("release", Kind::Release),
    ("restore", Kind::Restore),
    ("commit", Kind::Checkpoint),
    ("remote", Kind::Checkpoint),
];

/// The names of all steps, as the source has them.
pub fn names() -> Vec<String> {
    let mut files = vec![repository().join("crates")];
    let mut names = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
            files.extend(inside.filter(|p| !p.ends_with("tests") && !p.ends_with("failpoint.rs")));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            names.extend(text.split("failpoint(\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_string()));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// A database with its checkpoint storage, in a directory of its own.
struct Place {
    dir: TempDir,
    victim: Victim,
}

impl Place {
    async fn new(seed: u64, plant: Option<&str>) -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("remote")).unwrap();
        let url = format!("file://{}", dir.path().join("remote").display());
        let workers = if seed.is_multiple_of(2) { "1" } else { "2" };
        let storage = ["--checkpoint-storage", &url, "--checkpoint-storage-interval", "20ms", "--checkpoint-storage-keep", "1"];
        let mut victim = Victim::start(dir.path(), seed, &[&["--parallelism", workers], &storage[..]].concat()).await;
        victim.plant = plant.map(str::to_string);
        Place { dir, victim }
    }

    /// Ends the server at a step, and looks at what the next start finds. Returns whether the step was reached.
    async fn visit(&mut self, point: &str) -> Result<bool, Finding> {
        // At one of the first times.
        let often = ["log-", "catalog-", "commit-", "epoch-", "transaction-", "remote-upload", "remote-object"]
            .iter()
            .any(|p| point.starts_with(p));
        let count = if often { self.victim.statements.random.random_range(1..4) } else { 1 };
        let armed = [("MILLPOND_FAILPOINT", format!("{point}:{count}"))];
        let armed = armed.each_ref().map(|(name, value)| (*name, value.as_str()));
        if point.starts_with("fork") {
            return self.fork(&armed).await;
        }
        if point.starts_with("remote-restore") || point == "remote-arrived" || point == "remote-ordered" {
            return self.lose_directory(point).await;
        }
        let before = self.victim.server.log_length();
        let started = self.victim.restart(&armed).await;
        let mut ended = None;
        if started.is_ok() {
            let wanted = WANTED.iter().find(|(prefix, _)| point.starts_with(prefix)).map(|(_, kind)| *kind);
            ended = Some(self.victim.work(STEPS_MAX, wanted).await);
            if let Some(Ended::Refused(error)) = ended {
                return Err(Finding::Misbehaved(format!("a statement failed: {error}")));
            }
        }
        // Uploads have a pace of their own.
        let patience = if point.starts_with("remote") { UPLOAD_MAX } else { Duration::ZERO };
        let reached = self.victim.server.logs(before, &format!("failpoint {point} reached"), patience).await;
        if !reached {
            println!("{point}: started {started:?}, ended {ended:?}\n{}\n{}", self.victim.history(), self.victim.server.log_since(before));
        }
        self.victim.restart(&[]).await?;
        self.victim.verify().await?;
        Ok(reached)
    }

    async fn savepoint(&mut self) -> Result<String, Finding> {
        self.victim.restart(&[]).await?;
        while self.victim.world.savepoints.is_empty() {
            if self.victim.work(3, Some(Kind::Savepoint)).await != Ended::Done {
                return Err(Finding::Misbehaved("a statement failed without a fault".into()));
            }
        }
        Ok(self.victim.world.savepoints.keys().next().cloned().unwrap_or_default())
    }

    /// `millpond fork` ends at a step; the next one makes the fork.
    async fn fork(&mut self, armed: &[(&str, &str)]) -> Result<bool, Finding> {
        let name = self.savepoint().await?;
        let other = tempfile::tempdir().unwrap();
        let (from, to) = (self.dir.path().join("db"), other.path().join("db"));
        let fork = |environment: &[(&str, &str)]| {
            let arguments = ["fork", "--savepoint", &name, "--data-dir", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
            Command::new(binary()).args(arguments).envs(environment.iter().copied()).output().unwrap()
        };
        let reached = String::from_utf8_lossy(&fork(armed).stderr).contains("failpoint fork");
        if !to.exists() {
            let second = fork(&[]);
            if !second.status.success() {
                return Err(Finding::Misbehaved(String::from_utf8_lossy(&second.stderr).into_owned()));
            }
        }
        let live = self.victim.world.savepoints.get(&name).cloned().unwrap_or_default();
        let mut forked = Victim::start(other.path(), 0, &[]).await;
        forked.world = World { live, ..World::default() };
        forked.verify().await?;
        self.victim.comparisons += forked.comparisons;
        Ok(reached)
    }

    /// The data directory is lost after a checkpoint that the storage has; the restore ends at a step.
    async fn lose_directory(&mut self, point: &str) -> Result<bool, Finding> {
        self.victim.restart(&[]).await?;
        self.victim.work(5, None).await;
        let client = self.victim.server.connect().await;
        run(&client, "CHECKPOINT").await;
        let epoch = value(&client, "SELECT max(epoch) FROM millpond.checkpoints").await;
        let uploaded = format!("SELECT last_epoch >= {epoch} AND error IS NULL FROM millpond.checkpoint_storage");
        becomes(&client, &uploaded, "t").await.map_err(Finding::Misbehaved)?;
        self.victim.server.kill();
        std::fs::remove_dir_all(self.dir.path().join("db")).unwrap();
        // Savepoints are not in the storage.
        self.victim.world.savepoints.clear();
        let before = self.victim.server.log_length();
        let started = self.victim.restart(&[("MILLPOND_FAILPOINT", point)]).await.is_ok();
        let reached = !started && self.victim.server.log_since(before).contains(&format!("failpoint {point} reached"));
        self.victim.restart(&[]).await?;
        self.victim.verify().await?;
        Ok(reached)
    }
}

/// Visits every step so many times and prints what came of it. Returns what was found.
pub async fn table(rounds: u64, seed: u64, plant: Option<&str>) -> Tally {
    let mut found = Tally::default();
    let names = names();
    let mut hits = names.iter().map(|name| (name.as_str(), (0, Tally::default()))).collect::<BTreeMap<_, _>>();
    let (mut answered, mut comparisons) = (0, 0);
    for seed in seed..seed + rounds {
        let mut place = Place::new(seed, plant).await;
        let mut order = names.clone();
        order.shuffle(&mut place.victim.statements.random);
        for name in &order {
            let entry = hits.get_mut(name.as_str()).expect("it has all names");
            match place.visit(name).await {
                Ok(true) => entry.0 += 1,
                Ok(false) => println!("{name} was not reached (seed {seed})"),
                Err(finding) => {
                    let finding = finding.context(&format!("{name}, seed {seed}"));
                    let mut one = Tally::default();
                    one.add(&finding);
                    entry.1.merge(one);
                    found.merge(one);
                    (answered, comparisons) = (answered + place.victim.answered, comparisons + place.victim.comparisons);
                    place = Place::new(seed + 1_000_000, plant).await;
                }
            }
        }
        (answered, comparisons) = (answered + place.victim.answered, comparisons + place.victim.comparisons);
    }
    println!("{:<28} {:>5} {:>12} {:>6} {:>6}", "step", "hits", "divergences", "lost", "other");
    for (name, (hit, tally)) in &mut hits {
        if *hit < rounds && tally.total() == 0 {
            tally.misbehaved += 1;
            found.misbehaved += 1;
        }
        println!("{name:<28} {hit:>5} {:>12} {:>6} {:>6}", tally.diverged, tally.lost, tally.misbehaved);
    }
    let hit = hits.values().map(|(hit, _)| hit).sum::<u64>();
    println!("{:<28} {hit:>5} {:>12} {:>6} {:>6}", "all", found.diverged, found.lost, found.misbehaved);
    println!("{answered} statements answered, {comparisons} comparisons");
    found
}
