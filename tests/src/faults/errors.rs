//! The n-th write, sync or read in the data directory fails (EIO), or all from then on. The server stops, or goes on from a
//! consistent state; what it or the client is told has the file's name; nothing that was answered is lost.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::disk;
use super::victim::{Ended, Victim};
use crate::finding::{Finding, Tally};

/// Which calls fail.
struct Fault {
    /// `write`, `sync` or `read`.
    call: &'static str,
    /// The most calls before it.
    most: u64,
    /// Part of the file's name, and of the thread's.
    aim: &'static str,
    /// All calls after it fail, too.
    for_good: bool,
}

const FAULTS: [Fault; 7] = [
    Fault { call: "write", most: 400, aim: "", for_good: false },
    Fault { call: "sync", most: 200, aim: "", for_good: false },
    Fault { call: "read", most: 200, aim: "", for_good: false },
    // While it compacts, RocksDB's own thread writes to its list of files.
    Fault { call: "write", most: 6, aim: "MANIFEST:rocksdb:low", for_good: false },
    Fault { call: "sync", most: 6, aim: "MANIFEST:rocksdb:low", for_good: false },
    Fault { call: "write", most: 400, aim: "", for_good: true },
    Fault { call: "sync", most: 200, aim: "", for_good: true },
];

/// Statements under which it is to fail.
const STEPS: usize = 40;

/// What came of one failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// There were fewer calls than that.
    NotReached,
    /// The server did not start, or has stopped.
    Stopped,
    /// A statement failed, and the server went on.
    Refused,
    /// Nobody needed to be told.
    NoMatter,
}

async fn fail(dir: &TempDir, victim: &mut Victim, fault: &Fault, at: u64) -> Result<Outcome, Finding> {
    let library = disk::library().map_err(Finding::Misbehaved)?;
    let which = format!("{}:{at}{}", fault.call, if fault.for_good { "+" } else { "" });
    let (data, note) = (dir.path().join("db"), dir.path().join("failed"));
    let _ = std::fs::remove_file(&note);
    let mut environment = disk::environment(library, &data, &note);
    environment.extend([("MILLPOND_DISK_FAIL", which.as_str()), ("MILLPOND_DISK_AIM", fault.aim)]);
    let before = victim.server.log_length();
    let ended = match victim.restart(&environment).await {
        Ok(()) => victim.work(STEPS, None).await,
        Err(_) => Ended::Died,
    };
    let Ok(files) = std::fs::read_to_string(&note) else {
        let fine = ended == Ended::Done;
        victim.restart(&[]).await?;
        victim.verify().await?;
        return if fine { Ok(Outcome::NotReached) } else { Err(Finding::Misbehaved(format!("failed without a fault: {ended:?}"))) };
    };
    let told = victim.server.log_since(before);
    let mut outcome = match ended {
        Ended::Done => Outcome::NoMatter,
        Ended::Died => Outcome::Stopped,
        Ended::Refused(_) => Outcome::Refused,
    };
    if outcome != Outcome::Stopped && !victim.verify_refused().await? {
        outcome = Outcome::Stopped;
    }
    let error = if let Ended::Refused(error) = &ended { error.as_str() } else { "" };
    let named = |file: &str| file.rsplit('/').next().is_some_and(|name| told.contains(name) || error.contains(name));
    if outcome != Outcome::NoMatter && !files.lines().any(named) {
        return Err(Finding::Misbehaved(format!("{files} is not named: {error}\n{told}")));
    }
    if told.contains("panicked") {
        return Err(Finding::Misbehaved(told));
    }
    victim.restart(&[]).await?;
    victim.verify().await?;
    Ok(outcome)
}

/// So many failures of each kind. Prints what came of them and returns what was found.
pub async fn table(rounds: u64, seed: u64, plant: Option<&str>) -> Tally {
    let mut found = Tally::default();
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>10} {:>12} {:>6} {:>6}",
        "call", "failed", "stopped", "refused", "no matter", "divergences", "lost", "other"
    );
    for fault in FAULTS {
        let name = format!("{}{} {}", fault.call, if fault.for_good { "s from then on" } else { "" }, fault.aim);
        let (mut outcomes, mut tally) = (Vec::new(), Tally::default());
        let mut random = StdRng::seed_from_u64(seed);
        let mut place = None;
        let mut round = 0;
        // A failure that was not reached does not count, but is not tried for ever.
        for attempt in 0..rounds * 4 {
            if round == rounds {
                break;
            }
            let (dir, victim) = match &mut place {
                Some(place) => place,
                none => {
                    let dir = tempfile::tempdir().unwrap();
                    let mut victim = Victim::start(dir.path(), seed + attempt, &[]).await;
                    victim.plant = plant.map(str::to_string);
                    none.insert((dir, victim))
                }
            };
            let at = random.random_range(1..fault.most);
            match fail(dir, victim, &fault, at).await {
                Ok(Outcome::NotReached) => continue,
                Ok(outcome) => outcomes.push(outcome),
                Err(finding) => {
                    tally.add(&finding.context(&format!("{name} {at}, seed {seed}, attempt {attempt}")));
                    if let Some((dir, mut victim)) = place.take() {
                        victim.server.kill();
                        println!("kept: {}", dir.keep().display());
                    }
                }
            }
            round += 1;
        }
        let count = |outcome| outcomes.iter().filter(|o| **o == outcome).count();
        let (stopped, refused, no_matter) = (count(Outcome::Stopped), count(Outcome::Refused), count(Outcome::NoMatter));
        println!(
            "{name:<28} {round:>8} {stopped:>8} {refused:>8} {no_matter:>10} {:>12} {:>6} {:>6}",
            tally.diverged, tally.lost, tally.misbehaved
        );
        found.merge(tally);
    }
    found
}
