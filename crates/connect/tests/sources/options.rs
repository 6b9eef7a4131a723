use std::collections::BTreeMap;

use millpond_common::SqlType::Integer;
use millpond_connect::{Encode, FormatSpec, is_bounded, validate};

use crate::support::{Dir, map, schema};

/// WITH options (`DIR` is a directory with `a.csv`), the SQLSTATE, and a part of the message and of the hint.
#[test]
fn refused_definitions() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    let cases: &[Case] = &[
        (&[], "22023", "\"connector\" is required", "file, nexmark"),
        (&[("connector", "kafka")], "0A000", "unknown connector \"kafka\"", "file, nexmark"),
        (&[("connector", "file")], "22023", "\"path\" is required", "path ="),
        (&[("connector", "file"), ("path", "DIR/a.csv"), ("folow", "true")], "42601", "no option \"folow\"", "path, follow, batch_rows"),
        (&[("connector", "file"), ("path", "DIR/a.csv"), ("follow", "maybe")], "22023", "\"follow\": \"maybe\"", "'true' or 'false'"),
        (&[("connector", "file"), ("path", "DIR/a.csv"), ("batch_rows", "0")], "22023", "\"batch_rows\": \"0\"", "at least 1"),
        (&[("connector", "file"), ("path", "DIR/a.csv"), ("on_error", "ignore")], "22023", "\"on_error\": \"ignore\"", "'skip'"),
        (&[("connector", "file"), ("path", "DIR/none*.csv")], "22023", "no file matches", "follow"),
        (&[("connector", "file"), ("path", "DIR")], "22023", "invalid value for option \"path\"", "directory"),
        (&[("connector", "file"), ("path", "DIR/[a.csv")], "22023", "invalid value for option \"path\"", "pattern"),
        (&[("connector", "nexmark"), ("path", "x")], "42601", "no option \"path\"", "type, table, seed, events, rate"),
        (&[("connector", "nexmark"), ("type", "bids")], "22023", "\"type\": \"bids\"", "'person', 'auction' or 'bid'"),
        (&[("connector", "nexmark"), ("type", "bid"), ("table", "bid")], "22023", "\"table\"", "not both"),
        (&[("connector", "nexmark"), ("events", "many")], "22023", "\"events\": \"many\"", "whole number"),
        (&[("connector", "nexmark"), ("rate", "0")], "22023", "\"rate\": \"0\"", "at least 1"),
        (&[("connector", "nexmark"), ("event_gap", "10")], "22023", "\"event_gap\": \"10\"", "unit"),
        (&[("connector", "nexmark"), ("base_time", "now")], "22023", "\"base_time\": \"now\"", "timestamp"),
        (&[("connector", "nexmark"), ("type", "bid")], "42703", "no column \"a\"", "auction, bidder, price"),
    ];
    let dir = Dir::new(&[("a.csv", "a\n1\n")]);
    for (options, state, message, hint) in cases {
        let root = dir.path("").display().to_string();
        let options: BTreeMap<_, _> = map(options).into_iter().map(|(k, v)| (k, v.replace("DIR", root.trim_end_matches('/')))).collect();
        let nexmark = options.get("connector").is_some_and(|c| c == "nexmark");
        let format = FormatSpec { encode: (!nexmark).then(Encode::csv) };
        let e = validate(&options, &format, Some(&schema(&[("a", Integer)]))).expect_err(&format!("{options:?}"));
        assert_eq!(e.state().0, *state, "{e}");
        assert!(e.message().contains(message), "{message}: {e}");
        assert!(e.hint().unwrap_or_default().contains(hint), "{hint}: {e}");
    }
}

/// FORMAT, ENCODE, options; the SQLSTATE and a part of the whole error.
#[test]
fn refused_formats() {
    let cases: &[(&str, &str, &[(&str, &str)], &str, &str)] = &[
        ("DEBEZIUM", "JSON", &[], "0A000", "FORMAT DEBEZIUM"),
        ("PLAIN", "avro", &[], "0A000", "CSV, JSON, PARQUET"),
        ("PLAIN", "CSV", &[("quote", "'")], "42601", "header, delimiter, null"),
        ("PLAIN", "JSON", &[("header", "true")], "42601", "it has no options"),
        ("PLAIN", "CSV", &[("delimiter", "||")], "22023", "one ASCII character"),
        ("PLAIN", "CSV", &[("header", "x")], "22023", "'true' or 'false'"),
    ];
    for (format, encode, options, state, text) in cases {
        let e = FormatSpec::new(format, encode, &map(options)).unwrap_err();
        assert_eq!(e.state().0, *state, "{e}");
        assert!(e.to_string().contains(text), "{text}: {e}");
    }
    let csv = FormatSpec::new("plain", "csv", &map(&[("header", "off"), ("delimiter", "\\t"), ("null", "NA")])).unwrap();
    assert_eq!(csv.encode, Some(Encode::Csv { header: false, delimiter: b'\t', null: "NA".into() }));
}

#[test]
fn the_format_may_follow_from_the_name() {
    let dir = Dir::new(&[("a.csv", "a\n1\n"), ("a.dat", "a\n1\n")]);
    let valid = |name: &str| {
        let options = map(&[("connector", "file"), ("path", &dir.path(name).display().to_string())]);
        validate(&options, &FormatSpec::default(), Some(&schema(&[("a", Integer)])))
    };
    valid("a.csv").unwrap();
    let e = valid("a.dat").unwrap_err();
    assert!(e.hint().unwrap().contains("ENCODE CSV"), "{e}");
}

#[test]
fn what_ends() {
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[("connector", "file"), ("path", "x")], true),
        (&[("connector", "file"), ("path", "x"), ("follow", "false")], true),
        (&[("connector", "file"), ("path", "x"), ("follow", "true")], false),
        (&[("connector", "nexmark"), ("events", "5")], true),
        (&[("connector", "nexmark")], false),
        (&[("connector", "kafka")], false),
    ];
    for (options, bounded) in cases {
        assert_eq!(is_bounded(&map(options)), *bounded, "{options:?}");
    }
}
