//! The n-th write, sync or read in the data directory fails (EIO). The server stops, or goes on from a consistent state; what
//! it or the client is told has the file's name; nothing that was answered is lost.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::disk;
use super::victim::{Ended, Victim};
use crate::finding::{Finding, Tally};

/// What fails, and the most calls before it.
const CALLS: [(&str, u64); 3] = [("write", 400), ("sync", 200), ("read", 200)];
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

async fn fail(dir: &TempDir, victim: &mut Victim, call: &str, at: u64) -> Result<Outcome, Finding> {
    let library = disk::library().map_err(Finding::Misbehaved)?;
    let (data, note, which) = (dir.path().join("db"), dir.path().join("failed"), format!("{call}:{at}"));
    let _ = std::fs::remove_file(&note);
    let mut environment = disk::environment(library, &data, &note);
    environment.push(("MILLPOND_DISK_FAIL", &which));
    let before = victim.server.log_length();
    let ended = match victim.restart(&environment).await {
        Ok(()) => victim.work(STEPS, None).await,
        Err(_) => Ended::Died,
    };
    let Ok(file) = std::fs::read_to_string(&note) else {
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
    let name = file.trim().rsplit('/').next().unwrap_or_default();
    let error = if let Ended::Refused(error) = &ended { error.as_str() } else { "" };
    if outcome != Outcome::NoMatter && !told.contains(name) && !error.contains(name) {
        return Err(Finding::Misbehaved(format!("{file} is not named: {error}\n{told}")));
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
        "{:<6} {:>8} {:>8} {:>8} {:>10} {:>12} {:>6} {:>6}",
        "call", "failed", "stopped", "refused", "no matter", "divergences", "lost", "other"
    );
    for (call, most) in CALLS {
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
            let at = random.random_range(1..most);
            match fail(dir, victim, call, at).await {
                Ok(Outcome::NotReached) => continue,
                Ok(outcome) => outcomes.push(outcome),
                Err(finding) => {
                    tally.add(&finding.context(&format!("{call} {at}, seed {seed}, attempt {attempt}")));
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
            "{call:<6} {round:>8} {stopped:>8} {refused:>8} {no_matter:>10} {:>12} {:>6} {:>6}",
            tally.diverged, tally.lost, tally.misbehaved
        );
        found.merge(tally);
    }
    found
}
