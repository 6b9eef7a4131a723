//! Booleans, bytea and uuid.

use crate::{Error, Result, SqlState};
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::invalid_syntax;

/// Reads a boolean: any unambiguous beginning of true, false, yes, no, on, off, or 1 or 0.
pub fn parse_boolean(text: &str) -> Result<bool> {
    let word = text.trim_matches(|c: char| c.is_ascii_whitespace()).to_ascii_lowercase();
    let begins = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(invalid_syntax("boolean", text))
    }
}

/// Appends bytes as `\x…`.
pub fn put_bytea(out: &mut BytesMut, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.put_slice(b"\\x");
    for b in bytes {
        out.put_slice(&[DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
    }
}

/// Reads bytes in the hex (`\x…`) or the escape form (`\\`, `\ooo`).
pub fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    let invalid = |what: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid hexadecimal {what}"));
    if let Some(hex) = text.strip_prefix("\\x") {
        let mut digits = hex.chars().filter(|c| !c.is_ascii_whitespace());
        let mut bytes = Vec::with_capacity(hex.len() / 2);
        let digit = |c: char| c.to_digit(16).map(|d| d as u8).ok_or_else(|| invalid(format!("digit: \"{c}\"")));
        while let Some(high) = digits.next() {
            let high = digit(high)?;
            let low = digits.next().ok_or_else(|| invalid("data: odd number of digits".into()))?;
            bytes.push(high << 4 | digit(low)?);
        }
        return Ok(bytes);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            [b'\\', ..] => return Err(Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea")),
            [b, tail @ ..] => {
                bytes.push(*b);
                rest = tail;
            }
        }
    }
}

/// Reads a uuid in any of PostgreSQL's forms.
pub fn parse_uuid(text: &str) -> Result<Uuid> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let inner = trimmed.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(trimmed);
    // Hyphens may stand after any group of four digits.
    let mut digits = [0u8; 32];
    let mut count = 0;
    for b in inner.bytes() {
        if b == b'-' && count > 0 && count % 4 == 0 {
            continue;
        }
        if count == 32 || !b.is_ascii_hexdigit() {
            return Err(invalid_syntax("uuid", text));
        }
        digits[count] = b;
        count += 1;
    }
    if count < 32 || inner.ends_with('-') {
        return Err(invalid_syntax("uuid", text));
    }
    Uuid::try_parse_ascii(&digits).map_err(|_| invalid_syntax("uuid", text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn booleans() {
        for t in ["t", "TRUE", " yes ", "on", "1", "tr"] {
            assert!(parse_boolean(t).unwrap());
        }
        for t in ["f", "False", "n", "of", "0"] {
            assert!(!parse_boolean(t).unwrap());
        }
        for t in ["", "o", "truee", "2", "maybe"] {
            assert!(parse_boolean(t).is_err());
        }
    }

    #[test]
    fn bytes() {
        let mut out = BytesMut::new();
        put_bytea(&mut out, &[0, 255, 16]);
        assert_eq!(&out[..], b"\\x00ff10");
        assert_eq!(parse_bytea("\\x00Ff 10").unwrap(), [0, 255, 16]);
        assert_eq!(parse_bytea("a\\\\b\\001").unwrap(), b"a\\b\x01");
        for t in ["\\x0", "\\xzz", "\\9", "\\"] {
            assert!(parse_bytea(t).is_err(), "{t}");
        }
    }

    #[test]
    fn uuids() {
        let canonical = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for t in [
            canonical,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(parse_uuid(t).unwrap().to_string(), canonical);
        }
        for t in
            ["", "a0eebc99", "g0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a110", "a0e-ebc999c0b4ef8bb6d6bb9bd380a11"]
        {
            assert!(parse_uuid(t).is_err(), "{t}");
        }
    }
}
