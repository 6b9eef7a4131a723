//! The promise that exactly-once rests on: opening at the end of any chunk gives exactly the rows after it.

use millpond_common::SqlType::{BigInt, Text};
use millpond_connect::{Encode, Poll, Position};
use proptest::prelude::*;

use crate::parquet;
use crate::support::{Dir, Source, all, present, texts};

/// Reads with a new reader after every `lives[i]` chunks, until nothing is left.
fn read_in_lives(source: &Source, lives: &[usize]) -> (Vec<String>, u64) {
    let mut rows = vec![];
    let mut bad_rows = 0;
    let mut at: Option<Position> = None;
    for chunks in lives.iter().cycle() {
        let mut reader = source.open(at.as_ref()).unwrap();
        for _ in 0..*chunks {
            match reader.next().unwrap() {
                Poll::Chunk(chunk) => {
                    rows.extend(texts(&chunk.delta.batch));
                    bad_rows += chunk.bad_rows;
                    at = Some(chunk.end);
                }
                Poll::Idle | Poll::End => return (rows, bad_rows),
            }
        }
    }
    (rows, bad_rows)
}

/// What one CSV field may hold.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,6}", "[a-zä ,\"\n\r]{1,12}", Just("1\"2".to_string()),]
}

fn csv_file() -> impl Strategy<Value = String> {
    let line_end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
    let record = (prop_oneof![9 => any::<i32>().prop_map(|n| n.to_string()), 1 => Just("bad".to_string())], field(), line_end);
    (proptest::collection::vec(record, 0..30), any::<bool>()).prop_map(|(records, ended)| {
        let mut text = "n,t\n".to_string();
        for (n, t, end) in records {
            text += &format!("{n},\"{}\"{end}", t.replace('"', "\"\""));
        }
        if !ended {
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn csv(files in proptest::collection::vec(csv_file(), 1..4), batch_rows in 1usize..7, lives in proptest::collection::vec(1usize..5, 1..4)) {
        let dir = Dir::new(&[]);
        for (number, text) in files.iter().enumerate() {
            dir.write(&format!("{number}.csv"), text);
        }
        let source = Source::file(&dir, "*.csv", Encode::csv(), &[("n", BigInt), ("t", Text)]).with("on_error", "skip");
        let whole = all(source.open(None).unwrap().as_mut()).unwrap();
        let source = source.with("batch_rows", &batch_rows.to_string());
        prop_assert_eq!(read_in_lives(&source, &lives), (whole.rows.clone(), whole.bad_rows));
        // following sees the same, but for a last line without its end
        let complete = files.iter().all(|f| f.ends_with('\n'));
        let source = source.with("follow", "true");
        let followed = present(source.open(None).unwrap().as_mut()).unwrap();
        prop_assert_eq!(read_in_lives(&source, &lives), (followed.rows.clone(), followed.bad_rows));
        if complete {
            prop_assert_eq!(followed.rows, whole.rows);
        }
    }

    /// Files grow by pieces cut anywhere, while readers come and go.
    #[test]
    fn growing(text in csv_file(), cuts in proptest::collection::vec(0.0..1.0f64, 1..6), batch_rows in 1usize..5) {
        let dir = Dir::new(&[]);
        let source = Source::file(&dir, "*.csv", Encode::csv(), &[("n", BigInt), ("t", Text)])
            .with("on_error", "skip").with("batch_rows", &batch_rows.to_string()).with("follow", "true");
        let text = text + "\n";
        let bytes = text.as_bytes();
        let mut cuts = cuts.iter().map(|c| (c * bytes.len() as f64) as usize).chain([bytes.len()]).collect::<Vec<_>>();
        cuts.sort_unstable();
        let (mut rows, mut bad_rows, mut at, mut written) = (vec![], 0, None, 0);
        for cut in cuts {
            let mut grown = bytes[..written].to_vec();
            grown.extend(&bytes[written..cut]);
            std::fs::write(dir.path("a.csv"), &grown).unwrap();
            written = cut;
            let read = present(source.open(at.as_ref()).unwrap().as_mut()).unwrap();
            rows.extend(read.rows);
            bad_rows += read.bad_rows;
            at = read.ends.last().map(|(_, end)| end.clone()).or(at);
        }
        let whole = all(source.with("follow", "false").open(None).unwrap().as_mut()).unwrap();
        prop_assert_eq!((rows, bad_rows), (whole.rows, whole.bad_rows));
    }

    #[test]
    fn json(numbers in proptest::collection::vec(any::<i64>(), 0..40), batch_rows in 1usize..7, lives in proptest::collection::vec(1usize..5, 1..4)) {
        let text = numbers.iter().map(|n| format!("{{\"t\":\"{}\",\"n\":{n}}}\n", "ä".repeat((n & 7) as usize))).collect::<String>();
        let dir = Dir::new(&[("a.json", &text), ("b.json", &text)]);
        let source = Source::file(&dir, "*.json", Encode::Json, &[("n", BigInt), ("t", Text)]).with("batch_rows", &batch_rows.to_string());
        prop_assert_eq!(read_in_lives(&source, &lives).0, source.rows());
    }

    #[test]
    fn row_groups(rows in 0i64..50, group_rows in 1usize..9, batch_rows in 1usize..9, lives in proptest::collection::vec(1usize..5, 1..4)) {
        let dir = Dir::new(&[]);
        parquet::write(&dir, "a.parquet", &parquet::numbers(0..rows), group_rows);
        parquet::write(&dir, "b.parquet", &parquet::numbers(rows..rows + 3), group_rows);
        let source = Source::file(&dir, "*.parquet", Encode::Parquet, &[("n", BigInt)]).with("batch_rows", &batch_rows.to_string());
        let expected = (0..rows + 3).map(|n| n.to_string()).collect::<Vec<_>>();
        prop_assert_eq!(read_in_lives(&source, &lives).0, expected);
    }

    #[test]
    fn nexmark(kind in prop_oneof![Just("person"), Just("auction"), Just("bid"), Just("")], events in 0u64..300, seed in any::<u64>(), batch_rows in 1usize..90, lives in proptest::collection::vec(1usize..5, 1..4)) {
        let (events, seed, batch_rows) = (events.to_string(), seed.to_string(), batch_rows.to_string());
        let mut options = vec![("events", events.as_str()), ("seed", &seed)];
        if !kind.is_empty() {
            options.push(("type", kind));
        }
        let whole = Source::nexmark(&options).rows();
        options.push(("batch_rows", &batch_rows));
        prop_assert_eq!(read_in_lives(&Source::nexmark(&options), &lives).0, whole);
    }
}

/// Reading between any two places that a reader has come to gives exactly the rows between them, whoever reads: with
/// other chunks, in files that have grown since, from a source that never ends.
fn check_spans(source: &Source, wider: &Source) {
    let read = present(source.open(None).unwrap().as_mut()).unwrap();
    let mut places = vec![(0, None)];
    places.extend(read.ends.iter().map(|(rows, at)| (*rows, Some(at))));
    for (first, (from_rows, from)) in places.iter().enumerate() {
        for (until_rows, until) in &places[first..] {
            let Some(until) = until else { continue };
            let sorted = |mut rows: Vec<String>| {
                rows.sort();
                rows
            };
            let expected = sorted(read.rows[*from_rows..*until_rows].to_vec());
            assert_eq!(sorted(source.between(*from, until)), expected, "{from:?} to {until:?}");
            assert_eq!(sorted(wider.between(*from, until)), expected, "{from:?} to {until:?} in other chunks");
        }
    }
}

#[test]
fn spans_of_text_files() {
    let csv = |rows: std::ops::Range<i64>| rows.map(|n| format!("{n},\"line {n}\n\"\n\n")).collect::<String>();
    for follow in ["false", "true"] {
        let dir = Dir::new(&[("a.csv", &format!("n,t\n{}", csv(0..7))), ("b.csv", &format!("n,t\n{}", csv(7..12))), ("c.csv", "n,t\n")]);
        let source = |rows: &str| {
            let columns = [("n", BigInt), ("t", Text)];
            Source::file(&dir, "*.csv", Encode::csv(), &columns).with("follow", follow).with("batch_rows", rows)
        };
        check_spans(&source("3"), &source("100"));
        check_spans(&source("2"), &source("1"));
    }
}

#[test]
fn spans_of_a_file_that_grows() {
    let dir = Dir::new(&[("a.json", "{\"n\":1}\n{\"n\":2}\n")]);
    let source = Source::file(&dir, "*.json", Encode::Json, &[("n", BigInt)]).with("follow", "true");
    let mut reader = source.open(None).unwrap();
    let first = present(reader.as_mut()).unwrap().ends.pop().unwrap().1;
    dir.append("a.json", "{\"n\":3}\n");
    dir.write("0.json", "{\"n\":4}\n");
    assert_eq!(source.between(None, &first), ["1", "2"]);
    let second = source.open(Some(&first)).map(|mut r| present(r.as_mut()).unwrap().ends.pop().unwrap().1).unwrap();
    dir.append("a.json", "{\"n\":5}\n");
    assert_eq!(source.between(Some(&first), &second), ["4", "3"]);
    assert!(source.between(Some(&second), &second).is_empty());
}

#[test]
fn spans_of_parquet_files() {
    let dir = Dir::new(&[]);
    parquet::write(&dir, "a.parquet", &parquet::numbers(0..10), 3);
    parquet::write(&dir, "b.parquet", &parquet::numbers(10..14), 3);
    for follow in ["false", "true"] {
        let source =
            |rows: &str| Source::file(&dir, "*.parquet", Encode::Parquet, &[("n", BigInt)]).with("follow", follow).with("batch_rows", rows);
        check_spans(&source("2"), &source("100"));
    }
}

#[test]
fn spans_of_nexmark() {
    // A rate of one a second: reading what was read before does not wait.
    let source = |rows: &str| Source::nexmark(&[("type", "bid"), ("events", "300"), ("batch_rows", rows)]);
    check_spans(&source("20"), &source("7").with("rate", "1").with("event_gap", "100us"));
}

#[test]
fn a_last_line_must_not_be_continued() {
    let dir = Dir::new(&[("a.csv", "n\n1\n2")]);
    let source = Source::file(&dir, "a.csv", Encode::csv(), &[("n", BigInt)]);
    let read = all(source.open(None).unwrap().as_mut()).unwrap();
    assert_eq!(read.rows, ["1", "2"]);
    let end = &read.ends[0].1;
    assert!(all(source.open(Some(end)).unwrap().as_mut()).unwrap().rows.is_empty());
    dir.append("a.csv", "\n3\n");
    assert_eq!(all(source.open(Some(end)).unwrap().as_mut()).unwrap().rows, ["3"]);
    dir.write("a.csv", "n\n1\n27\n");
    let e = source.open(Some(end)).and_then(|mut r| all(r.as_mut())).err().unwrap();
    assert!(e.message().contains("continued"), "{e}");
}

#[test]
fn positions_that_are_no_positions() {
    let dir = Dir::new(&[("a.csv", "n\n1\n")]);
    for source in [Source::file(&dir, "a.csv", Encode::csv(), &[("n", BigInt)]), Source::nexmark(&[])] {
        for bytes in [vec![], vec![9], vec![1, 2, 3], vec![1; 40]] {
            assert_eq!(source.open(Some(&Position(bytes))).err().unwrap().state().0, "XX001");
        }
    }
}
