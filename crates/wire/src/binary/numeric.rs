//! numeric: groups of four decimal digits with a weight, a sign and a display scale.

use bytes::{BufMut, BytesMut};
use millpond_common::{Error, Result, SqlState};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Appends the binary form of a decimal given as text (`-12.50`, without exponent).
pub(crate) fn put(out: &mut BytesMut, text: &[u8]) {
    let (sign, unsigned) = match text {
        [b'-', rest @ ..] => (NEGATIVE, rest),
        rest => (0, rest),
    };
    let point = unsigned.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, &unsigned[..0]),
    };
    let whole_groups = whole.len().div_ceil(4);
    let groups = whole_groups + fraction.len().div_ceil(4);
    // The digit at a position relative to the point, 0 beyond either end.
    let digit = |position: i64| -> u16 {
        let found = if position < 0 {
            usize::try_from(whole.len() as i64 + position).ok().and_then(|i| whole.get(i))
        } else {
            fraction.get(position as usize)
        };
        found.map_or(0, |b| u16::from(b - b'0'))
    };
    let group = |g: usize| -> u16 {
        let start = (g as i64 - whole_groups as i64) * 4;
        (0..4).fold(0, |value, i| value * 10 + digit(start + i))
    };
    let first = (0..groups).find(|g| group(*g) != 0).unwrap_or(groups);
    let last = (first..groups).rev().find(|g| group(*g) != 0).map_or(first, |g| g + 1);
    let zero = first == last;
    out.put_u16((last - first) as u16);
    out.put_i16(if zero { 0 } else { (whole_groups as i64 - first as i64 - 1) as i16 });
    out.put_u16(if zero { 0 } else { sign });
    out.put_u16(fraction.len() as u16);
    for g in first..last {
        out.put_u16(group(g));
    }
}

/// The text of a binary numeric, for the decimal reader, which rounds and checks the range.
pub(crate) fn to_text(bytes: &[u8]) -> Result<String> {
    let invalid = |what: &str| Error::new(SqlState::INVALID_BINARY_REPRESENTATION, format!("invalid {what} in external \"numeric\" value"));
    let word = |i: usize| bytes.get(2 * i..2 * i + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (Some(count), Some(weight), Some(sign), Some(_scale)) = (word(0), word(1), word(2), word(3)) else {
        return Err(invalid("length"));
    };
    let count = usize::from(count);
    if bytes.len() != 8 + 2 * count {
        return Err(invalid("length"));
    }
    let mut text = String::with_capacity(4 * count + 8);
    match sign {
        0 => {}
        NEGATIVE => text.push('-'),
        NAN => return Ok("NaN".into()),
        INFINITY => return Ok("Infinity".into()),
        NEGATIVE_INFINITY => return Ok("-Infinity".into()),
        _ => return Err(invalid("sign")),
    }
    text.push('0');
    for i in 0..count {
        let digit = word(4 + i).filter(|d| *d < 10_000).ok_or_else(|| invalid("digit"))?;
        text.push_str(&format!("{digit:04}"));
    }
    // The digits are a whole number now; the exponent puts the point where the weight says.
    let exponent = 4 * (i64::from(weight as i16) + 1 - count as i64);
    text.push_str(&format!("e{exponent}"));
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text::number::parse_decimal;

    #[test]
    fn digits_weight_and_scale() {
        let cases: &[(&str, &[u16])] = &[
            ("0", &[0, 0, 0, 0]),
            ("0.00", &[0, 0, 0, 2]),
            ("1", &[1, 0, 0, 0, 1]),
            ("-12345.6", &[3, 1, NEGATIVE, 1, 1, 2345, 6000]),
            ("10000", &[1, 1, 0, 0, 1]),
            ("0.00012", &[2, 0xffff, 0, 5, 1, 2000]),
        ];
        for (text, words) in cases {
            let mut out = BytesMut::new();
            put(&mut out, text.as_bytes());
            let found = out.chunks(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect::<Vec<_>>();
            assert_eq!(&found, words, "{text}");
        }
    }

    #[test]
    fn round_trip_through_text() {
        for text in ["0", "-0.01", "1234567890.12", "99999999.99", "-10000", "0.5", "100000000"] {
            let mut out = BytesMut::new();
            put(&mut out, text.as_bytes());
            let value = parse_decimal(&to_text(&out).unwrap(), 20, 2).unwrap();
            assert_eq!(value, parse_decimal(text, 20, 2).unwrap(), "{text}");
        }
        for bytes in
            [&[][..], &[0, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], &[0, 0, 0, 0, 1, 0, 0, 0]]
        {
            assert!(to_text(bytes).is_err());
        }
        assert!(parse_decimal(&to_text(&[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]).unwrap(), 38, 10).is_err());
        assert_eq!(parse_decimal(&to_text(&[0, 1, 0x80, 0, 0, 0, 0, 0, 0, 1]).unwrap(), 38, 10).unwrap(), 0);
    }
}
