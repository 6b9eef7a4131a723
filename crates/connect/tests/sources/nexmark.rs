use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arrow_schema::Schema;
use millpond_common::SqlType::{BigInt, Integer, Text, Varchar};
use millpond_connect::{FormatSpec, Poll, validate};

use crate::support::{Source, all, present, schema};

fn fields(row: &str) -> Vec<&str> {
    row.split('|').collect()
}

fn events(kind: &str, events: &str) -> Vec<String> {
    Source::nexmark(&[("type", kind), ("events", events)]).rows()
}

#[test]
fn one_three_fortysix() {
    for (n, counts) in [("50", [1, 3, 46]), ("0", [0, 0, 0]), ("1", [1, 0, 0]), ("3", [1, 2, 0]), ("100050", [2001, 6003, 92046])] {
        for (kind, count) in ["person", "auction", "bid"].into_iter().zip(counts) {
            assert_eq!(events(kind, n).len(), count, "{kind} of {n}");
        }
    }
    let wide = Source::nexmark(&[("events", "1000")]);
    assert_eq!(wide.rows().len(), 1000);
    // the wide rows are the same events
    let column = |name: &str| wide.schema.index_of(name).unwrap();
    let bids = wide.columns(&[column("event_type"), column("bid_auction"), column("bid_url"), column("person_id"), column("date_time")]);
    let expected = Source::nexmark(&[("type", "bid"), ("events", "1000")]).columns(&[0, 4, 5]);
    let bids = bids.iter().filter(|r| r.starts_with("2|")).cloned().collect::<Vec<_>>();
    let expected = expected.iter().map(|r| fields(r)).map(|f| format!("2|{}|{}|∅|{}", f[0], f[1], f[2])).collect::<Vec<_>>();
    assert_eq!(bids, expected);
    let types = wide.columns(&[0, column("person_id"), column("auction_id"), column("bid_bidder")]);
    assert!(types[0].starts_with("0|1000|∅|∅") && types[1].starts_with("1|∅|1000|∅") && types[4].starts_with("2|∅|∅|"), "{types:?}");
}

#[test]
fn ids_and_times_count_up() {
    let persons = events("person", "5000");
    let auctions = events("auction", "5000");
    for (rows, first) in [(&persons, 1000), (&auctions, 1000)] {
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(fields(row)[0], (first + n).to_string());
        }
    }
    assert_eq!(fields(&persons[0])[6], "2015-07-15T00:00:00");
    assert_eq!(fields(&persons[1])[6], "2015-07-15T00:00:00.005"); // 50 events of 100 us
    let source = Source::nexmark(&[("type", "person"), ("events", "101"), ("base_time", "2024-01-01"), ("event_gap", "1s")]);
    assert_eq!(source.columns(&[6]), ["2024-01-01T00:00:00", "2024-01-01T00:00:50", "2024-01-01T00:01:40"]);
    let source = Source::nexmark(&[("type", "person"), ("events", "51"), ("rate", "1000000")]);
    assert_eq!(source.columns(&[6])[1], "2015-07-15T00:00:00.000050"); // the gap follows the rate
}

#[test]
fn values_are_the_benchmarks() {
    for row in events("person", "20000") {
        let f = fields(&row);
        assert!(f[1].split(' ').count() == 2 && f[2].contains('@') && f[2].ends_with(".com"), "{row}");
        assert!(f[3].len() == 19 && f[3].split(' ').all(|g| g.len() == 4 && g.parse::<u32>().is_ok()), "{row}");
        assert!(
            ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"]
                .contains(&f[4])
        );
        assert!(["AZ", "CA", "ID", "OR", "WA", "WY"].contains(&f[5]), "{row}");
        assert!((100..170).contains(&f[7].len()), "{row}");
    }
    for row in events("auction", "20000") {
        let f = fields(&row);
        let number = |i: usize| f[i].parse::<i64>().unwrap();
        assert!((3..20).contains(&f[1].len()) && (3..100).contains(&f[2].len()), "{row}");
        assert!((100..=100_000_000).contains(&number(3)) && number(4) > number(3), "{row}");
        assert!(f[6] > f[5], "{row}");
        assert!((1000..2000).contains(&number(7)) && (10..15).contains(&number(8)), "{row}");
    }
    let bids = events("bid", "100000");
    let mut hot_channels = 0;
    for row in &bids {
        let f = fields(row);
        hot_channels += usize::from(["Google", "Facebook", "Baidu", "Apple"].contains(&f[3]));
        assert!(
            ["Google", "Facebook", "Baidu", "Apple"].contains(&f[3])
                || f[3].strip_prefix("channel-").is_some_and(|n| n.parse::<u32>().is_ok())
        );
        assert!(
            f[4].starts_with("https://www.nexmark.com/") && f[4].contains("/item.htm?query=1") && f[4].split('/').count() == 7,
            "{row}"
        );
        let price = f[2].parse::<i64>().unwrap();
        assert!((100..=100_000_000).contains(&price), "{row}");
    }
    let share = hot_channels as f64 / bids.len() as f64;
    assert!((0.48..0.52).contains(&share), "{share}");
    // a tenth of the bids in each decade and a sixth of them: log-uniform prices
    let cheap = bids.iter().filter(|r| fields(r)[2].parse::<i64>().unwrap() < 1000).count() as f64 / bids.len() as f64;
    assert!((0.16..0.175).contains(&cheap), "{cheap}");
    // half of the bids are for the hot auction of the moment, three quarters by the hot bidder
    let hot = bids.iter().filter(|r| (fields(r)[0].parse::<i64>().unwrap() - 1000) % 100 == 0).count() as f64 / bids.len() as f64;
    assert!((0.49..0.52).contains(&hot), "{hot}");
    let hot = bids.iter().filter(|r| (fields(r)[1].parse::<i64>().unwrap() - 1000) % 100 == 1).count() as f64 / bids.len() as f64;
    assert!((0.74..0.77).contains(&hot), "{hot}");
}

#[test]
fn the_seed_decides() {
    let rows = |seed: &str| Source::nexmark(&[("type", "bid"), ("events", "500"), ("seed", seed)]).rows();
    assert_eq!(rows("7"), rows("7"));
    assert_ne!(rows("7"), rows("8"));
    let distinct = rows("7").into_iter().chain(rows("8")).collect::<BTreeSet<_>>();
    assert!(distinct.len() > 900);
    // these rows must never change: views of running databases were computed from them
    let first = Source::nexmark(&[("type", "bid"), ("events", "6")]).columns(&[0, 1, 2, 3, 4, 5]);
    let expected = [
        "1000|1003|274067|channel-9030|https://www.nexmark.com/xcx/mrce/jyol/item.htm?query=1&channel_id=1657012224|2015-07-15T00:00:00.000400",
        "1000|1001|17304|channel-1189|https://www.nexmark.com/uvgz/voxt/dwu/item.htm?query=1&channel_id=1524629504|2015-07-15T00:00:00.000500",
    ];
    assert_eq!(first, expected);
}

#[test]
fn columns_do_not_depend_on_each_other() {
    let source = Source::nexmark(&[("type", "auction"), ("events", "700")]);
    let whole = source.rows();
    for column in 0..source.schema.fields().len() {
        let alone = source.columns(&[column]);
        let expected = whole.iter().map(|r| fields(r)[column].to_string()).collect::<Vec<_>>();
        assert_eq!(alone, expected);
    }
    assert_eq!(source.columns(&[]).len(), 42);
    assert_eq!(source.columns(&[3, 0, 3])[0].split('|').count(), 3);
}

#[test]
fn declared_columns_are_checked() {
    let source = Source::nexmark(&[("type", "bid"), ("events", "50")]);
    let check = |schema| validate(&source.options, &FormatSpec::default(), Some(&schema));
    let declared = schema(&[("price", BigInt), ("channel", Varchar(None))]);
    assert_eq!(check(declared.clone()).unwrap(), declared);
    assert_eq!(check(schema(&[("price", Integer)])).unwrap_err().state().0, "42804");
    assert_eq!(check(schema(&[("cost", BigInt)])).unwrap_err().state().0, "42703");
    let e = validate(&source.options, &FormatSpec::new("plain", "json", &Default::default()).unwrap(), None).unwrap_err();
    assert_eq!(e.state().0, "42601");
    let wide = Source::nexmark(&[]);
    let strict = std::sync::Arc::new(Schema::new(vec![Text.field("bid_url", false)]));
    assert_eq!(validate(&wide.options, &FormatSpec::default(), Some(&strict)).unwrap_err().state().0, "23502");
    // declared columns in their own order
    let source = Source { schema: schema(&[("price", BigInt), ("auction", BigInt)]), ..source };
    let swapped = Source::nexmark(&[("type", "bid"), ("events", "50")]).columns(&[2, 0]);
    assert_eq!(source.rows(), swapped);
}

#[test]
fn the_rate_holds() {
    let source = Source::nexmark(&[("events", "150"), ("rate", "1000")]);
    let mut reader = source.open(None).unwrap();
    let started = Instant::now();
    let read = all(reader.as_mut()).unwrap();
    assert_eq!(read.rows.len(), 150);
    assert!(started.elapsed() >= Duration::from_millis(140), "{:?}", started.elapsed());
    // calls come back soon although nothing is due
    let source = Source::nexmark(&[("rate", "1")]);
    let mut reader = source.open(None).unwrap();
    assert_eq!(present(reader.as_mut()).unwrap().rows.len(), 1);
    let started = Instant::now();
    assert!(matches!(reader.next().unwrap(), Poll::Idle));
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[test]
fn an_endless_source_has_caught_up_at_once() {
    let mut reader = Source::nexmark(&[("type", "bid")]).open(None).unwrap();
    assert!(matches!(reader.next().unwrap(), Poll::Idle));
    for _ in 0..3 {
        assert!(matches!(reader.next().unwrap(), Poll::Chunk(c) if c.delta.len() > 8000));
    }
}
