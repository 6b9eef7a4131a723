//! How fast sources give rows on one core: `cargo run --release -p millpond-connect --example rows_per_second`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{Schema, SchemaRef};
use millpond_common::SqlType::{self, BigInt, Numeric, Text, Timestamp};
use millpond_connect::{FormatSpec, Poll, Span, open, validate};

const ROWS: usize = 1_000_000;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let (mut csv, mut json) = ("id,account,amount,at,kind\n".to_string(), String::new());
    for n in 0..ROWS {
        let (account, cents, second) = (n * 7919 % 5000, n * 104_729 % 100_000, n % 86_400);
        let at = format!("2024-01-{:02} {:02}:{:02}:{:02}", 1 + n % 28, second / 3600, second / 60 % 60, second % 60);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        writeln!(csv, "{n},{account},{amount},{at},card").unwrap();
        writeln!(json, "{{\"id\":{n},\"account\":{account},\"amount\":{amount},\"at\":\"{at}\",\"kind\":\"card\"}}").unwrap();
    }
    std::fs::write(dir.path().join("a.csv"), csv).unwrap();
    std::fs::write(dir.path().join("a.json"), json).unwrap();
    let columns: [(&str, SqlType); 5] =
        [("id", BigInt), ("account", BigInt), ("amount", Numeric { precision: 12, scale: 2 }), ("at", Timestamp), ("kind", Text)];
    let schema = Arc::new(Schema::new(columns.iter().map(|(n, t)| t.field(n, true)).collect::<Vec<_>>()));
    for name in ["a.csv", "a.json"] {
        let path = dir.path().join(name).display().to_string();
        let options = options(&[("connector", "file"), ("path", &path)]);
        for projection in [vec![0, 1, 2, 3, 4], vec![1, 2], vec![]] {
            measure(&format!("{name}, columns {projection:?}"), &options, &schema, &projection);
        }
    }
    for (kind, projection) in
        [("bid", vec![0, 2, 5]), ("bid", vec![0, 1, 2, 3, 4, 5, 6]), ("person", (0..8).collect()), ("auction", (0..10).collect())]
    {
        let events = if kind == "bid" { ROWS * 50 / 46 } else { ROWS * 2 }.to_string();
        let options = options(&[("connector", "nexmark"), ("type", kind), ("events", &events)]);
        let schema = validate(&options, &FormatSpec::default(), None).unwrap();
        measure(&format!("nexmark {kind}, columns {projection:?}"), &options, &schema, &projection);
    }
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn measure(name: &str, options: &BTreeMap<String, String>, schema: &SchemaRef, projection: &[usize]) {
    let started = Instant::now();
    let mut reader = open(options, &FormatSpec::default(), schema, projection, Span::default()).unwrap();
    let mut rows = 0;
    while let Poll::Chunk(chunk) = reader.next().unwrap() {
        rows += chunk.delta.len();
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{name}: {rows} rows, {:.2} million rows/s", rows as f64 / seconds / 1e6);
}
