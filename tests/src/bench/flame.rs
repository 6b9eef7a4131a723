//! Flame graphs: the server's stacks while it fills a view, sampled by `perf`, folded and drawn as SVG. A frame's width
//! is its share of the samples; what it calls stands above it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use millpond_tests::server::{Server, run};

use crate::{Arguments, nexmark};

/// Narrower frames are left out.
const SHARE_MIN: f64 = 0.004;
const WIDTH: f64 = 1200.0;
const ROW: f64 = 15.0;
/// Functions of the process itself that are listed.
const LISTED: usize = 8;
/// And so many functions of ours that call each.
const CALLERS: usize = 3;

/// Frames by what is called.
#[derive(Default)]
struct Frame {
    samples: u64,
    callees: BTreeMap<String, Frame>,
}

/// Draws `QUERY.svg` for each query, and prints in which functions the time is spent.
pub async fn measure(arguments: &Arguments, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    for query in &arguments.queries {
        let dir = tempfile::tempdir().unwrap();
        crate::usage::warm_memory();
        let server = Server::start(dir.path(), &["--parallelism", "1", "--log", "warn"]).await;
        let client = server.connect().await;
        run(&client, &nexmark::sources(arguments.events)).await;
        let data = dir.path().join("perf.data");
        let mut perf = Command::new("perf");
        perf.args([
            "record",
            "-q",
            "-F",
            "499",
            "-e",
            "cpu-clock",
            "--call-graph",
            "dwarf,8192",
            "-p",
            &server.process_id().to_string(),
            "-o",
        ]);
        let mut perf = perf.arg(&data).stderr(Stdio::null()).spawn().expect("perf is installed");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        run(&client, &nexmark::text(&format!("{query}.sql"))).await;
        run(&client, "CHECKPOINT").await;
        Command::new("kill").args(["-INT", &perf.id().to_string()]).status().unwrap();
        perf.wait().unwrap();
        let script =
            Command::new("perf").args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(&data).stderr(Stdio::null()).output();
        let (root, own) = fold(&String::from_utf8_lossy(&script.unwrap().stdout));
        let title = format!("Nexmark {query}, {} events, one worker: {} samples", arguments.events, root.samples);
        std::fs::write(directory.join(format!("{query}.svg")), draw(&title, &root)).unwrap();
        println!("{title}");
        let share = |samples: u64| samples as f64 / root.samples.max(1) as f64 * 100.0;
        for (function, callers) in largest(&own, |c| c.values().sum()).into_iter().take(LISTED) {
            let of = largest(callers, |n| *n).into_iter().take(CALLERS).map(|(c, n)| format!("{c} {:.1}", share(*n)));
            println!("  {:>5.1} % {function}, for {}", share(callers.values().sum()), of.collect::<Vec<_>>().join(", "));
        }
    }
}

/// The entries with the largest numbers first.
fn largest<T>(map: &BTreeMap<String, T>, number: impl Fn(&T) -> u64) -> Vec<(&String, &T)> {
    let mut list = map.iter().collect::<Vec<_>>();
    list.sort_by_key(|(_, t)| std::cmp::Reverse(number(t)));
    list
}

/// Samples of functions themselves, by the function of ours that called them.
type Own = BTreeMap<String, BTreeMap<String, u64>>;

/// Stacks by thread.
fn fold(script: &str) -> (Frame, Own) {
    let (mut root, mut own) = (Frame::default(), Own::new());
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|l| !l.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut stack = lines.filter_map(|l| l.trim().split_once(' ')).map(|(_, symbol)| short(symbol)).collect::<Vec<_>>();
        if let Some(function) = stack.first() {
            let ours = stack.iter().find(|f| f.contains("millpond")).cloned().unwrap_or_else(|| thread.trim().into());
            *own.entry(function.clone()).or_default().entry(ours).or_default() += 1;
        }
        stack.push(thread.trim().to_string());
        root.samples += 1;
        let mut frame = &mut root;
        for name in stack.into_iter().rev() {
            frame = frame.callees.entry(name).or_default();
            frame.samples += 1;
        }
    }
    (root, own)
}

/// A symbol without its hash and its type parameters.
fn short(symbol: &str) -> String {
    let symbol = symbol.trim();
    let symbol = symbol.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(symbol, |(name, _)| name);
    let mut depth = 0_u32;
    let mut name = String::new();
    for c in symbol.chars() {
        match c {
            '<' if !name.is_empty() => depth += 1,
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => name.push(c),
            _ => {}
        }
    }
    name.chars().take(110).collect()
}

fn draw(title: &str, root: &Frame) -> String {
    fn depth(frame: &Frame, least: u64) -> usize {
        frame.callees.values().filter(|f| f.samples >= least).map(|f| 1 + depth(f, least)).max().unwrap_or(0)
    }
    fn frames(svg: &mut String, frame: &Frame, x: f64, y: f64, scale: f64, least: u64) {
        let mut x = x;
        for (name, callee) in &frame.callees {
            let width = callee.samples as f64 * scale;
            if callee.samples >= least {
                let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                let colour = if name.contains("millpond") { "#f2b27a" } else { "#e8dcc8" };
                let share = width / WIDTH * 100.0;
                let text = name.chars().rev().take((width / 6.0) as usize).collect::<Vec<_>>().into_iter().rev().collect::<String>();
                let drawn = writeln!(
                    svg,
                    "<g><title>{name} {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{:.0}\">{text}</text></g>",
                    x + 2.0,
                    y + 11.0
                );
                drawn.expect("a string can be written to");
                frames(svg, callee, x, y - ROW, scale, least);
            }
            x += width;
        }
    }
    let least = ((root.samples as f64 * SHARE_MIN) as u64).max(1);
    let height = ROW * (depth(root, least) as f64 + 3.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"9\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"4\" y=\"14\" font-size=\"12\">{title}</text>\n"
    );
    frames(&mut svg, root, 0.0, height - ROW, WIDTH / root.samples.max(1) as f64, least);
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_folded_by_thread() {
        let sample = "worker 1\n\t  1f a::b<c>::d::h0123456789abcdef\n\t  2f main\n\nworker 1\n\t  3f main\n\n";
        let (root, own) = fold(sample);
        assert_eq!(
            own.iter().map(|(k, v)| format!("{k} {v:?}")).collect::<Vec<_>>(),
            [r#"a::b::d {"worker 1": 1}"#, r#"main {"worker 1": 1}"#]
        );
        let main = &root.callees["worker 1"].callees["main"];
        assert_eq!((root.samples, main.samples, main.callees["a::b::d"].samples), (2, 2, 1));
        assert!(draw("t", &root).contains("a::b::d 50.0 %"));
    }
}
