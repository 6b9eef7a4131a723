use millpond_common::SqlType::{self, *};
use millpond_connect::Encode;

use proptest::prelude::*;

use crate::support::{Dir, Source, all, numeric};

fn json(text: &str, columns: &[(&str, SqlType)]) -> (Dir, Source) {
    let dir = Dir::new(&[("a.jsonl", text)]);
    let source = Source::file(&dir, "a.jsonl", Encode::Json, columns);
    (dir, source)
}

#[test]
fn keys_are_columns() {
    let text = "{\"id\": 1, \"userName\": \"ann\", \"other\": {\"deep\": [1, {\"x\": \"}\"}]}}\n\
                {\"userName\": \"b\\u00f6b \\\"\\n\", \"id\": 2}\r\n\
                \n  { }  \n{\"id\":null,\"id\":4}";
    let (_dir, source) = json(text, &[("id", Integer), ("username", Text)]);
    assert_eq!(source.rows(), ["1|ann", "2|böb \"\n", "∅|∅", "4|∅"]);
    assert_eq!(source.columns(&[1]), ["ann", "böb \"\n", "∅", "∅"]);
    // a key that is written as the column is wins over one that differs in case
    let (_dir, source) = json("{\"A\":1,\"a\":2}\n{\"a\":3,\"A\":4}\n", &[("a", Integer)]);
    assert_eq!(source.rows(), ["2", "3"]);
}

/// A type, a JSON value, and its value; `!` where there is none.
#[test]
fn values() {
    let cases: &[(SqlType, &str, &str)] = &[
        (Boolean, "true", "true"),
        (Boolean, "\"f\"", "false"),
        (Integer, "-12", "-12"),
        (Integer, "\"12\"", "12"),
        (Integer, "1.5", "!"),
        (Integer, "[1]", "!"),
        (Double, "1e3", "1000.0"),
        (numeric(10, 2), "12.345", "12.35"),
        (numeric(10, 2), "\"12.3\"", "12.30"),
        (Text, "12", "12"),
        (Text, "{\"a\":1}", "{\"a\":1}"),
        (Text, "\"\"", ""),
        (Jsonb, "{\"a\": [1, \"\\u00e4\"]}", "{\"a\": [1, \"\\u00e4\"]}"),
        (Jsonb, "\"text\"", "\"text\""),
        (Timestamp, "\"2024-01-02T03:04:05.678Z\"", "2024-01-02T03:04:05.678"),
        (TimestampTz, "\"2024-01-02T03:04:05+01:00\"", "2024-01-02T02:04:05Z"),
        (Timestamp, "1704164645", "!"),
        (Array(Box::new(Integer)), "[1, null, \"3\"]", "[1, ∅, 3]"),
        (Array(Box::new(Integer)), "[]", "[]"),
        (Array(Box::new(Integer)), "\"{1,2}\"", "[1, 2]"),
        (Array(Box::new(Integer)), "[1, \"x\"]", "!"),
        (Array(Box::new(Array(Box::new(Text)))), "[[\"a\"], [], null]", "[[a], [], ∅]"),
        (Uuid, "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (Bytea, "\"\\\\x00ff\"", "00ff"),
        (Integer, "01", "!"),
        (Text, "tru", "!"),
        (Text, "\"\\x\"", "!"),
        (Text, "\"open", "!"),
    ];
    for (sql_type, value, expected) in cases {
        let (_dir, source) =
            json(&format!("{{\"w\":1,\"v\":{value}}}\n{{\"v\":null,\"w\":2}}\n"), &[("v", sql_type.clone()), ("w", Integer)]);
        let name = format!("{} from {value}", sql_type.name());
        if *expected == "!" {
            assert_eq!(source.error().state().0, "22P02", "{name}");
            let read = all(source.with("on_error", "skip").open(None).unwrap().as_mut()).unwrap();
            assert_eq!((read.rows, read.bad_rows), (vec!["∅|2".to_string()], 1), "{name}");
        } else {
            assert_eq!(source.rows(), [format!("{expected}|1"), "∅|2".to_string()], "{name}");
        }
    }
}

#[test]
fn lines_that_are_no_objects() {
    for line in ["[1]", "1", "{\"a\":1", "{\"a\":1}}", "{\"a\" 1}", "{a:1}", "{\"a\":1,}", "{\"b\":\"\u{1}\"}", &"[".repeat(100_000)] {
        let (_dir, source) = json(&format!("{{\"a\":0}}\n{line}\n"), &[("a", Integer)]);
        let e = source.error();
        assert!(e.message().starts_with("invalid JSON object"), "{line}: {e}");
        assert!(e.detail().unwrap().contains("line 2"), "{e}");
    }
}

/// Lines that are nearly objects, or are ones: members from a few keys and values, of which some are broken.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "\"a\"",
        "\"a\" ",
        "\"\\u0061\"",
        "\"a name of many more bytes\"",
        "\"a name of many more things\"",
        "\"ab\"",
        "a",
    ]);
    let value = prop::sample::select(vec![
        "\"\"",
        "\"x\"",
        "\"a quote \\\" and \\\\\"",
        "\"\\\\\"",
        "\"\\\"",
        "\"tab\t\"",
        "\"öä\"",
        "\"open",
        "12",
        "-3",
        "01",
        "1.5",
        "true",
        "null",
        "{}",
        "[1,\"]\"]",
        " 7 ",
        "",
        "\"long enough for a few blocks of bytes, and then some more of them\"",
    ]);
    let colon = prop::sample::select(vec![":", ": ", ":", ":", ""]);
    let end = prop::sample::select(vec!["}", "} ", "}", "}", "}}", ""]);
    (prop::collection::vec((key, colon, value), 0..5), end).prop_map(|(members, end)| {
        format!("{{{}{end}", members.iter().map(|(k, c, v)| [*k, *c, *v].concat()).collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// What a library takes for objects are rows, with its values, and nothing else is.
    #[test]
    fn objects_are_what_the_grammar_says(lines in prop::collection::vec(line(), 1..6)) {
        let names = ["a", "a name of many more bytes"];
        let parsed = lines.iter().filter_map(|l| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(l).ok());
        let shown = |value: Option<&serde_json::Value>| match value {
            None | Some(serde_json::Value::Null) => "∅".to_string(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let expected = parsed.map(|row| names.map(|name| shown(row.get(name))).join("|")).collect::<Vec<_>>();
        let (_dir, source) = json(&lines.join("\n"), &names.map(|name| (name, Text)));
        let read = all(source.with("on_error", "skip").open(None).unwrap().as_mut()).unwrap();
        prop_assert_eq!(read.bad_rows as usize, lines.len() - expected.len());
        prop_assert_eq!(read.rows, expected);
    }
}
