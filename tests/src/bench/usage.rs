//! What a process has used, as the kernel counts it.

use std::time::Duration;

/// User and system time so far, that of ended threads included. It comes in ticks of 10 ms.
pub fn cpu_time(process: u32) -> Duration {
    // Fields 14 and 15 of proc(5).
    ticks(process, [11, 12])
}

fn ticks(process: u32, fields: [usize; 2]) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let all = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let ticks = fields.map(|i| all.get(i).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0));
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}

/// Peak resident memory in bytes.
pub fn rss_peak(process: u32) -> u64 {
    status(process, "VmHWM:")
}

/// Resident memory in bytes.
pub fn rss(process: u32) -> u64 {
    status(process, "VmRSS:")
}

fn status(process: u32, name: &str) -> u64 {
    status_number(process, name) * 1024
}

fn status_number(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
}

/// Bytes that [`warm_memory`] touches: more than any run here takes.
const WARM_BYTES: usize = 4 << 30;

/// Has all memory at hand that the next process is going to take. A virtual machine gives what is free back to its host, and touching it again then
/// costs five times as much (1.6 instead of 0.4 s per GB), or not, depending on what ran before.
pub fn warm_memory() {
    let status = std::process::Command::new(std::env::current_exe().unwrap()).arg("--touch-memory").status();
    assert!(status.is_ok_and(|s| s.success()), "4 GB of memory are needed");
}

/// What that process does.
pub fn touch_memory() {
    const PAGE: usize = 4096;
    let mut bytes = vec![0u8; WARM_BYTES];
    bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&bytes);
}

/// The machine's load averages, as the kernel prints them.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// User and system time so far of a process and its children.
pub fn cpu_time_of_family(parent: u32) -> Duration {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |p: &u32| status_number(*p, "PPid:") == u64::from(parent);
    // Fields 16 and 17: children that have ended.
    cpu_time(parent) + ticks(parent, [13, 14]) + numbers.filter(is_child).map(cpu_time).sum::<Duration>()
}

/// Bytes of a directory on disk; a file with several links counts once.
pub fn disk(dir: &std::path::Path) -> u64 {
    let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(dir).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Bytes that a process has had written to disk.
pub fn written(process: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Files with an ending, in a directory and those below it.
pub fn files(dir: &std::path::Path, ending: &str) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.map(|p| if p.is_dir() { files(&p, ending) } else { usize::from(p.extension().is_some_and(|e| e == ending)) }).sum()
}

/// A thread's time so far.
#[derive(Clone, Debug)]
pub struct Thread {
    id: String,
    /// Its name.
    pub name: String,
    /// On a core.
    pub ran: Duration,
    /// Ready, but other threads had the cores: what the rest of the machine took.
    pub waited: Duration,
}

/// The threads that a process has now.
pub fn threads(process: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let thread = |entry: std::fs::DirEntry| {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
        let times = read("schedstat")?;
        let mut times = times.split_whitespace().filter_map(|t| t.parse().ok()).map(Duration::from_nanos);
        let (ran, waited) = (times.next()?, times.next()?);
        Some(Thread { id: entry.file_name().to_string_lossy().into(), name: read("comm")?.trim().to_string(), ran, waited })
    };
    tasks.filter_map(thread).collect()
}

/// What the threads of `now` used since `before`, the busiest first.
pub fn since(before: &[Thread], now: Vec<Thread>) -> Vec<Thread> {
    let mut used = now;
    for thread in &mut used {
        if let Some(old) = before.iter().find(|b| b.id == thread.id) {
            thread.ran = thread.ran.saturating_sub(old.ran);
            thread.waited = thread.waited.saturating_sub(old.waited);
        }
    }
    used.sort_by_key(|t| std::cmp::Reverse(t.ran));
    used
}
