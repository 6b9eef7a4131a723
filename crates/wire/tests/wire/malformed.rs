//! Clients that do not speak the protocol: each ends its own connection, never the server, and never another's.

use std::time::Duration;

use millpond_wire::ServeOptions;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fake::{Server, server, server_with};
use crate::raw::{PATIENCE, Raw, STARTUP, SYNC, bind, close, describe, execute, message, parse, query};

async fn lives(server: &Server) {
    let mut raw = Raw::new(server).await;
    assert_eq!(raw.ask(&query("insert 1")).await, ["C INSERT 0 1", "Z I"]);
}

#[tokio::test]
async fn malformed_frames_are_fatal() {
    let server = server().await;
    let with_length = |kind: u8, length: u32, body: &[u8]| [&[kind][..], &length.to_be_bytes(), body].concat();
    let bad = [
        with_length(b'p', 0, b""),
        with_length(b'p', 3, b""),
        with_length(b'p', 9, b"pass\0"),
        with_length(b'P', 4, b""),
        with_length(b'P', 6, b"\0\0"),
        with_length(b'B', 4, b""),
        with_length(b'B', 8, b"\0\0\0\x01"),
        with_length(b'B', 13, b"\0\0\0\0\xff\xff\0\0\0"),
        with_length(b'E', 4, b""),
        with_length(b'E', 6, b"\0\0"),
        with_length(b'E', 9, b"abcde"),
        with_length(b'd', 1, b""),
        with_length(b'd', 3, b""),
        with_length(b'Q', 0, b""),
        with_length(b'Q', 4, b""),
        with_length(b'Q', 12, b"rows 100"),
        with_length(b'Q', u32::MAX, b""),
        with_length(b'Q', i32::MAX as u32, b""),
        with_length(b'S', 5, b"\0"),
        with_length(b'X', 400, b""),
        with_length(b'D', 6, b"X\0"),
        with_length(b'C', 20_000, b""),
        // A message inside a message: what its length cuts off is no statement.
        with_length(b'Q', 15, b"rows 1\0Q\0\0\0"),
        vec![0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in bad {
        let mut raw = Raw::new(&server).await;
        raw.send(&bytes).await;
        let answer = raw.next_short().await.unwrap_or_default();
        assert!(answer.starts_with("E FATAL 08P01"), "{bytes:?}: {answer}");
        assert!(raw.next().await.is_none(), "{bytes:?}");
    }
    lives(&server).await;
}

#[tokio::test]
async fn malformed_startup_is_fatal() {
    let server = server_with(ServeOptions { startup_timeout: Duration::from_millis(300), ..ServeOptions::default() }).await;
    let bad: [&[u8]; 8] = [
        b"\0\0\0\0",
        b"\0\0\0\x07\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\x27\x11\0\x03\0\0",
        b"\0\0\0\x08\0\x03\0\0",
        b"\0\0\0\x09\0\x03\0\0x",
        b"\x16\x03\x01\x02\0\x01\0",
        b"\0\0\0\x0f\0\x03\0\0user\0\0\0",
    ];
    for bytes in bad {
        let mut raw = Raw::silent(&server).await;
        raw.send(bytes).await;
        let answer = raw.next_short().await.unwrap_or_default();
        assert!(answer.starts_with("E FATAL"), "{bytes:?}: {answer}");
        assert!(raw.next().await.is_none());
    }
    let mut raw = Raw::silent(&server).await;
    raw.send(b"\0\0\0\x15\0\x02\0\0user\0tester\0\0").await;
    assert!(raw.next_short().await.unwrap().contains("0A000 unsupported frontend protocol 2.0"));
    // Too slow: closed without a word.
    let mut raw = Raw::silent(&server).await;
    raw.send(&STARTUP[..20]).await;
    assert!(raw.next().await.is_none());
    lives(&server).await;
}

/// A session that uses everything, as bytes after the start-up packet.
fn conversation() -> Vec<u8> {
    [
        query("rows 3; insert 2"),
        parse("s", "echo 23 25 1700"),
        describe(b'S', "s"),
        bind("p", "s", &[Some("42"), None, Some("1.5")]),
        describe(b'P', "p"),
        execute("p", 0),
        close(b'P', "p"),
        SYNC.to_vec(),
        query("begin"),
        parse("", "rows 5"),
        message(b'B', &[b"\0\0\0\x01\0\x01\0\0\0\x01\0\x01"]),
        execute("", 2),
        execute("", 0),
        SYNC.to_vec(),
        bind("", "nothing", &[]),
        execute("", 0),
        SYNC.to_vec(),
        query("rollback"),
        message(b'd', &[b"left over"]),
        message(b'X', &[]),
    ]
    .concat()
}

/// Everything that the server says until it closes.
async fn answers(server: &Server, parts: impl IntoIterator<Item = &[u8]>) -> Vec<u8> {
    let mut raw = Raw::new(server).await;
    for part in parts {
        raw.send(part).await;
        tokio::task::yield_now().await;
    }
    let mut all = Vec::new();
    timeout(PATIENCE, raw.stream.read_to_end(&mut all)).await.unwrap().unwrap();
    all
}

#[tokio::test]
async fn however_a_stream_is_split() {
    let server = server().await;
    let bytes = conversation();
    let whole = answers(&server, [&bytes[..]]).await;
    assert!(whole.len() > 500 && whole.ends_with(b"Z\0\0\0\x05I"));
    for at in 1..bytes.len() {
        assert_eq!(answers(&server, [&bytes[..at], &bytes[at..]]).await, whole, "split at {at}");
    }
    assert_eq!(answers(&server, bytes.chunks(1)).await, whole);
    assert_eq!(answers(&server, bytes.chunks(7)).await, whole);
}

/// Damages a stream as noise and bugs would: bytes changed, lengths changed, pieces cut out, doubled, or the end lost.
fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        if bytes.len() < 8 {
            return;
        }
        let at = random.random_range(0..bytes.len() - 4);
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at..at + 4].copy_from_slice(&[[0; 4], [0xff; 4], [0, 0, 0, 4], [0x7f, 0xff, 0xff, 0xff]][random.random_range(0..4)]),
            3 => drop(bytes.drain(at..(at + random.random_range(1..20)).min(bytes.len()))),
            4 => {
                let piece = bytes[at..(at + random.random_range(1..40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
}

async fn hears_damaged(server: &Server, bytes: &[u8], seed: u64) {
    let mut raw = Raw::silent(server).await;
    let (mut read, mut write) = raw.stream.split();
    let talk = async {
        // The server may close at any time: errors of the socket are fine, silence is not.
        let _ = write.write_all(bytes).await;
        let _ = write.shutdown().await;
    };
    let listen = async {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
    };
    let done = timeout(PATIENCE, async { tokio::join!(talk, listen) }).await;
    assert!(done.is_ok(), "the server neither answers nor closes: seed {seed}, {bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_streams() {
    let server = server().await;
    let whole = [STARTUP, &conversation()].concat();
    let rounds: u64 = std::env::var("MILLPOND_WIRE_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    for seed in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        if seed % 4 != 0 {
            // Mostly behind the start-up packet, so that a session hears it.
            let mut tail = bytes.split_off(STARTUP.len());
            damage(&mut tail, &mut random);
            bytes.extend(tail);
        } else {
            damage(&mut bytes, &mut random);
        }
        hears_damaged(&server, &bytes, seed).await;
        if seed % 500 == 0 {
            lives(&server).await;
        }
    }
    lives(&server).await;
    assert!(!server.task.is_finished());
}

#[tokio::test]
async fn a_large_statement_fits_and_a_larger_one_does_not() {
    let server = server_with(ServeOptions { message_bytes_max: 1 << 20, ..ServeOptions::default() }).await;
    let mut raw = Raw::new(&server).await;
    let sql = format!("insert 1 {}", "x".repeat((1 << 20) - 20));
    assert_eq!(raw.ask(&query(&sql)).await, ["C INSERT 0 1", "Z I"]);
    raw.send(&query(&sql.repeat(2))[..100]).await;
    assert!(raw.next_short().await.unwrap().starts_with("E FATAL 08P01 invalid message length"));
}
