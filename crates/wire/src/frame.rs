//! Messages as bytes: type, length, body. Everything here is decided by the length alone, before a body is read:
//! a length that its type does not allow ends the connection, and a body is cut out exactly.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use millpond_common::{Error, SqlState};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest start-up packet.
const STARTUP_BYTES_MAX: usize = 10_000;
/// The largest message of the types that carry names only.
const SMALL_BYTES_MAX: usize = 10_000;
/// How much is read at a time, and ahead of a running statement.
const READ_BYTES: usize = 64 << 10;

/// Why there is no next message.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The client closed the connection, or it broke.
    Closed,
    /// The client broke the protocol.
    Violation(Error),
}

impl From<io::Error> for FrameError {
    fn from(_: io::Error) -> Self {
        FrameError::Closed
    }
}

/// One message of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its type.
    pub(crate) kind: u8,
    /// What follows the length, exactly.
    pub(crate) body: Bytes,
}

/// Cuts a client's bytes into messages. Every method may be dropped and called again without losing bytes.
pub(crate) struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    message_bytes_max: usize,
    closed: bool,
}

/// The error of a message that is not what the protocol says.
pub(crate) fn violation(message: impl Into<String>) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, message)
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(inner: R, message_bytes_max: usize) -> Self {
        FrameReader { inner, buffer: BytesMut::new(), message_bytes_max, closed: false }
    }

    /// The next start-up packet: what follows its length.
    pub(crate) async fn startup_packet(&mut self) -> Result<Bytes, FrameError> {
        self.fill(4).await?;
        let length = self.length_at(0);
        if !(8..=STARTUP_BYTES_MAX).contains(&length) {
            return Err(FrameError::Violation(violation("invalid length of startup packet")));
        }
        self.fill(length).await?;
        self.buffer.advance(4);
        Ok(self.buffer.split_to(length - 4).freeze())
    }

    /// The next message of a session.
    pub(crate) async fn frame(&mut self) -> Result<Frame, FrameError> {
        // One byte suffices to tell a client that speaks something else.
        let kind = self.peek_kind().await?;
        let (least, most) = self.body_bytes(kind)?;
        self.fill(5).await?;
        let length = self.length_at(1);
        if length < 4 || !(least..=most).contains(&(length - 4)) {
            return Err(FrameError::Violation(
                violation("invalid message length")
                    .with_detail(format!("A message of type \"{}\" has length {length}.", kind.escape_ascii())),
            ));
        }
        self.fill(1 + length).await?;
        self.buffer.advance(5);
        let body = self.buffer.split_to(length - 4).freeze();
        if self.buffer.is_empty() && length > READ_BYTES {
            // Give the memory of a large message back with its body.
            self.buffer = BytesMut::new();
        }
        Ok(Frame { kind, body })
    }

    /// The type of the next message, which stays where it is.
    pub(crate) async fn peek_kind(&mut self) -> Result<u8, FrameError> {
        self.fill(1).await?;
        Ok(self.buffer[0])
    }

    /// Reads ahead while a statement runs; completes when the client has gone. Stops reading at a bound.
    pub(crate) async fn until_closed(&mut self) {
        while !self.closed {
            if self.buffer.len() >= READ_BYTES {
                std::future::pending::<()>().await;
            }
            if self.read().await.is_err() {
                self.closed = true;
            }
        }
    }

    /// Throws away what still comes in, at most `bytes_max`, until the client closes its side.
    pub(crate) async fn drain(&mut self, bytes_max: usize) {
        let mut drained = 0;
        while !self.closed && drained < bytes_max {
            self.buffer.clear();
            if self.read().await.is_err() {
                return;
            }
            drained += self.buffer.len();
        }
    }

    /// The least and most bytes of a body of this type.
    fn body_bytes(&self, kind: u8) -> Result<(usize, usize), FrameError> {
        match kind {
            b'Q' => Ok((1, self.message_bytes_max)),
            b'P' => Ok((4, self.message_bytes_max)),
            b'B' => Ok((8, self.message_bytes_max)),
            b'F' => Ok((10, self.message_bytes_max)),
            b'd' => Ok((0, self.message_bytes_max)),
            b'D' | b'C' => Ok((2, SMALL_BYTES_MAX)),
            b'E' => Ok((5, SMALL_BYTES_MAX)),
            b'f' => Ok((1, SMALL_BYTES_MAX)),
            b'H' | b'S' | b'X' | b'c' => Ok((0, 0)),
            other => Err(FrameError::Violation(violation(format!("invalid frontend message type {other}")))),
        }
    }

    /// A length word, as large as it claims to be; a negative one is larger than any limit.
    fn length_at(&self, at: usize) -> usize {
        let word = [self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], self.buffer[at + 3]];
        u32::from_be_bytes(word) as usize
    }

    /// Reads until `bytes` are there. The buffer grows with what arrives, not with what was announced.
    async fn fill(&mut self, bytes: usize) -> Result<(), FrameError> {
        while self.buffer.len() < bytes {
            if self.closed {
                return Err(FrameError::Closed);
            }
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), FrameError> {
        // Small at first: an idle connection holds little.
        self.buffer.reserve(if self.buffer.len() < 4096 { 4096 } else { READ_BYTES });
        if self.inner.read_buf(&mut self.buffer).await? == 0 {
            self.closed = true;
            return Err(FrameError::Closed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn frames(bytes: &[u8]) -> Vec<Result<Frame, FrameError>> {
        let mut reader = FrameReader::new(bytes, 1000);
        let mut frames = Vec::new();
        loop {
            frames.push(reader.frame().await);
            if frames.last().is_some_and(Result::is_err) {
                return frames;
            }
        }
    }

    #[tokio::test]
    async fn bodies_are_cut_exactly() {
        let found = frames(b"Q\0\0\0\x06a\0S\0\0\0\x04X\0\0\0\x04").await;
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].as_ref().unwrap(), &Frame { kind: b'Q', body: Bytes::from_static(b"a\0") });
        assert_eq!(found[1].as_ref().unwrap().kind, b'S');
        assert!(matches!(found[3], Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn lengths_are_checked_against_the_type() {
        let bad: &[&[u8]] = &[
            b"p\0\0\0\0",
            b"p\0\0\0\x03",
            b"P\0\0\0\x04",
            b"Q\0\0\0\x04",
            b"Q\xff\xff\xff\xff",
            b"Q\0\0\0\0",
            b"B\0\0\0\x05",
            b"E\0\0\0\x05",
            b"d\0\0\0\x01",
            b"S\0\0\0\x05",
            b"X\0\0\0\x05",
            b"D\0\x10\0\0",
            b"Q\0\x10\0\0",
            b"!",
            b"\0\0\0\0\0",
        ];
        for bytes in bad {
            assert!(matches!(frames(bytes).await[..], [Err(FrameError::Violation(_))]), "{bytes:?}");
        }
    }
}
