//! A recorded baseline: Nexmark in process, as ratios to a fixed loop that runs beside it, so that another machine, or
//! the same one on another day, gives nearly the same numbers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Arguments, nexmark, usage};

const ROUNDS: u64 = 12;
const VALUES: usize = 1 << 20;
/// Differences below this share are noise.
const NOISE: f64 = 0.1;

#[derive(Serialize, Deserialize)]
struct Baseline {
    events: u64,
    /// Per query: CPU time over that of the loop.
    of_the_loop: BTreeMap<String, f64>,
}

/// CPU time of the loop: random numbers are made, hashed, sorted, and looked up at random places.
fn reference() -> Duration {
    let process = std::process::id();
    let before = usage::cpu_time(process);
    let mut sum = 0_u64;
    for round in 0..ROUNDS {
        let mut random = round | 1;
        let mut values = (0..VALUES).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random ^ (random >> 29)
        });
        let mut values = values.by_ref().collect::<Vec<_>>();
        sum = values.iter().fold(sum, |s, v| s.wrapping_add(values.get(*v as usize % VALUES).copied().unwrap_or(0)));
        values.sort_unstable();
        sum ^= std::hint::black_box(&values).get(VALUES / 2).copied().unwrap_or(0);
    }
    std::hint::black_box(sum);
    usage::cpu_time(process) - before
}

/// Measures the queries; compares them with a recorded file, or records one.
pub async fn measure(arguments: &Arguments, compare: Option<&Path>, record: Option<&Path>) {
    let known = compare.map(|path| {
        let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice::<Baseline>(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    });
    let events = known.as_ref().map_or(arguments.events, |k| k.events);
    println!("\nNexmark in process, {events} events, CPU time as a multiple of the reference loop's; load {}", usage::load());
    println!("{:<6} {:>10} {:>10} {:>10}", "query", "of loop", "baseline", "now/then");
    let mut now = BTreeMap::new();
    let mut ratios = vec![];
    for query in &arguments.queries {
        let mut found = (0..arguments.repeat.max(1)).map(|_| {
            let before = reference();
            let cost = nexmark::in_child(query, 1, "1s", events, true, arguments.memory_mb);
            cost.cpu.as_secs_f64() / ((before + reference()).as_secs_f64() / 2.0)
        });
        let mut found = found.by_ref().collect::<Vec<_>>();
        found.sort_by(f64::total_cmp);
        let own = found.get(found.len() / 2).copied().unwrap_or(0.0);
        let then = known.as_ref().and_then(|k| k.of_the_loop.get(query)).copied();
        let ratio = then.map(|then| own / then);
        let verdict = match ratio {
            Some(r) if r > 1.0 + NOISE => "  slower",
            Some(r) if r < 1.0 - NOISE => "  faster",
            _ => "",
        };
        let number = |n: Option<f64>| n.map_or("-".into(), |n| format!("{n:.3}"));
        println!("{query:<6} {own:>10.3} {:>10} {:>10}{verdict}", number(then), number(ratio));
        ratios.extend(ratio.filter(|r| *r > 0.0));
        now.insert(query.clone(), own);
    }
    if !ratios.is_empty() {
        let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        println!("geometric mean of now/then: {mean:.3}");
    }
    if let Some(path) = record {
        let text = serde_json::to_string_pretty(&Baseline { events, of_the_loop: now }).expect("numbers can be written");
        std::fs::write(path, text + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
