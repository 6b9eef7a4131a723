//! Byte strings as text: `\xdeadbeef`, or characters with octal escapes.

use millpond_common::{Error, Result, SqlState};

/// The bytes that a text stands for.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    let bytes = match text.strip_prefix("\\x") {
        Some(hex) => from_hex(hex),
        None => from_escapes(text),
    };
    bytes.ok_or_else(|| Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea"))
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

fn from_escapes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: u8| (b'0'..=b'7').contains(&b).then(|| u32::from(b - b'0'));
        match rest.next()? {
            b'\\' => bytes.push(b'\\'),
            first => {
                let value = digit(first)? * 64 + digit(rest.next()?)? * 8 + digit(rest.next()?)?;
                bytes.push(u8::try_from(value).ok()?);
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_as_postgresql_reads_them() {
        assert_eq!(parse("\\xDEAD be").unwrap(), [0xde, 0xad, 0xbe]);
        assert_eq!(parse("a\\\\\\001").unwrap(), [b'a', b'\\', 1]);
        assert_eq!(parse("").unwrap(), Vec::<u8>::new());
        for wrong in ["\\xabc", "\\xzz", "\\9", "\\777", "\\"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
