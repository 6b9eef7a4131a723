use millpond_common::SqlType::{self, *};
use millpond_connect::Encode;

use crate::support::{Dir, Source, all, numeric};

fn csv(text: &str, columns: &[(&str, SqlType)]) -> (Dir, Source) {
    let dir = Dir::new(&[("a.csv", text)]);
    let source = Source::file(&dir, "a.csv", Encode::csv(), columns);
    (dir, source)
}

#[test]
fn columns_are_found_by_the_header() {
    let text = "b,extra,A\r\nx,1,10\r\ny,2,20\r\n";
    let (_dir, source) = csv(text, &[("a", Integer), ("b", Text)]);
    assert_eq!(source.rows(), ["10|x", "20|y"]);
    assert_eq!(source.columns(&[1]), ["x", "y"]);
    assert_eq!(source.columns(&[1, 0, 1]), ["x|10|x", "y|20|y"]);
    assert_eq!(source.columns(&[]), ["", ""]);
    source.validate().unwrap();
    let (_dir, source) = csv(text, &[("c", Integer)]);
    let e = source.validate().unwrap_err();
    assert_eq!(e.state().0, "42703");
    assert!(e.message().contains("no column \"c\"") && e.detail().unwrap().contains("b, extra, A"), "{e}");
}

/// Text of the file's records after the header `a,b`, and the rows.
#[test]
fn records() {
    let cases: &[(&str, &[&str])] = &[
        ("1,x\n2,y\n", &["1|x", "2|y"]),
        ("1,x\n2,y", &["1|x", "2|y"]), // no line end at the end of the file
        ("1,x\r\n2,y\r\n", &["1|x", "2|y"]),
        ("1,x\n\n\r\n2,y\n\n", &["1|x", "2|y"]), // blank lines
        (",\n", &["∅|∅"]),
        (",\"\"\n", &["∅|"]), // a quoted empty text is not NULL
        ("1,\"a,b\"\n", &["1|a,b"]),
        ("\"1\",\"say \"\"hi\"\"\"\n", &["1|say \"hi\""]),
        ("1,\"\"\"\"\n", &["1|\""]),
        ("1,\"two\nlines\"\n2,\"two\r\nlines\"\r\n", &["1|two\nlines", "2|two\r\nlines"]),
        ("1,5\" pipe\n", &["1|5\" pipe"]), // a quote inside an unquoted field is a quote
        ("1, x \n", &["1| x "]),
        ("1,größer\n", &["1|größer"]),
        ("", &[]),
    ];
    for (text, rows) in cases {
        let (_dir, source) = csv(&format!("a,b\n{text}"), &[("a", Integer), ("b", Text)]);
        assert_eq!(source.rows(), *rows, "{text:?}");
        let (_dir, source) = csv(&format!("\u{feff}a,b\n{text}"), &[("a", Integer), ("b", Text)]);
        assert_eq!(source.rows(), *rows, "with byte order mark: {text:?}");
    }
}

#[test]
fn other_delimiters_nulls_and_no_header() {
    let dir = Dir::new(&[("a.txt", "1\t\\N\n\\N\t\n")]);
    let encode = Encode::Csv { header: false, delimiter: b'\t', null: "\\N".into() };
    let source = Source::file(&dir, "a.txt", encode, &[("a", Integer), ("b", Text)]);
    assert_eq!(source.rows(), ["1|∅", "∅|"]);
    let dir = Dir::new(&[("one.csv", "a\n1\n\n3\n")]);
    assert_eq!(Source::file(&dir, "one.csv", Encode::csv(), &[("a", Integer)]).rows(), ["1", "∅", "3"]);
    let dir = Dir::new(&[("empty.csv", ""), ("head.csv", "a")]);
    assert_eq!(Source::file(&dir, "*.csv", Encode::csv(), &[("a", Integer)]).rows(), [""; 0]);
}

/// A type, a text, and its value as Arrow shows it; `!` and a SQLSTATE where there is none.
#[test]
fn values_of_every_type() {
    let cases: &[(SqlType, &str, &str)] = &[
        (Boolean, "t", "true"),
        (Boolean, "FALSE", "false"),
        (Boolean, "yes", "true"),
        (Boolean, "Of", "false"),
        (Boolean, "o", "!22P02"),
        (SmallInt, "-32768", "-32768"),
        (SmallInt, "32768", "!22003"),
        (Integer, " 42 ", "42"),
        (Integer, "+7", "7"),
        (Integer, "1.5", "!22P02"),
        (Integer, "-", "!22P02"),
        (BigInt, "-9223372036854775808", "-9223372036854775808"),
        (BigInt, "9223372036854775808", "!22003"),
        (BigInt, "99999999999999999999999", "!22003"),
        (Real, "1.5", "1.5"),
        (Real, "1e39", "!22003"),
        (Double, "-1e-3", "-0.001"),
        (Double, "NaN", "NaN"),
        (Double, "Infinity", "inf"),
        (Double, "1e400", "!22003"),
        (numeric(12, 2), "1234567890.12", "1234567890.12"),
        (numeric(12, 2), "-.005", "-0.01"),
        (numeric(12, 2), "0.0049", "0.00"),
        (numeric(12, 2), "7", "7.00"),
        (numeric(12, 2), "1.5e3", "1500.00"),
        (numeric(12, 2), "15e-4", "0.00"),
        (numeric(12, 2), "15e-1", "1.50"),
        (numeric(12, 2), "12345678901", "!22003"),
        (numeric(12, 2), "9999999999.995", "!22003"),
        (numeric(12, 2), "1.2.3", "!22P02"),
        (numeric(12, 2), "abc", "!22P02"),
        (numeric(12, 2), ".", "!22P02"),
        (numeric(38, 10), "1e400", "!22003"),
        (numeric(38, 10), "0e400", "0.0000000000"),
        (Text, "any\tthing", "any\tthing"),
        (Varchar(Some(3)), "abc", "abc"),
        (Varchar(Some(3)), "äöü  ", "äöü"),
        (Varchar(Some(3)), "abcd", "!22001"),
        (Bytea, "\\xDEadbeef", "deadbeef"),
        (Bytea, "a\\\\\\001", "615c01"),
        (Bytea, "\\xabc", "!22P02"),
        (Date, "2024-02-29", "2024-02-29"),
        (Date, "20240229", "2024-02-29"),
        (Date, "2024/2/9", "2024-02-09"),
        (Date, "1969-12-31", "1969-12-31"),
        (Date, "2023-02-29", "!22008"),
        (Date, "yesterday", "!22P02"),
        (Time, "23:59:59.5", "23:59:59.500"),
        (Time, "08:30", "08:30:00"),
        (Time, "25:00", "!22008"),
        (Timestamp, "2024-02-29 23:59:59.123456", "2024-02-29T23:59:59.123456"),
        (Timestamp, "2024-02-29T23:59:59Z", "2024-02-29T23:59:59"),
        (Timestamp, "2024-02-29 10:00:00+02", "2024-02-29T10:00:00"), // the zone is dropped, as PostgreSQL does
        (Timestamp, "2024-02-29", "2024-02-29T00:00:00"),
        (Timestamp, "1969-12-31 23:59:59.9999999", "1970-01-01T00:00:00"),
        (Timestamp, "1900-03-01 00:00", "1900-03-01T00:00:00"),
        (Timestamp, "2024-01-01 24:00:00", "2024-01-02T00:00:00"),
        (Timestamp, "2024-13-01 00:00:00", "!22008"),
        (Timestamp, "2024-01-01 10:00:00 Mars", "!22P02"),
        (TimestampTz, "2024-02-29 10:00:00+02", "2024-02-29T08:00:00Z"),
        (TimestampTz, "2024-02-29T10:00:00-05:30", "2024-02-29T15:30:00Z"),
        (TimestampTz, "2024-02-29 10:00:00+0530", "2024-02-29T04:30:00Z"),
        (TimestampTz, "2024-02-29 10:00:00 UTC", "2024-02-29T10:00:00Z"),
        (TimestampTz, "2024-02-29 10:00:00", "2024-02-29T10:00:00Z"),
        (Interval, "1 day 02:03:04", "1 days 2 hours 3 mins 4.000000000 secs"),
        (Interval, "1 year 2 mons", "14 mons"),
        (Interval, "P1Y2M3DT4H5M6.5S", "14 mons 3 days 4 hours 5 mins 6.500000000 secs"),
        (Interval, "-1 mon 2.5d ago", "1 mons -2 days -12 hours"),
        (Interval, "@ 1h30m 15", "1 hours 30 mins 15.000000000 secs"),
        (Interval, "1 day -00:00:00.25", "1 days -0.250000000 secs"),
        (Interval, "0.5 month", "15 days"),
        (Interval, "1 day 1:99", "!22P02"),
        (Interval, "1 parsec", "!22P02"),
        (Interval, "999999999999 days", "!22P02"),
        (Interval, "soon", "!22P02"),
        (Uuid, "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (Uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (Uuid, "a0eebc99", "!22P02"),
        (Jsonb, "{\"a\": [1, 2.5e3, \"ä\", null]}", "{\"a\": [1, 2.5e3, \"ä\", null]}"),
        (Json, "{\"a\": 01}", "!22P02"),
        (Json, "{\"a\": 1", "!22P02"),
        (Array(Box::new(Integer)), "{1,NULL, 3}", "[1, ∅, 3]"),
        (Array(Box::new(Integer)), "{}", "[]"),
        (Array(Box::new(Text)), "{\"a,b\",\"say \\\"hi\\\"\",c d,\"\"}", "[a,b, say \"hi\", c d, ]"),
        (Array(Box::new(Integer)), "{1,x}", "!22P02"),
        (Array(Box::new(Integer)), "1,2", "!22P02"),
        (Array(Box::new(Array(Box::new(Integer)))), "{{1,2},{}}", "[[1, 2], []]"),
    ];
    for (sql_type, text, expected) in cases {
        let quoted = text.replace('"', "\"\"");
        let (_dir, source) = csv(&format!("v,w\n\"{quoted}\",1\n,2\n"), &[("v", sql_type.clone()), ("w", Integer)]);
        let name = format!("{} from {text:?}", sql_type.name());
        match expected.strip_prefix('!') {
            None => assert_eq!(source.rows(), [format!("{expected}|1"), "∅|2".to_string()], "{name}"),
            Some(state) => {
                assert_eq!(source.error().state().0, state, "{name}");
                let read = all(source.with("on_error", "skip").open(None).unwrap().as_mut()).unwrap();
                assert_eq!((read.rows, read.bad_rows), (vec!["∅|2".to_string()], 1), "{name}");
            }
        }
    }
}

#[test]
fn a_bad_value_names_its_place() {
    let (_dir, source) = csv("id,amount\n1,\"2\n\"\n2,1.50\n3,abc\n", &[("id", BigInt), ("amount", numeric(12, 2))]);
    let e = source.error();
    assert_eq!(e.state().0, "22P02");
    assert_eq!(e.message(), "invalid input syntax for type numeric: \"abc\"");
    let detail = e.detail().unwrap();
    assert!(detail.contains("a.csv\", line 5, column \"amount\""), "{detail}");
    assert!(e.hint().unwrap().contains("on_error"), "{e}");
}

/// Records that are bad as a whole: header `a,b`.
#[test]
fn malformed_records() {
    let cases: &[(&str, &str)] = &[
        ("1\n2,y\n", "1 fields where 2"),
        ("1,x,\n2,y\n", "3 fields where 2"),
        ("1,\"x\"z\n2,y\n", "closing quote"),
        ("1,\u{0}\n2,y\n", "UTF-8"),
        ("2,y\n1,\"never closed\n3,z\n", "not closed"),
    ];
    for (text, reason) in cases {
        let (_dir, source) = csv(&format!("a,b\n{text}"), &[("a", Integer), ("b", Text)]);
        let e = source.error();
        assert!(e.message().contains(reason), "{text:?}: {e}");
        let read = all(source.with("on_error", "skip").open(None).unwrap().as_mut()).unwrap();
        assert_eq!((read.rows, read.bad_rows), (vec!["2|y".to_string()], 1), "{text:?}");
    }
}

#[test]
fn which_rows_are_skipped_does_not_depend_on_the_columns_read() {
    let text = "id,amount\n1,1\n2,x\n,3\n4,4\n";
    let dir = Dir::new(&[("a.csv", text)]);
    let mut source = Source::file(&dir, "a.csv", Encode::csv(), &[]).with("on_error", "skip");
    let fields = vec![BigInt.field("id", false), Integer.field("amount", true)];
    source.schema = std::sync::Arc::new(arrow_schema::Schema::new(fields));
    assert_eq!(source.rows(), ["1|1", "4|4"]);
    assert_eq!(source.columns(&[0]), ["1", "4"]);
    assert_eq!(source.columns(&[]), ["", ""]);
    let source = source.with("on_error", "fail");
    assert_eq!(source.error().state().0, "22P02");
    let e = all(source.open_columns(&[0], None).unwrap().as_mut()).err().unwrap();
    assert_eq!(e.state().0, "23502", "{e}");
}

#[test]
fn quoted_line_ends_at_block_borders() {
    // records of every length around the block size, with line ends and quotes inside
    let mut text = "n,t\n".to_string();
    let mut expected = vec![];
    for n in 0..60_000 {
        let inner = "\n\"".repeat(n % 7) + &"x".repeat(n % 41);
        text += &format!("{n},\"{}\"\n", inner.replace('"', "\"\""));
        expected.push(format!("{n}|{inner}"));
    }
    assert!(text.len() > 2 << 20);
    let (_dir, source) = csv(&text, &[("n", Integer), ("t", Text)]);
    assert!(source.rows() == expected);
    // one record larger than a block
    let large = "y\n".repeat(900_000);
    let (_dir, source) = csv(&format!("n,t\n1,\"{large}\"\n2,z\n"), &[("n", Integer), ("t", Text)]);
    assert!(source.rows() == [format!("1|{large}"), "2|z".to_string()]);
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let dir = Dir::new(&[("b.csv", "a\n3\n"), ("a2.csv", "a\n2\n"), ("a10.csv", "a\n1\n"), (".c.csv", "a\n4\n"), ("d.txt", "a\n5\n")]);
    assert_eq!(Source::file(&dir, "*.csv", Encode::csv(), &[("a", Integer)]).rows(), ["1", "2", "3"]);
}
