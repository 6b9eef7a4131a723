//! Sessions among others: cancelling, notices, limits, bugs, slow readers, shutdown.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use millpond_wire::ServeOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::fake::{server, server_with};
use crate::raw::{PATIENCE, Raw, STARTUP, SYNC, bind, execute, parse, query};

#[tokio::test]
async fn a_cancel_request_stops_statements_and_streams() {
    let server = server().await;
    let client = server.client().await;
    for sql in ["sleep", "stuck", "forever"] {
        let token = client.cancel_token();
        let cancel = async {
            sleep(Duration::from_millis(200)).await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (result, ()) = tokio::join!(client.simple_query(sql), cancel);
        assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED), "{sql}");
    }
    // Without a running statement the request is forgotten.
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(client.execute("insert 7", &[]).await.unwrap(), 7);
}

#[tokio::test]
async fn only_the_right_secret_cancels() {
    let server = server().await;
    let mut raw = Raw::silent(&server).await;
    raw.send(STARTUP).await;
    let mut key = Vec::new();
    while let Some((kind, body)) = raw.next().await {
        match kind {
            b'K' => key = body,
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(key.len(), 8);
    raw.send(&query("sleep")).await;
    sleep(Duration::from_millis(100)).await;
    let request = |key: &[u8]| [&(8 + key.len() as u32).to_be_bytes()[..], b"\x04\xd2\x16\x2e", key].concat();
    let mut wrong = key.clone();
    wrong[7] ^= 1;
    for key in [&wrong[..], &key[..7], &[&key[..], b"x"].concat()] {
        let mut other = Raw::silent(&server).await;
        other.send(&request(key)).await;
        assert!(other.next().await.is_none());
    }
    assert!(timeout(Duration::from_millis(300), raw.next()).await.is_err());
    let mut other = Raw::silent(&server).await;
    other.send(&request(&key)).await;
    assert_eq!(raw.until_ready().await, ["E ERROR 57014 canceling statement due to user request", "Z I"]);
}

#[tokio::test]
async fn long_secrets_from_protocol_3_2_on() {
    let server = server().await;
    let mut raw = Raw::silent(&server).await;
    let mut startup = STARTUP.to_vec();
    startup[7] = 9;
    raw.send(&startup).await;
    let (kind, body) = raw.next().await.unwrap();
    assert_eq!((kind, &body[..]), (b'v', &b"\0\x03\0\x02\0\0\0\0"[..]));
    while let Some((kind, body)) = raw.next().await {
        match kind {
            b'K' => assert_eq!(body.len(), 36),
            b'Z' => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_statement() {
    let server = server_with(ServeOptions { connections_max: 1, ..ServeOptions::default() }).await;
    for sql in ["sleep", "stuck", "forever"] {
        let mut raw = Raw::new(&server).await;
        raw.send(&query(sql)).await;
        sleep(Duration::from_millis(100)).await;
        drop(raw);
        // Its place becomes free.
        let free = async {
            loop {
                let mut raw = Raw::silent(&server).await;
                raw.send(STARTUP).await;
                if raw.next_short().await.is_some_and(|m| m == "R") {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, free).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn notices_arrive_while_the_statement_runs() {
    let server = server().await;
    let config = format!("host=127.0.0.1 port={} user=tester dbname=dev", server.address.port());
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    let start = Instant::now();
    let listen = async move {
        let mut arrived = Vec::new();
        while arrived.len() < 2 {
            if let Some(Ok(AsyncMessage::Notice(notice))) = messages.next().await {
                assert_eq!((notice.severity(), notice.detail(), notice.hint()), ("NOTICE", Some("more"), Some("help")));
                arrived.push((notice.message().to_string(), start.elapsed()));
            }
        }
        // The connection is polled on, so that the statement's own answer arrives.
        tokio::spawn(async move { while messages.next().await.is_some() {} });
        arrived
    };
    let (result, arrived) = tokio::join!(client.simple_query("notice"), tokio::spawn(listen));
    result.unwrap();
    let arrived = arrived.unwrap();
    assert_eq!((arrived[0].0.as_str(), arrived[1].0.as_str()), ("first", "second"));
    assert!(start.elapsed() - arrived[0].1 > Duration::from_millis(700), "{arrived:?}");
}

#[tokio::test]
async fn a_bug_ends_one_session() {
    let server = server().await;
    let mut neighbour = Raw::new(&server).await;
    for sql in ["panic", "panic_rows"] {
        let mut raw = Raw::new(&server).await;
        raw.send(&query(sql)).await;
        let mut last = String::new();
        while let Some(message) = raw.next_short().await {
            last = message;
        }
        assert_eq!(last, "E FATAL XX000 the session failed unexpectedly");
    }
    assert_eq!(neighbour.ask(&query("insert 1")).await, ["C INSERT 0 1", "Z I"]);
}

#[tokio::test]
async fn too_many_sessions() {
    let server = server_with(ServeOptions { connections_max: 2, ..ServeOptions::default() }).await;
    let (first, _second) = (server.client().await, server.client().await);
    let config = format!("host=127.0.0.1 port={} user=tester dbname=dev", server.address.port());
    let refused = tokio_postgres::connect(&config, NoTls).await.err().unwrap();
    assert_eq!(refused.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    // Cancelling needs no session's place.
    let token = first.cancel_token();
    let (result, ()) = tokio::join!(first.simple_query("sleep"), async {
        sleep(Duration::from_millis(100)).await;
        token.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    drop(first);
    let again = async {
        while tokio_postgres::connect(&config, NoTls).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_refused_database() {
    let server = server().await;
    let config = format!("host=127.0.0.1 port={} user=tester dbname=nowhere", server.address.port());
    let refused = tokio_postgres::connect(&config, NoTls).await.err().unwrap();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_CATALOG_NAME));
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_nobody_else() {
    let server = server().await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::new(&server).await;
        raw.send(&query("forever")).await;
        stalled.push(raw);
    }
    sleep(Duration::from_millis(500)).await;
    let client = server.client().await;
    for _ in 0..100 {
        assert_eq!(timeout(Duration::from_secs(5), client.execute("insert 3", &[])).await.unwrap().unwrap(), 3);
    }
    // It gets all its rows when it reads on.
    let mut raw = Raw::new(&server).await;
    raw.send(&query("rows 300000")).await;
    sleep(Duration::from_millis(300)).await;
    let mut rows = 0;
    while let Some((kind, _)) = raw.next().await {
        rows += usize::from(kind == b'D');
        if kind == b'Z' {
            break;
        }
    }
    assert_eq!(rows, 300_000);
}

#[tokio::test]
async fn shutdown_ends_every_session() {
    let server = server().await;
    let mut idle = Raw::new(&server).await;
    let mut in_block = Raw::new(&server).await;
    in_block.ask(&query("begin")).await;
    let mut running = Raw::new(&server).await;
    running.send(&query("sleep")).await;
    let mut streaming = Raw::new(&server).await;
    streaming.send(&query("stuck")).await;
    let mut waiting = Raw::new(&server).await;
    waiting.send(&[parse("", "rows 1"), bind("", "", &[]), execute("", 0)].concat()).await;
    sleep(Duration::from_millis(200)).await;
    server.shutdown.send(true).unwrap();
    let goodbye = "E FATAL 57P01 terminating connection due to administrator command";
    for raw in [&mut idle, &mut in_block, &mut running, &mut streaming, &mut waiting] {
        let mut last = None;
        while let Some(message) = raw.next_short().await {
            last = Some(message);
        }
        assert_eq!(last.as_deref(), Some(goodbye));
    }
    timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
}

/// Who has connected but not said who it is gets its answer when it does.
#[tokio::test]
async fn a_client_that_comes_while_it_shuts_down_is_told() {
    let server = server().await;
    let mut late = TcpStream::connect(server.address).await.unwrap();
    // Until it is surely accepted.
    Raw::new(&server).await;
    server.shutdown.send(true).unwrap();
    let parameters = b"user\0tester\0\0";
    let length = 8 + parameters.len() as u32;
    let packet = [&length.to_be_bytes()[..], &(3u32 << 16).to_be_bytes(), parameters].concat();
    late.write_all(&packet).await.unwrap();
    let mut answer = vec![];
    timeout(PATIENCE, late.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("57P03"), "{answer:?}");
    timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_stalled_reader() {
    let server = server_with(ServeOptions { shutdown_timeout: Duration::from_millis(500), ..ServeOptions::default() }).await;
    let mut raw = Raw::new(&server).await;
    raw.send(&query("forever")).await;
    sleep(Duration::from_millis(300)).await;
    server.shutdown.send(true).unwrap();
    timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn many_sessions_at_once() {
    let server = server().await;
    let sessions = (0..200).map(|i| {
        let server = &server;
        async move {
            let mut raw = Raw::new(server).await;
            for _ in 0..5 {
                let answer =
                    raw.ask(&[parse("", "echo 23"), bind("", "", &[Some(&i.to_string())]), execute("", 0), SYNC.to_vec()].concat()).await;
                assert_eq!(answer, ["1", "2", &format!("D {i}"), "C SELECT 1", "Z I"]);
            }
        }
    });
    futures::future::join_all(sessions).await;
}
