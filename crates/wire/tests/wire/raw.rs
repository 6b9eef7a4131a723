//! A client of bytes: what it says is written as in the protocol's description, what it hears is split into messages.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fake::Server;

/// No answer takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const STARTUP: &[u8] = b"\0\0\0\x22\0\x03\0\0user\0tester\0database\0dev\0\0";
pub const SYNC: &[u8] = b"S\0\0\0\x04";
pub const FLUSH: &[u8] = b"H\0\0\0\x04";

/// A message with its length.
pub fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"])
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"])
}

/// Binds text parameters, with results in text.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let mut values = Vec::new();
    for p in parameters {
        match p {
            Some(p) => {
                values.extend((p.len() as u32).to_be_bytes());
                values.extend(p.as_bytes());
            }
            None => values.extend([0xff; 4]),
        }
    }
    let count = (parameters.len() as u16).to_be_bytes();
    message(b'B', &[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0", &count, &values, b"\0\0"])
}

pub fn describe(target: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[target], name.as_bytes(), b"\0"])
}

pub fn close(target: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[target], name.as_bytes(), b"\0"])
}

pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows_max.to_be_bytes()])
}

pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    /// A connection on which nothing was said.
    pub async fn silent(server: &Server) -> Raw {
        Raw { stream: TcpStream::connect(server.address).await.unwrap() }
    }

    /// A session.
    pub async fn new(server: &Server) -> Raw {
        let mut raw = Raw::silent(server).await;
        raw.send(STARTUP).await;
        let greeting = raw.until_ready().await;
        assert!(greeting.starts_with(&["R".to_string()]), "{greeting:?}");
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; None when the server has closed the connection.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let next = async {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((head[0], body))
        };
        timeout(PATIENCE, next).await.expect("an answer in time")
    }

    /// The next message in short: its type, and what matters of it.
    pub async fn next_short(&mut self) -> Option<String> {
        self.next().await.map(|(kind, body)| short(kind, &body))
    }

    /// Messages in short up to ReadyForQuery, or the end.
    pub async fn until_ready(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = self.next_short().await {
            let ready = message.starts_with("Z");
            all.push(message);
            if ready {
                break;
            }
        }
        all
    }

    /// Sends, and gives the answer in short up to ReadyForQuery.
    pub async fn ask(&mut self, bytes: &[u8]) -> Vec<String> {
        self.send(bytes).await;
        self.until_ready().await
    }
}

/// The type of a message, and its content where tests look at it.
pub fn short(kind: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string();
    match kind {
        b'E' | b'N' => {
            let field = |code: u8| body.split(|b| *b == 0).find(|f| f.first() == Some(&code)).map_or(String::new(), |f| text(&f[1..]));
            format!("{} {} {} {}", char::from(kind), field(b'S'), field(b'C'), field(b'M'))
        }
        b'C' | b'Z' => format!("{} {}", char::from(kind), text(body)),
        b'S' => format!("S {}", text(body).replace('\0', "=")),
        b'D' => {
            let mut values = Vec::new();
            let mut rest = &body[2..];
            while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                match usize::try_from(i32::from_be_bytes(*length)) {
                    Ok(length) => {
                        values.push(text(&tail[..length]));
                        rest = &tail[length..];
                    }
                    Err(_) => {
                        values.push("NULL".into());
                        rest = tail;
                    }
                }
            }
            format!("D {}", values.join("|"))
        }
        b't' => format!("t {:?}", body[2..].chunks(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect::<Vec<_>>()),
        b'T' => format!("T {}", u16::from_be_bytes([body[0], body[1]])),
        _ => char::from(kind).to_string(),
    }
}
