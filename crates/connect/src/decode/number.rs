//! Booleans and numbers.

use super::Bad;

/// So many bytes as digits (of up to 255, if they are none) always fit an i64.
const SAFE_DIGITS: usize = 17;

/// A boolean: any unique beginning of true, false, yes, no, or on, off, 1, 0.
pub fn boolean(text: &[u8]) -> Result<bool, Bad> {
    match text {
        b"t" | b"true" | b"TRUE" | b"True" | b"1" => return Ok(true),
        b"f" | b"false" | b"FALSE" | b"False" | b"0" => return Ok(false),
        _ => {}
    }
    let lower = text.trim_ascii().to_ascii_lowercase();
    let begins = |word: &str, least: usize| lower.len() >= least && word.as_bytes().starts_with(&lower);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || lower == b"1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || lower == b"0" {
        Ok(false)
    } else {
        Err(Bad::syntax("boolean", text))
    }
}

/// A whole number between `least` and `most`.
pub fn integer(text: &[u8], type_name: &str, least: i64, most: i64) -> Result<i64, Bad> {
    let trimmed = text.trim_ascii();
    let (negative, digits) = match trimmed {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if digits.is_empty() {
        return Err(Bad::syntax(type_name, text));
    }
    if digits.len() <= SAFE_DIGITS {
        let mut other = false;
        let value = digits.iter().fold(0, |value, byte| {
            let digit = byte.wrapping_sub(b'0');
            other |= digit > 9;
            value * 10 + i64::from(digit)
        });
        let value = if negative { -value } else { value };
        return match (other, (least..=most).contains(&value)) {
            (true, _) => Err(Bad::syntax(type_name, text)),
            (false, false) => Err(Bad::range(type_name, text)),
            (false, true) => Ok(value),
        };
    }
    let mut value: i64 = 0; // negative all along, so that the least i64 fits
    let mut overflow = false;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Bad::syntax(type_name, text));
        }
        match value.checked_mul(10).and_then(|v| v.checked_sub(i64::from(digit))) {
            Some(next) => value = next,
            None => overflow = true,
        }
    }
    let value = if negative { Some(value) } else { value.checked_neg() };
    match value {
        Some(v) if !overflow && (least..=most).contains(&v) => Ok(v),
        _ => Err(Bad::range(type_name, text)),
    }
}

/// A double; a number too large for it is an error, not an infinity.
pub fn double(text: &[u8]) -> Result<f64, Bad> {
    let value = std::str::from_utf8(text.trim_ascii()).ok().and_then(|t| t.parse::<f64>().ok());
    match value {
        Some(v) if v.is_infinite() && text.iter().any(u8::is_ascii_digit) => Err(Bad::range("double precision", text)),
        Some(v) => Ok(v),
        None => Err(Bad::syntax("double precision", text)),
    }
}

/// A real; a number too large for it is an error, not an infinity.
pub fn real(text: &[u8]) -> Result<f32, Bad> {
    let value = std::str::from_utf8(text.trim_ascii()).ok().and_then(|t| t.parse::<f32>().ok());
    match value {
        Some(v) if v.is_infinite() && text.iter().any(u8::is_ascii_digit) => Err(Bad::range("real", text)),
        Some(v) => Ok(v),
        None => Err(Bad::syntax("real", text)),
    }
}

/// An exact number as an integer of `scale` decimal places, rounded half away from zero.
pub fn numeric(text: &[u8], precision: u8, scale: i8) -> Result<i128, Bad> {
    let trimmed = text.trim_ascii();
    let exponent_at = trimmed.iter().position(|b| matches!(b, b'e' | b'E'));
    let value = match exponent_at {
        None if scale >= 0 => decimal(trimmed, scale.unsigned_abs()),
        None => scaled(trimmed, i64::from(scale), 0),
        Some(at) => match integer(&trimmed[at + 1..], "numeric", -10_000, 10_000) {
            Ok(exponent) => scaled(&trimmed[..at], exponent + i64::from(scale.min(0)), scale.max(0).unsigned_abs()),
            Err(_) => Err(Failure::Syntax),
        },
    };
    let fits = |v: &i128| 10u128.checked_pow(u32::from(precision)).is_none_or(|limit| v.unsigned_abs() < limit);
    match value {
        Ok(v) if fits(&v) => Ok(v),
        Err(Failure::Syntax) => Err(Bad::syntax("numeric", text)),
        Ok(_) | Err(Failure::Range) => Err(Bad::range(&format!("numeric({precision},{scale})"), text)),
    }
}

enum Failure {
    Syntax,
    Range,
}

/// `-12.345` as an integer of `scale` places.
fn decimal(text: &[u8], scale: u8) -> Result<i128, Failure> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let mut value: i128 = 0;
    let mut places: Option<u8> = None; // places after the point that have been taken
    let mut round_up = None;
    let mut any = false;
    for byte in digits {
        if *byte == b'.' && places.is_none() {
            places = Some(0);
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Failure::Syntax);
        }
        any = true;
        if places.is_some_and(|p| p >= scale) {
            round_up = round_up.or(Some(digit >= 5));
            continue;
        }
        places = places.map(|p| p + 1);
        value = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit))).ok_or(Failure::Range)?;
    }
    if !any {
        return Err(Failure::Syntax);
    }
    let missing = u32::from(scale - places.unwrap_or(0));
    value = 10i128.checked_pow(missing).and_then(|factor| value.checked_mul(factor)).ok_or(Failure::Range)?;
    value += i128::from(round_up == Some(true));
    Ok(if negative { -value } else { value })
}

/// A decimal with its point moved right by `exponent`, as an integer of `scale` places.
fn scaled(text: &[u8], exponent: i64, scale: u8) -> Result<i128, Failure> {
    let (sign, digits) = match text {
        [sign @ (b'-' | b'+'), rest @ ..] => (Some(*sign), rest),
        all => (None, all),
    };
    let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
    let mut plain = digits.iter().copied().filter(|b| *b != b'.').collect::<Vec<_>>();
    if plain.is_empty() || digits.len() > plain.len() + 1 {
        return Err(Failure::Syntax);
    }
    let place = point as i64 + exponent; // where the point belongs in `plain`
    if plain.iter().all(|b| *b == b'0') {
        plain = b"0".to_vec();
    } else if place < 0 {
        plain.splice(0..0, std::iter::repeat_n(b'0', place.unsigned_abs() as usize));
        plain.insert(0, b'.');
    } else if place as usize > plain.len() {
        plain.resize(place as usize, b'0');
    } else {
        plain.insert(place as usize, b'.');
    }
    if let Some(sign) = sign {
        plain.insert(0, sign);
    }
    decimal(&plain, scale)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_are_what_the_library_reads(text in prop_oneof!["[+-]?[0-9]{0,21}", "[+-]?[0-9]{0,20}.[0-9]{0,2}", Just(i64::MIN.to_string()), Just(i64::MAX.to_string())]) {
            prop_assert_eq!(integer(text.as_bytes(), "bigint", i64::MIN, i64::MAX).ok(), text.trim_ascii().parse::<i64>().ok(), "{}", text);
            prop_assert_eq!(integer(text.as_bytes(), "integer", -9, 99).ok(), text.trim_ascii().parse::<i64>().ok().filter(|v| (-9..=99).contains(v)), "{}", text);
        }
    }
}
