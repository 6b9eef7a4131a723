//! What happens before a session: encryption requests, cancel requests, the start-up packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use millpond_common::{Error, Result, SqlState};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::Output;
use crate::frame::{FrameError, FrameReader, violation};
use crate::frontend::Body;
use crate::text;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0 and 3.2; 3.1 was never released.
const PROTOCOL_3_0: u32 = 3 << 16;
const PROTOCOL_3_2: u32 = PROTOCOL_3_0 + 2;
/// The longest secret of a cancel request.
const SECRET_BYTES_MAX: usize = 256;

/// How a connection begins.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A client that wants a session.
    Session(Packet),
    /// A client that wants another session's statement cancelled.
    Cancel { process_id: i32, secret: Bytes },
}

/// A start-up packet.
#[derive(Debug)]
pub(crate) struct Packet {
    /// The protocol's minor version that is spoken from now on.
    pub(crate) minor: u32,
    /// What must be answered by NegotiateProtocolVersion, if anything.
    pub(crate) negotiate: Option<Vec<String>>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Packet {
    /// The version for NegotiateProtocolVersion.
    pub(crate) fn version(&self) -> i32 {
        (PROTOCOL_3_0 + self.minor) as i32
    }
}

/// Reads start-up packets until one asks for a session or a cancellation.
pub(crate) async fn open<R, W>(input: &mut FrameReader<R>, output: &mut Output<W>) -> Result<Opening, FrameError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let mut body = Body(input.startup_packet().await?);
        let code = body.u32().map_err(FrameError::Violation)?;
        let asked = match code {
            SSL_REQUEST => &mut ssl_asked,
            GSS_REQUEST => &mut gss_asked,
            CANCEL_REQUEST => return cancel_request(body).map_err(FrameError::Violation),
            version => return packet(version, body).map(Opening::Session).map_err(FrameError::Violation),
        };
        // Each kind of encryption may be asked for once, by a packet that says nothing else.
        if std::mem::replace(asked, true) || body.end().is_err() {
            return Err(FrameError::Violation(violation("invalid length of startup packet")));
        }
        output.byte(b'N');
        output.flush().await?;
    }
}

fn cancel_request(mut body: Body) -> Result<Opening> {
    let process_id = body.u32()? as i32;
    let secret = body.0;
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
        return Err(violation("invalid length of cancel request"));
    }
    Ok(Opening::Cancel { process_id, secret })
}

fn packet(version: u32, mut body: Body) -> Result<Packet> {
    if version >> 16 != 3 {
        let message = format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", version >> 16, version & 0xffff);
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    let mut parameters = BTreeMap::new();
    let mut unsupported = Vec::new();
    loop {
        let name = body.text()?;
        if name.is_empty() {
            break;
        }
        let value = body.text()?;
        let (name, value) = (text::utf8(&name)?.to_string(), text::utf8(&value)?.to_string());
        if name.starts_with("_pq_.") {
            unsupported.push(name);
        } else {
            parameters.insert(name, value);
        }
    }
    if body.end().is_err() {
        return Err(violation("invalid startup packet layout: expected terminator as last byte"));
    }
    let minor = if version >= PROTOCOL_3_2 { 2 } else { 0 };
    let negotiate = (version != PROTOCOL_3_0 + minor || !unsupported.is_empty()).then_some(unsupported);
    let user = parameters.get("user").filter(|u| !u.is_empty()).cloned();
    let user = user.ok_or_else(|| Error::new(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"))?;
    let database = parameters.get("database").filter(|d| !d.is_empty()).unwrap_or(&user).clone();
    if parameters.get("replication").is_some_and(|r| !matches!(r.as_str(), "false" | "off" | "no" | "0")) {
        return Err(Error::unsupported("replication connections are not supported", "Connect without the replication parameter."));
    }
    for (name, value) in options(parameters.get("options").map_or("", String::as_str))? {
        parameters.entry(name).or_insert(value);
    }
    Ok(Packet { minor, negotiate, user, database, parameters })
}

/// The settings in a command line such as `-c search_path=a\ b --timezone=UTC`.
fn options(line: &str) -> Result<Vec<(String, String)>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment =
            if word == "-c" { words.next() } else { word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_string) };
        let (name, value) = assignment.as_deref().and_then(|a| a.split_once('=')).ok_or_else(|| {
            Error::new(SqlState::SYNTAX_ERROR, format!("invalid command-line argument for server process: {word}"))
                .with_hint("Use -c name=value.")
        })?;
        settings.push((name.replace('-', "_"), value.to_string()));
    }
    Ok(settings)
}

/// Who may connect as long as there are no roles: anybody, from this machine.
pub(crate) fn authorize(peer: SocketAddr, user: &str) -> Result<()> {
    let ip = peer.ip().to_canonical();
    if ip.is_loopback() {
        return Ok(());
    }
    Err(Error::new(SqlState::INVALID_AUTHORIZATION, format!("connection of user \"{user}\" from {ip} refused"))
        .with_detail("Without roles, only connections from this machine's loopback address are accepted.")
        .with_hint("Connect on the server's own machine, for example through an SSH tunnel."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn opened(bytes: &[u8]) -> (Result<Opening, FrameError>, Vec<u8>) {
        let mut written = Vec::new();
        let result = {
            let mut output = Output::new(&mut written);
            open(&mut FrameReader::new(bytes, 1000), &mut output).await
        };
        (result, written)
    }

    fn with_length(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn a_session_after_refused_encryption() {
        let mut bytes = with_length(&SSL_REQUEST.to_be_bytes());
        bytes.extend(with_length(&GSS_REQUEST.to_be_bytes()));
        bytes.extend(with_length(b"\0\x03\0\0user\0me\0options\0-c a=b\\ c --x-y=z\0\0"));
        let (opening, written) = opened(&bytes).await;
        let Ok(Opening::Session(packet)) = opening else { panic!("{opening:?}") };
        assert_eq!((packet.user.as_str(), packet.database.as_str(), packet.minor), ("me", "me", 0));
        assert!(packet.negotiate.is_none() && !packet.parameters.contains_key("database"));
        assert_eq!((packet.parameters["a"].as_str(), packet.parameters["x_y"].as_str()), ("b c", "z"));
        assert_eq!(written, b"NN");
    }

    #[tokio::test]
    async fn versions_are_negotiated() {
        for (version, minor, negotiates) in
            [(PROTOCOL_3_0, 0, false), (PROTOCOL_3_0 + 1, 0, true), (PROTOCOL_3_2, 2, false), (PROTOCOL_3_0 + 9999, 2, true)]
        {
            let (opening, _) = opened(&with_length(&[&version.to_be_bytes()[..], b"user\0u\0\0"].concat())).await;
            let Ok(Opening::Session(packet)) = opening else { panic!("{opening:?}") };
            assert_eq!((packet.minor, packet.negotiate.is_some()), (minor, negotiates));
        }
        let (opening, _) = opened(&with_length(b"\0\x03\0\0user\0u\0_pq_.new\0yes\0\0")).await;
        let Ok(Opening::Session(packet)) = opening else { panic!("{opening:?}") };
        assert_eq!(packet.negotiate, Some(vec!["_pq_.new".to_string()]));
    }

    #[tokio::test]
    async fn what_is_refused() {
        let ssl = with_length(&SSL_REQUEST.to_be_bytes());
        let cases = [
            vec![0, 0, 0, 0],
            vec![0, 0, 0, 7, 1, 2, 3],
            vec![0xff; 8],
            vec![0x16, 3, 1, 2, 0, 1],
            with_length(&vec![0; 10_000]),
            [ssl.clone(), ssl].concat(),
            with_length(b"\0\x02\0\0user\0u\0\0"),
            with_length(b"\0\x03\0\0user\0u\0"),
            with_length(b"\0\x03\0\0user\0u\0\0junk"),
            with_length(b"\0\x03\0\0user\0u"),
            with_length(b"\0\x03\0\0\0"),
            with_length(b"\0\x03\0\0user\0\xff\0\0"),
            with_length(b"\0\x03\0\0user\0u\0replication\0database\0\0"),
            with_length(b"\0\x03\0\0user\0u\0options\0-X\0\0"),
            with_length(&CANCEL_REQUEST.to_be_bytes()),
            with_length(&[&CANCEL_REQUEST.to_be_bytes()[..], &[0; 4]].concat()),
        ];
        for bytes in cases {
            let (opening, _) = opened(&bytes).await;
            assert!(matches!(opening, Err(FrameError::Violation(_))), "{bytes:?} {opening:?}");
        }
    }

    #[test]
    fn only_loopback() {
        for ok in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(authorize(ok.parse().unwrap(), "u").is_ok());
        }
        for bad in ["10.0.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1"] {
            assert_eq!(authorize(bad.parse().unwrap(), "u").unwrap_err().state(), SqlState::INVALID_AUTHORIZATION);
        }
    }
}
