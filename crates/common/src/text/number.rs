//! Whole numbers, floats and decimals.

use std::fmt::Write;

use crate::{Error, Result, SqlState};
use bytes::{BufMut, BytesMut};

use super::{invalid_syntax, out_of_range, shorten};

/// Appends a whole number.
pub fn put_integer(out: &mut BytesMut, value: i64) {
    if value < 0 {
        out.put_u8(b'-');
    }
    put_unsigned(out, u128::from(value.unsigned_abs()), 0);
}

/// Appends a number without sign, padded with zeros to at least `width` digits.
pub fn put_unsigned(out: &mut BytesMut, value: u128, width: usize) {
    let mut digits = [b'0'; 40];
    let mut at = digits.len();
    let mut wide = value;
    // 128-bit division is slow: leave it as soon as the rest fits 64 bits.
    while wide > u128::from(u64::MAX) {
        at -= 1;
        digits[at] = b'0' + (wide % 10) as u8;
        wide /= 10;
    }
    let mut rest = wide as u64;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    at = at.min(digits.len() - width.clamp(usize::from(value == 0), digits.len()));
    out.put_slice(&digits[at..]);
}

/// Appends a decimal of the given scale. With `trim`, zeros at the end of the fraction are left out.
pub fn put_decimal(out: &mut BytesMut, value: i128, scale: i8, trim: bool) {
    if value < 0 {
        out.put_u8(b'-');
    }
    let magnitude = value.unsigned_abs();
    if scale <= 0 {
        put_unsigned(out, magnitude, 1);
        if magnitude != 0 {
            out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let unit = 10u128.checked_pow(scale as u32).unwrap_or(u128::MAX);
    put_unsigned(out, magnitude / unit, 1);
    let start = out.len();
    out.put_u8(b'.');
    put_unsigned(out, magnitude % unit, scale);
    if trim {
        while out.last() == Some(&b'0') {
            out.truncate(out.len() - 1);
        }
        if out.len() == start + 1 {
            out.truncate(start);
        }
    }
}

/// Appends a double as PostgreSQL 12 and later do: the shortest text that reads back as the same value.
pub fn put_f64(out: &mut BytesMut, value: f64) {
    if !put_special(out, value) {
        put_shortest(out, format_args!("{value:e}"), 15);
    }
}

/// Appends a real, in the shortest form.
pub fn put_f32(out: &mut BytesMut, value: f32) {
    if !put_special(out, f64::from(value)) {
        put_shortest(out, format_args!("{value:e}"), 6);
    }
}

fn put_special(out: &mut BytesMut, value: f64) -> bool {
    let text: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value == f64::INFINITY {
        b"Infinity"
    } else if value == f64::NEG_INFINITY {
        b"-Infinity"
    } else {
        return false;
    };
    out.put_slice(text);
    true
}

/// A small text on the stack.
struct Small {
    bytes: [u8; 48],
    length: usize,
}

impl Write for Small {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Lays shortest digits (`-1.25e-7`) out as `printf` would: with an exponent below 1e-4 and from 10^`digits` on.
fn put_shortest(out: &mut BytesMut, scientific: std::fmt::Arguments<'_>, digits: i32) {
    let mut small = Small { bytes: [0; 48], length: 0 };
    if small.write_fmt(scientific).is_err() {
        return; // shortest digits of a double take at most 25 bytes
    }
    let mut rest = &small.bytes[..small.length];
    if let [b'-', tail @ ..] = rest {
        out.put_u8(b'-');
        rest = tail;
    }
    let split = rest.iter().position(|b| *b == b'e').unwrap_or(rest.len());
    let (mantissa, exponent) = rest.split_at(split);
    let exponent: i32 = std::str::from_utf8(exponent.get(1..).unwrap_or_default()).ok().and_then(|e| e.parse().ok()).unwrap_or(0);
    let first = &mantissa[..1];
    let others = mantissa.get(2..).unwrap_or_default();
    if exponent < -4 || exponent >= digits {
        out.put_slice(mantissa);
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        put_unsigned(out, u128::from(exponent.unsigned_abs()), 2);
    } else if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        out.put_slice(first);
        out.put_slice(others);
    } else {
        let whole = exponent as usize;
        out.put_slice(first);
        out.put_slice(&others[..whole.min(others.len())]);
        out.put_bytes(b'0', whole.saturating_sub(others.len()));
        if let Some(fraction @ [_, ..]) = others.get(whole..) {
            out.put_u8(b'.');
            out.put_slice(fraction);
        }
    }
}

/// Reads a whole number within `min..=max` of the named type.
pub fn parse_integer(text: &str, type_name: &str, min: i64, max: i64) -> Result<i64> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let (negative, digits) = match trimmed.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid_syntax(type_name, text));
    }
    let mut value = 0i64;
    for d in digits {
        let d = i64::from(d - b'0');
        let next = value.checked_mul(10).and_then(|v| if negative { v.checked_sub(d) } else { v.checked_add(d) });
        value = next.ok_or_else(|| out_of_range(type_name, text))?;
    }
    if value < min || value > max { Err(out_of_range(type_name, text)) } else { Ok(value) }
}

/// Reads a double.
pub fn parse_f64(text: &str) -> Result<f64> {
    parse_float(text, "double precision", |t| t.parse::<f64>().ok(), |v| v.is_infinite(), |v| *v == 0.0)
}

/// Reads a real.
pub fn parse_f32(text: &str) -> Result<f32> {
    parse_float(text, "real", |t| t.parse::<f32>().ok(), |v| v.is_infinite(), |v| *v == 0.0)
}

fn parse_float<T>(text: &str, type_name: &str, parse: fn(&str) -> Option<T>, infinite: fn(&T) -> bool, zero: fn(&T) -> bool) -> Result<T> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let value = parse(trimmed).ok_or_else(|| invalid_syntax(type_name, text))?;
    let written_as_word = trimmed.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_alphabetic());
    let mantissa = trimmed.split(['e', 'E']).next().unwrap_or_default();
    let underflow = zero(&value) && mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if (infinite(&value) && !written_as_word) || underflow {
        return Err(Error::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{}\" is out of range for type {type_name}", shorten(text)),
        ));
    }
    Ok(value)
}

/// Reads a decimal of the given precision and scale; further digits are rounded half away from zero.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128> {
    let invalid = || invalid_syntax("numeric", text);
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let (negative, unsigned) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    if ["nan", "inf", "infinity"].iter().any(|w| unsigned.eq_ignore_ascii_case(w)) {
        return Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("numeric cannot hold \"{trimmed}\""))
            .with_hint("Use double precision for values that may be NaN or infinite."));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| invalid())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let overflow = || numeric_overflow(precision, scale);
    // The value is digits · 10^(exponent − fraction); kept are the digits down to 10^−scale.
    let shift = i64::from(exponent) + i64::from(scale) - fraction.len() as i64;
    let total = (whole.len() + fraction.len()) as i64;
    let kept = (total + shift.min(0)).max(0);
    let mut value = 0i128;
    let mut round_up = false;
    for (i, b) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let i = i as i64;
        if i < kept {
            value = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(b - b'0'))).ok_or_else(overflow)?;
        } else if i == kept {
            round_up = total + shift >= 0 && b >= b'5';
        }
    }
    value += i128::from(round_up);
    if shift > 0 && value != 0 {
        let factor = u32::try_from(shift).ok().and_then(|s| 10i128.checked_pow(s)).ok_or_else(overflow)?;
        value = value.checked_mul(factor).ok_or_else(overflow)?;
    }
    if value >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(overflow());
    }
    Ok(if negative { -value } else { value })
}

/// The error of a number with more digits before the point than its column has.
pub fn numeric_overflow(precision: u8, scale: i8) -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
        i32::from(precision) - i32::from(scale)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(f: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        f(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn integers() {
        for v in [0, 1, -1, 10, 99, i64::MAX, i64::MIN] {
            assert_eq!(text(|o| put_integer(o, v)), v.to_string());
        }
        assert_eq!(text(|o| put_unsigned(o, 7, 2)), "07");
        assert_eq!(text(|o| put_unsigned(o, u128::MAX, 1)), u128::MAX.to_string());
        assert_eq!(parse_integer(" +42 ", "integer", -100, 100).unwrap(), 42);
        assert_eq!(parse_integer(&i64::MIN.to_string(), "bigint", i64::MIN, i64::MAX).unwrap(), i64::MIN);
        assert_eq!(parse_integer("abc", "integer", 0, 1).unwrap_err().message(), "invalid input syntax for type integer: \"abc\"");
        assert_eq!(parse_integer("2", "integer", 0, 1).unwrap_err().message(), "value \"2\" is out of range for type integer");
    }

    #[test]
    fn floats_are_shortest_and_like_printf() {
        let cases: &[(f64, &str)] = &[
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "1e+20"),
            (1e15, "1e+15"),
            (123456789012345.0, "123456789012345"),
            (100.0, "100"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0"),
            (12.75, "12.75"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (0.1 + 0.2, "0.30000000000000004"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(|o| put_f64(o, *value)), *expected);
        }
        assert_eq!(text(|o| put_f32(o, 1e6)), "1e+06");
        assert_eq!(text(|o| put_f32(o, 0.1)), "0.1");
        assert_eq!(text(|o| put_f32(o, 123456.0)), "123456");
        assert!(parse_f64("1e400").is_err() && parse_f64("1e-400").is_err() && parse_f64("").is_err());
        assert_eq!(parse_f64(" -Infinity ").unwrap(), f64::NEG_INFINITY);
        assert_eq!(parse_f64("0e0").unwrap(), 0.0);
    }

    #[test]
    fn decimals() {
        assert_eq!(text(|o| put_decimal(o, -12345, 2, false)), "-123.45");
        assert_eq!(text(|o| put_decimal(o, 5, 3, false)), "0.005");
        assert_eq!(text(|o| put_decimal(o, 15_000, 4, true)), "1.5");
        assert_eq!(text(|o| put_decimal(o, 20_000, 4, true)), "2");
        assert_eq!(text(|o| put_decimal(o, 7, -2, false)), "700");
        assert_eq!(text(|o| put_decimal(o, 0, 2, false)), "0.00");
        let cases: &[(&str, i128)] = &[
            ("1", 100),
            ("1.005", 101),
            ("-1.005", -101),
            ("0.004", 0),
            (".5", 50),
            ("5.", 500),
            ("1e1", 1000),
            ("12345e-4", 123),
            ("0.005", 1),
            ("1e-9", 0),
            ("0e99", 0),
        ];
        for (t, expected) in cases {
            assert_eq!(parse_decimal(t, 10, 2).unwrap(), *expected, "{t}");
        }
        for t in ["", ".", "1.2.3", "e5", "--1", "1e", "0x1"] {
            assert_eq!(parse_decimal(t, 10, 2).unwrap_err().state(), SqlState::INVALID_TEXT_REPRESENTATION, "{t}");
        }
        for t in ["100000000", "1e99", "1e2147483647", "NaN", "99999999.995"] {
            assert_eq!(parse_decimal(t, 10, 2).unwrap_err().state(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "{t}");
        }
    }
}
