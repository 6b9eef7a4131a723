//! Simple and extended queries, as their messages go back and forth.

use crate::fake::server;
use crate::raw::{FLUSH, Raw, SYNC, bind, close, describe, execute, message, parse, query};

#[tokio::test]
async fn greeting() {
    let server = server().await;
    let mut raw = Raw::silent(&server).await;
    raw.send(b"\0\0\0\x08\x04\xd2\x16\x2f").await;
    let mut answer = [0];
    tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut answer).await.unwrap();
    assert_eq!(&answer, b"N");
    let greeting = raw.ask(crate::raw::STARTUP).await;
    assert_eq!(greeting[0], "R");
    for status in [
        "S server_version=15.0",
        "S client_encoding=UTF8",
        "S DateStyle=ISO, MDY",
        "S integer_datetimes=on",
        "S session_authorization=tester",
    ] {
        assert!(greeting.iter().any(|m| m == status), "{status} in {greeting:?}");
    }
    assert_eq!(&greeting[greeting.len() - 2..], ["K", "Z I"]);
}

#[tokio::test]
async fn simple_queries() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    assert_eq!(raw.ask(&query("rows 2")).await, ["T 2", "D 0|row 0", "D 1|row 1", "C SELECT 2", "Z I"]);
    assert_eq!(raw.ask(&query(" ; ")).await, ["I", "Z I"]);
    assert_eq!(
        raw.ask(&query("insert 3; rows 1; insert 2")).await,
        ["C INSERT 0 3", "T 2", "D 0|row 0", "C SELECT 1", "C INSERT 0 2", "Z I"]
    );
    assert_eq!(raw.ask(&query("set timezone UTC")).await, ["C SET", "S TimeZone=UTC", "Z I"]);
    assert_eq!(raw.ask(&query("nonsense")).await, ["E ERROR 42601 syntax error at or near \"nonsense\"", "Z I"]);
    let log = raw.ask(&query("log")).await;
    assert_eq!(
        &log[1..log.len() - 2],
        [
            "D rows",
            "D finish",
            "D finish",
            "D insert in block",
            "D rows in block",
            "D insert in block",
            "D finish",
            "D set",
            "D finish",
            "D undo"
        ]
    );
}

#[tokio::test]
async fn an_error_ends_a_simple_query() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let error = "E ERROR 23505 duplicate key value violates unique constraint \"k\"";
    assert_eq!(raw.ask(&query("insert 1; fail; insert 2")).await, ["C INSERT 0 1", error, "Z I"]);
    assert_eq!(raw.ask(&query("fail_rows 1")).await, ["T 2", "D 0|row 0", "E ERROR 22012 division by zero", "Z I"]);
    assert_eq!(raw.ask(&query("insert 1; fail_commit")).await, ["C INSERT 0 1", "E ERROR 40001 could not serialize access", "Z I"]);
    assert_eq!(raw.ask(&query("begin; insert 1; fail")).await, ["C BEGIN", "C INSERT 0 1", error, "Z E"]);
    assert!(raw.ask(&query("insert 1")).await[0].contains("25P02"));
    assert_eq!(raw.ask(&query("rollback")).await, ["C ROLLBACK", "Z I"]);
    assert_eq!(raw.ask(&query("begin")).await, ["C BEGIN", "Z T"]);
}

#[tokio::test]
async fn every_error_field() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    raw.send(&query("fail")).await;
    let (kind, body) = raw.next().await.unwrap();
    let fields = "SERROR\0VERROR\0C23505\0Mduplicate key value violates unique constraint \"k\"\0DKey (a)=(1) already exists.\0HUse another key.\0P7\0nk\0\0";
    assert_eq!((kind, String::from_utf8(body).unwrap().as_str()), (b'E', fields));
}

#[tokio::test]
async fn parse_bind_describe_execute() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let bytes = [
        parse("s", "echo 23 25"),
        describe(b'S', "s"),
        bind("p", "s", &[Some("42"), None]),
        describe(b'P', "p"),
        execute("p", 0),
        close(b'P', "p"),
        close(b'S', "s"),
        close(b'S', "never was"),
        SYNC.to_vec(),
    ];
    assert_eq!(raw.ask(&bytes.concat()).await, ["1", "t [23, 25]", "T 2", "2", "T 2", "D 42|NULL", "C SELECT 1", "3", "3", "3", "Z I"]);
    let bytes = [parse("", "insert 5"), describe(b'S', ""), bind("", "", &[]), describe(b'P', ""), execute("", 0), SYNC.to_vec()];
    assert_eq!(raw.ask(&bytes.concat()).await, ["1", "t []", "n", "2", "n", "C INSERT 0 5", "Z I"]);
    let bytes = [parse("", ""), bind("", "", &[]), execute("", 0), SYNC.to_vec()];
    assert_eq!(raw.ask(&bytes.concat()).await, ["1", "2", "I", "Z I"]);
}

#[tokio::test]
async fn portals_are_suspended_and_resumed() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let start = [parse("", "rows 5 2"), bind("", "", &[]), execute("", 2), execute("", 2), execute("", 2), execute("", 2), SYNC.to_vec()];
    assert_eq!(
        raw.ask(&start.concat()).await,
        ["1", "2", "D 0|row 0", "D 1|row 1", "s", "D 2|row 2", "D 3|row 3", "s", "D 4|row 4", "C SELECT 1", "C SELECT 0", "Z I"]
    );
    // As many rows as there are: not known to be complete.
    assert_eq!(
        raw.ask(&[parse("", "rows 2"), bind("", "", &[]), execute("", 2), execute("", 2), SYNC.to_vec()].concat()).await,
        ["1", "2", "D 0|row 0", "D 1|row 1", "s", "C SELECT 0", "Z I"]
    );
    // In a transaction portals survive Sync, and end with it.
    assert_eq!(raw.ask(&query("begin")).await, ["C BEGIN", "Z T"]);
    assert_eq!(
        raw.ask(&[parse("r", "rows 3"), bind("p", "r", &[]), execute("p", 1), SYNC.to_vec()].concat()).await,
        ["1", "2", "D 0|row 0", "s", "Z T"]
    );
    assert_eq!(raw.ask(&[execute("p", 1), SYNC.to_vec()].concat()).await, ["D 1|row 1", "s", "Z T"]);
    assert_eq!(raw.ask(&query("commit")).await, ["C COMMIT", "Z I"]);
    assert_eq!(raw.ask(&[execute("p", 1), SYNC.to_vec()].concat()).await, ["E ERROR 34000 portal \"p\" does not exist", "Z I"]);
    // Outside of one they end with Sync.
    assert_eq!(raw.ask(&[bind("p", "r", &[]), execute("p", 1), SYNC.to_vec()].concat()).await, ["2", "D 0|row 0", "s", "Z I"]);
    assert_eq!(raw.ask(&[execute("p", 1), SYNC.to_vec()].concat()).await, ["E ERROR 34000 portal \"p\" does not exist", "Z I"]);
    // A command cannot be run twice.
    let twice = [parse("", "insert 1"), bind("", "", &[]), execute("", 0), execute("", 0), SYNC.to_vec()];
    assert_eq!(raw.ask(&twice.concat()).await, ["1", "2", "C INSERT 0 1", "E ERROR 55000 portal \"\" cannot be run", "Z I"]);
}

#[tokio::test]
async fn an_error_skips_up_to_sync() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let bytes = [parse("", "nonsense"), bind("", "", &[]), execute("", 0), query("insert 1"), message(b'd', &[b"x"]), SYNC.to_vec()];
    assert_eq!(raw.ask(&bytes.concat()).await, ["E ERROR 42601 syntax error at or near \"nonsense\"", "Z I"]);
    let bytes =
        [parse("", "insert 1"), bind("", "", &[]), execute("", 0), parse("", "fail"), bind("", "", &[]), execute("", 0), SYNC.to_vec()];
    let answer = raw.ask(&bytes.concat()).await;
    assert_eq!(answer[..5], ["1", "2", "C INSERT 0 1", "1", "2"]);
    assert!(answer[5].starts_with("E ERROR 23505") && answer[6] == "Z I", "{answer:?}");
    let log = raw.ask(&query("log")).await;
    assert_eq!(&log[1..log.len() - 2], ["D undo", "D insert in block", "D fail in block", "D undo"]);
    // The error is told without a Sync.
    raw.send(&execute("nothing", 0)).await;
    assert_eq!(raw.next_short().await.unwrap(), "E ERROR 34000 portal \"nothing\" does not exist");
    assert_eq!(raw.ask(SYNC).await, ["Z I"]);
    assert_eq!(raw.ask(&query("begin")).await, ["C BEGIN", "Z T"]);
    assert_eq!(raw.ask(&[execute("nothing", 0), SYNC.to_vec()].concat()).await.last().unwrap(), "Z E");
}

#[tokio::test]
async fn a_statement_alone_is_told_from_a_pipeline() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    raw.ask(&[one("insert 1"), SYNC.to_vec()].concat()).await;
    raw.ask(&[one("insert 1"), one("rows 1"), SYNC.to_vec()].concat()).await;
    raw.send(&[one("insert 1"), FLUSH.to_vec()].concat()).await;
    for expected in ["1", "2", "C INSERT 0 1"] {
        assert_eq!(raw.next_short().await.unwrap(), expected);
    }
    raw.ask(SYNC).await;
    let log = raw.ask(&query("log")).await;
    assert_eq!(
        &log[1..log.len() - 2],
        ["D insert", "D finish", "D insert in block", "D rows in block", "D finish", "D insert in block", "D finish"]
    );
    // A commit that fails at Sync is an error, too.
    assert_eq!(raw.ask(&[one("fail_commit"), SYNC.to_vec()].concat()).await[3..], ["E ERROR 40001 could not serialize access", "Z I"]);
}

#[tokio::test]
async fn names_and_counts_are_checked() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    let with_sync = |parts: &[Vec<u8>]| [parts.concat(), SYNC.to_vec()].concat();
    let formats = |formats: &[u8]| message(b'B', &[b"\0e\0", formats, b"\0\x01\0\0\0\x011", b"\0\0"]);
    let results = |formats: &[u8]| message(b'B', &[b"\0e\0\0\0\0\x01\0\0\0\x011", formats]);
    assert_eq!(raw.ask(&with_sync(&[parse("e", "echo 23")])).await, ["1", "Z I"]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (parse("e", "rows 1"), "42P05"),
        (bind("", "unknown", &[]), "26000"),
        (describe(b'S', "unknown"), "26000"),
        (describe(b'P', "unknown"), "34000"),
        (execute("unknown", 0), "34000"),
        ([bind("p", "e", &[Some("1")]), bind("p", "e", &[Some("1")])].concat(), "42P03"),
        (bind("", "e", &[]), "08P01"),
        (bind("", "e", &[Some("1"), Some("2")]), "08P01"),
        (bind("", "e", &[Some("abc")]), "22P02"),
        (bind("", "e", &[Some("99999999999")]), "22003"),
        (formats(b"\0\x02\0\0\0\0"), "08P01"),
        (formats(b"\0\x01\0\x07"), "22023"),
        (formats(b"\0\x01\0\x01"), "22P03"),
        (results(b"\0\x02\0\0\0\0"), "08P01"),
        (results(b"\0\x01\0\x02"), "22023"),
        (message(b'P', &[b"t\0echo 23\0\0\x01\0\0\xff\xff"]), "42704"),
        (message(b'P', &[b"\0rows \xff\0\0\0"]), "22021"),
        (message(b'B', &[b"\0e\0\0\0\0\x01\0\0\0\x01\xff\0\0"]), "22021"),
    ];
    for (bytes, state) in cases {
        let answer = raw.ask(&with_sync(&[bytes])).await;
        assert!(answer.iter().any(|m| m.starts_with(&format!("E ERROR {state} "))), "{state}: {answer:?}");
        assert_eq!(answer.last().unwrap(), "Z I");
    }
    assert_eq!(raw.ask(&query("rows \u{fffd}").iter().map(|b| if *b == 0xef { 0xff } else { *b }).collect::<Vec<_>>()).await[1..], ["Z I"]);
    // One format for all, and one for each.
    for format in [&b"\0\x01\0\x01"[..], &b"\0\x02\0\x01\0\x00"[..]] {
        raw.send(&with_sync(&[parse("", "rows 1"), message(b'B', &[b"\0\0\0\0\0\0", format]), execute("", 0)])).await;
        raw.next().await;
        raw.next().await;
        assert_eq!(raw.next().await.unwrap().1, b"\0\x02\0\0\0\x04\0\0\0\0\0\0\0\x05row 0");
        raw.until_ready().await;
    }
}

#[tokio::test]
async fn what_has_no_meaning_here() {
    let server = server().await;
    let mut raw = Raw::new(&server).await;
    raw.send(&[message(b'd', &[b"data"]), message(b'c', &[]), message(b'f', &[b"why\0"])].concat()).await;
    assert_eq!(raw.ask(&query("insert 1")).await, ["C INSERT 0 1", "Z I"]);
    let call = raw.ask(&message(b'F', &[b"\0\0\0\x01\0\0\0\0\0\0"])).await;
    assert_eq!(call, ["E ERROR 0A000 function calls by the protocol are not supported", "Z I"]);
    // A simple query ends the unnamed statement.
    raw.ask(&[parse("", "rows 1"), SYNC.to_vec()].concat()).await;
    raw.ask(&query("insert 1")).await;
    assert!(raw.ask(&[bind("", "", &[]), SYNC.to_vec()].concat()).await[0].contains("26000"));
    raw.send(&message(b'X', &[])).await;
    assert!(raw.next().await.is_none());
}
