//! What clients say, decoded strictly: every count is checked against the bytes that are there, every text
//! ends within its message, and nothing is left over.

use bytes::{Buf, Bytes};
use millpond_common::Result;

use crate::frame::{Frame, violation};
use crate::text;

/// What Describe and Close are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Statement,
    Portal,
}

/// A message of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrontendMessage {
    Query {
        sql: Bytes,
    },
    Parse {
        name: String,
        sql: Bytes,
        parameter_types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    /// CopyData, CopyDone or CopyFail: without meaning unless a COPY runs.
    Copy,
}

/// Parameters for a statement, making a portal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    /// None: all text; one: for all; else one each.
    pub(crate) parameter_formats: Vec<u16>,
    pub(crate) parameters: Vec<Option<Bytes>>,
    pub(crate) result_formats: Vec<u16>,
}

impl FrontendMessage {
    /// Decodes a message. SQLSTATE 08P01 means that the client does not speak the protocol; other errors concern what it says.
    pub(crate) fn decode(frame: Frame) -> Result<FrontendMessage> {
        let mut body = Body(frame.body);
        let message = match frame.kind {
            b'Q' => FrontendMessage::Query { sql: body.text()? },
            b'P' => {
                let name = body.text()?;
                let sql = body.text()?;
                let count = body.u16()?;
                let parameter_types = body.list(count, 4, |b| b.u32())?;
                body.end()?;
                FrontendMessage::Parse { name: utf8(&name)?, sql, parameter_types }
            }
            b'B' => {
                let (portal, statement) = (body.text()?, body.text()?);
                let count = body.u16()?;
                let parameter_formats = body.list(count, 2, Body::u16)?;
                let count = body.u16()?;
                let parameters = body.list(count, 4, Body::value)?;
                let count = body.u16()?;
                let result_formats = body.list(count, 2, Body::u16)?;
                body.end()?;
                let (portal, statement) = (utf8(&portal)?, utf8(&statement)?);
                FrontendMessage::Bind(Bind { portal, statement, parameter_formats, parameters, result_formats })
            }
            kind @ (b'D' | b'C') => {
                let target = match body.u8()? {
                    b'S' => Target::Statement,
                    b'P' => Target::Portal,
                    other => return Err(violation(format!("invalid DESCRIBE or CLOSE message subtype {other}"))),
                };
                let name = body.text()?;
                body.end()?;
                let name = utf8(&name)?;
                if kind == b'D' { FrontendMessage::Describe { target, name } } else { FrontendMessage::Close { target, name } }
            }
            b'E' => {
                let portal = body.text()?;
                // Zero and negative numbers mean "all".
                let rows_max = usize::try_from(body.u32()? as i32).unwrap_or(0);
                body.end()?;
                FrontendMessage::Execute { portal: utf8(&portal)?, rows_max }
            }
            b'H' => FrontendMessage::Flush,
            b'S' => FrontendMessage::Sync,
            b'X' => FrontendMessage::Terminate,
            b'F' => {
                body.0.clear();
                FrontendMessage::FunctionCall
            }
            b'd' | b'c' => {
                body.0.clear();
                FrontendMessage::Copy
            }
            b'f' => {
                body.text()?;
                FrontendMessage::Copy
            }
            other => return Err(violation(format!("invalid frontend message type {other}"))),
        };
        body.end()?;
        Ok(message)
    }
}

fn utf8(bytes: &Bytes) -> Result<String> {
    text::utf8(bytes).map(str::to_string)
}

/// What is left of a message's body.
pub(crate) struct Body(pub(crate) Bytes);

impl Body {
    fn short() -> millpond_common::Error {
        violation("insufficient data left in message")
    }

    /// Bytes up to the next zero, which is taken, too.
    pub(crate) fn text(&mut self) -> Result<Bytes> {
        let length = self.0.iter().position(|b| *b == 0).ok_or_else(|| violation("invalid string in message"))?;
        let text = self.0.split_to(length);
        self.0.advance(1);
        Ok(text)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.0.try_get_u8().map_err(|_| Self::short())
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.0.try_get_u16().map_err(|_| Self::short())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().map_err(|_| Self::short())
    }

    /// A value with its length before it; −1 is NULL.
    fn value(&mut self) -> Result<Option<Bytes>> {
        let length = self.u32()? as i32;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Self::short())?;
        if length > self.0.len() {
            return Err(Self::short());
        }
        Ok(Some(self.0.split_to(length)))
    }

    /// `count` items of at least `least` bytes each.
    fn list<T>(&mut self, count: u16, least: usize, item: impl Fn(&mut Body) -> Result<T>) -> Result<Vec<T>> {
        let count = usize::from(count);
        if count * least > self.0.len() {
            return Err(Self::short());
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(violation("invalid message format")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond_common::SqlState;

    fn decode(kind: u8, body: &'static [u8]) -> Result<FrontendMessage> {
        FrontendMessage::decode(Frame { kind, body: Bytes::from_static(body) })
    }

    #[test]
    fn well_formed() {
        assert_eq!(decode(b'Q', b"select 1\0").unwrap(), FrontendMessage::Query { sql: Bytes::from_static(b"select 1") });
        let parse = decode(b'P', b"s\0select $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!(parse, FrontendMessage::Parse { name: "s".into(), sql: Bytes::from_static(b"select $1"), parameter_types: vec![23] });
        let bind = decode(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0").unwrap();
        let FrontendMessage::Bind(bind) = bind else { panic!("a Bind") };
        assert_eq!((bind.parameter_formats, bind.parameters), (vec![1], vec![Some(Bytes::from_static(b"x")), None]));
        assert_eq!(decode(b'E', b"\0\xff\xff\xff\xff").unwrap(), FrontendMessage::Execute { portal: String::new(), rows_max: 0 });
    }

    #[test]
    fn malformed_bodies_are_violations() {
        let bad: &[(u8, &[u8])] = &[
            (b'Q', b"select 1"),
            (b'Q', b"a\0b\0"),
            (b'P', b"s\0select\0"),
            (b'P', b"s\0select\0\0\x02\0\0\0\x17"),
            (b'P', b"s\0select\0\0\0x"),
            (b'P', b"\xff\xff\xff\xff"),
            (b'B', b"\0\0\0\0\0\x01"),
            (b'B', b"\0\0\xff\xff\0\0\0\0"),
            (b'B', b"\0\0\0\0\xff\xff\0\0"),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x09abc\0\0"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'B', b"\0\0\0\0\0\0\0\x01\0"),
            (b'B', b"\0\0\0\0\0\0\0\0\0"),
            (b'D', b"X\0"),
            (b'D', b"Sabc"),
            (b'C', b"S\0\0"),
            (b'E', b"abcde"),
            (b'E', b"a\0\0\0"),
            (b'E', b"\0\0\0\0\0\0"),
            (b'f', b"x"),
            (b'z', b""),
        ];
        for (kind, body) in bad {
            assert_eq!(decode(*kind, body).unwrap_err().state(), SqlState::PROTOCOL_VIOLATION, "{} {body:?}", char::from(*kind));
        }
        assert_eq!(decode(b'D', b"S\xff\0").unwrap_err().state(), text::CHARACTER_NOT_IN_REPERTOIRE);
    }
}
