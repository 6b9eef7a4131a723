//! The disk is full (ENOSPC), on a small file system of its own: of the data directory, or of the checkpoint storage. The
//! server stops, or goes on from a consistent state; when there is space again, it goes on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::Rng;

use super::victim::{Ended, Victim};
use crate::finding::{Finding, Tally};

/// Of each file system. RocksDB reserves 17 MB for its log.
const SIZE: &str = "size=48m";
/// A server that has failed has stopped by then.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Says that this process may mount.
const INSIDE: &str = "MILLPOND_DISK_FULL_INSIDE";

/// The same command in a namespace where file systems can be mounted; `None`: it is there already. An error: that is not possible here.
pub fn enter() -> Result<Option<Command>, String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let possible = Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|o| o.status.success());
    if !possible {
        return Err("skipped: `unshare -Urm` is not possible here".into());
    }
    let mut command = Command::new("unshare");
    command.arg("-Urm").arg(std::env::current_exe().map_err(|e| e.to_string())?).env(INSIDE, "1");
    Ok(Some(command))
}

fn mount(place: &Path) {
    std::fs::create_dir_all(place).unwrap();
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(place).status().unwrap();
    assert!(status.success(), "mount {}: {status}", place.display());
}

/// Leaves so many bytes.
fn fill(place: &Path, leave: usize) -> PathBuf {
    use std::io::Write;
    let path = place.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = [1u8; 4096];
    let mut size = 0;
    while file.write_all(&block).is_ok() {
        size += block.len() as u64;
    }
    file.set_len(size.saturating_sub(leave as u64)).unwrap();
    path
}

/// What came of it.
#[derive(Default)]
struct Counts {
    rounds: u64,
    stopped: u64,
    refused: u64,
    unnoticed: u64,
}

async fn round(data: &Path, storage: &Path, victim: &mut Victim, counts: &mut Counts) -> Result<(), Finding> {
    victim.restart(&[]).await?;
    victim.work(6, None).await;
    let before = victim.server.log_length();
    let leave = victim.statements.random.random_range(0..60_000);
    let of_data = victim.statements.random.random_bool(0.7);
    let ballast = fill(if of_data { data } else { storage }, leave);
    let mut refused = Vec::new();
    for _ in 0..4 {
        match victim.work(30, None).await {
            Ended::Refused(error) => {
                refused.push(error);
                if !victim.verify_refused().await? {
                    break;
                }
            }
            Ended::Done => break,
            Ended::Died => {
                // It may try to start without space, and must then say why it does not.
                if victim.statements.random.random_bool(0.5) && victim.restart(&[]).await.is_ok() {
                    victim.verify().await?;
                }
                break;
            }
        }
    }
    let stopped = !victim.server.is_running();
    let told = victim.server.log_since(before);
    std::fs::remove_file(ballast).unwrap();
    counts.rounds += 1;
    counts.stopped += u64::from(stopped);
    counts.refused += u64::from(!stopped && !refused.is_empty());
    counts.unnoticed += u64::from(!stopped && refused.is_empty());
    let place = data.to_str().unwrap_or_default();
    if let Some(error) = refused.iter().find(|e| !e.contains(place) && !told.contains(place)) {
        return Err(Finding::Misbehaved(format!("no file is named: {error}\n{told}")));
    }
    if told.contains("panicked") || (stopped && !told.contains("No space left")) {
        return Err(Finding::Misbehaved(told));
    }
    // RocksDB does not forget a failure: the server may stop with it when there is space again.
    if !(stopped || victim.verify_refused().await? && goes_on(victim, before).await?) {
        counts.stopped += 1;
        counts.refused -= u64::from(!refused.is_empty());
        counts.unnoticed -= u64::from(refused.is_empty());
    }
    victim.restart(&[]).await?;
    victim.verify().await
}

/// Whether it does, now that there is space; if not, it must have stopped because of what failed before.
async fn goes_on(victim: &mut Victim, before: usize) -> Result<bool, Finding> {
    let ended = victim.work(10, None).await;
    // The statement that meets the failure may still be told of it.
    let waited = Instant::now();
    while matches!(ended, Ended::Refused(_)) && victim.server.is_running() && waited.elapsed() < STOPS_WITHIN {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = victim.server.log_since(before);
    match ended {
        Ended::Done => Ok(true),
        Ended::Died | Ended::Refused(_) if !victim.server.is_running() && told.contains("nothing more is written") => Ok(false),
        ended => Err(Finding::Misbehaved(format!("there is space again, but: {ended:?}\n{told}"))),
    }
}

/// So many times without space. Prints what came of them and returns what was found.
pub async fn table(rounds: u64, seed: u64, plant: Option<&str>) -> Tally {
    const ROUNDS_PER_DIRECTORY: u64 = 10;
    let (mut found, mut counts, mut answered, mut comparisons) = (Tally::default(), Counts::default(), 0, 0);
    for seed in seed..seed + rounds.div_ceil(ROUNDS_PER_DIRECTORY) {
        let dir = tempfile::tempdir().unwrap();
        let (data, storage) = (dir.path().join("db"), dir.path().join("remote"));
        mount(&data);
        mount(&storage);
        let url = format!("file://{}", storage.display());
        let mut victim = Victim::start(dir.path(), seed, &["--checkpoint-storage", &url, "--checkpoint-storage-interval", "20ms"]).await;
        victim.plant = plant.map(str::to_string);
        for _ in 0..ROUNDS_PER_DIRECTORY.min(rounds - counts.rounds) {
            if let Err(finding) = round(&data, &storage, &mut victim, &mut counts).await {
                found.add(&finding.context(&format!("seed {seed}, round {}", counts.rounds)));
                break;
            }
        }
        victim.server.kill();
        (answered, comparisons) = (answered + victim.answered, comparisons + victim.comparisons);
        for place in [&data, &storage] {
            let _ = Command::new("umount").arg(place).status();
        }
    }
    println!(
        "{:>6} {:>8} {:>8} {:>10} {:>9} {:>12} {:>12} {:>6} {:>6}",
        "full", "stopped", "refused", "unnoticed", "answered", "comparisons", "divergences", "lost", "other"
    );
    println!(
        "{:>6} {:>8} {:>8} {:>10} {answered:>9} {comparisons:>12} {:>12} {:>6} {:>6}",
        counts.rounds, counts.stopped, counts.refused, counts.unnoticed, found.diverged, found.lost, found.misbehaved
    );
    found
}
