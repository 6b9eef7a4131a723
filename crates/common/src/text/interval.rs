//! Intervals: months, days and time, in the style `postgres`.

use crate::{Error, Result, SqlState};
use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};

use super::datetime::{microseconds, put_clock};
use super::number::put_integer;
use super::{INVALID_DATETIME_FORMAT, shorten};

const SECOND_US: i64 = 1_000_000;
const DAY_US: f64 = 86_400e6;

/// Appends an interval such as `1 year 2 mons -3 days +04:05:06.7`. PostgreSQL has no nanoseconds; they are cut off.
pub fn put_interval(out: &mut BytesMut, value: IntervalMonthDayNano) {
    let mut empty = true;
    let mut negative_before = false;
    let parts = [(value.months / 12, " year"), (value.months % 12, " mon"), (value.days, " day")];
    for (amount, unit) in parts {
        if amount == 0 {
            continue;
        }
        if !empty {
            out.put_u8(b' ');
        }
        // A positive part after a negative one shows its sign, so that the sign before it does not seem to reach it.
        if negative_before && amount > 0 {
            out.put_u8(b'+');
        }
        put_integer(out, i64::from(amount));
        out.put_slice(unit.as_bytes());
        if amount != 1 {
            out.put_u8(b's');
        }
        negative_before = amount < 0;
        empty = false;
    }
    let time = value.nanoseconds / 1000;
    if time != 0 || empty {
        if !empty {
            out.put_u8(b' ');
        }
        if time < 0 {
            out.put_u8(b'-');
        } else if negative_before {
            out.put_u8(b'+');
        }
        let seconds = time / SECOND_US;
        put_clock(out, seconds / 3600, seconds / 60 % 60, seconds % 60, time % SECOND_US);
    }
}

/// A sum of interval parts, checked at the end.
#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    microseconds: i128,
}

/// A fraction's microseconds; each fraction is rounded by itself, ties to even.
fn rounded(microseconds: f64) -> i128 {
    microseconds.round_ties_even() as i128
}

#[derive(Clone, Copy)]
enum Unit {
    Microseconds(i64),
    Days(i64),
    Months(i64),
}

impl Sum {
    /// Adds `whole` (with its sign) and a fraction in 0..1 of a unit; fractions spill into smaller units.
    fn add(&mut self, whole: i64, fraction: f64, unit: Unit) {
        let fraction = if whole < 0 { -fraction } else { fraction };
        self.add_parts(whole, fraction, unit);
    }

    fn add_parts(&mut self, whole: i64, fraction: f64, unit: Unit) {
        match unit {
            Unit::Microseconds(scale) => {
                self.microseconds += i128::from(whole) * i128::from(scale) + rounded(fraction * scale as f64);
            }
            Unit::Days(scale) => {
                let days = fraction * scale as f64;
                self.days += whole as f64 * scale as f64 + days.trunc();
                self.microseconds += rounded(days.fract() * DAY_US);
            }
            Unit::Months(1) => {
                let days = fraction * 30.0;
                self.months += whole as f64;
                self.days += days.trunc();
                self.microseconds += rounded(days.fract() * DAY_US);
            }
            Unit::Months(scale) => self.months += whole as f64 * scale as f64 + (fraction * scale as f64).round(),
        }
    }

    fn finish(self, negate: bool) -> Option<IntervalMonthDayNano> {
        let sign = if negate { -1.0 } else { 1.0 };
        let small = |v: f64| (v.abs() <= f64::from(i32::MAX)).then_some((v * sign) as i32);
        let microseconds = if negate { -self.microseconds } else { self.microseconds };
        let nanoseconds = i64::try_from(microseconds.checked_mul(1000)?).ok()?;
        Some(IntervalMonthDayNano::new(small(self.months)?, small(self.days)?, nanoseconds))
    }
}

fn unit(word: &str) -> Option<Unit> {
    Some(match word.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => Unit::Microseconds(1),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Unit::Microseconds(1000),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Microseconds(SECOND_US),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Microseconds(60 * SECOND_US),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Microseconds(3600 * SECOND_US),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000),
        _ => return None,
    })
}

/// Reads an interval: `1 year 2 mons 3 days 04:05:06`, `90 minutes ago`, `P1Y2M3DT4H5M6S`.
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let syntax = || Error::new(INVALID_DATETIME_FORMAT, format!("invalid input syntax for type interval: \"{}\"", shorten(text)));
    let range = || Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("interval field value out of range: \"{}\"", shorten(text)));
    let mut sum = Sum::default();
    let negate = if let Some(iso) = trimmed.strip_prefix(['P', 'p']) {
        parse_iso(iso, &mut sum).ok_or_else(syntax)?;
        false
    } else {
        parse_verbose(trimmed, &mut sum).ok_or_else(syntax)?
    };
    sum.finish(negate).ok_or_else(range)
}

/// Splits `-12.5rest` into sign, whole part, fraction digits and the rest.
fn number(text: &str) -> Option<(bool, i64, &str, &str)> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let whole = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = unsigned.split_at(whole);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let value = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    Some((negative, value, fraction, rest))
}

fn fraction_of(digits: &str) -> f64 {
    if digits.is_empty() { 0.0 } else { format!("0.{digits}").parse().unwrap_or(0.0) }
}

fn parse_verbose(text: &str, sum: &mut Sum) -> Option<bool> {
    let mut words = text.split_ascii_whitespace().peekable();
    words.next_if(|w| *w == "@");
    let mut ago = false;
    let mut any = false;
    while let Some(word) = words.next() {
        if ago {
            return None;
        }
        if any && word.eq_ignore_ascii_case("ago") {
            ago = true;
            continue;
        }
        any = true;
        if word.contains(':') {
            clock(word, sum)?;
            continue;
        }
        let (negative, whole, fraction, rest) = number(word)?;
        let unit = if !rest.is_empty() {
            unit(rest)?
        } else {
            match words.peek().and_then(|next| unit(next)) {
                Some(unit) => {
                    words.next();
                    unit
                }
                // A number alone, at the end, is seconds.
                None if words.peek().is_none() => Unit::Microseconds(SECOND_US),
                None => return None,
            }
        };
        signed(sum, negative, whole, fraction_of(fraction), unit);
    }
    any.then_some(ago)
}

fn signed(sum: &mut Sum, negative: bool, whole: i64, fraction: f64, unit: Unit) {
    if negative && whole == 0 {
        sum.add_parts(0, -fraction, unit);
    } else {
        sum.add(if negative { -whole } else { whole }, fraction, unit);
    }
}

/// Adds `[-]H:M[:S[.fraction]]`.
fn clock(word: &str, sum: &mut Sum) -> Option<()> {
    let (negative, unsigned) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let mut fields = unsigned.split(':');
    let digits =
        |t: &str| (!t.is_empty() && t.len() <= 12 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<i64>().ok()).flatten();
    let hours = digits(fields.next()?)?;
    let minutes = digits(fields.next()?)?;
    let (seconds, fraction) = fields.next().map_or(("0", ""), |s| s.split_once('.').unwrap_or((s, "")));
    let seconds = digits(seconds)?;
    if fields.next().is_some() || minutes > 59 || seconds > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let total = i128::from(hours * 3600 + minutes * 60 + seconds) * i128::from(SECOND_US) + i128::from(microseconds(fraction));
    sum.microseconds += if negative { -total } else { total };
    Some(())
}

/// Adds what follows the `P` of an ISO 8601 duration.
fn parse_iso(text: &str, sum: &mut Sum) -> Option<()> {
    let mut rest = text;
    let mut in_time = false;
    let mut any = false;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't'])
            && !in_time
        {
            (in_time, rest) = (true, after);
            continue;
        }
        let (negative, whole, fraction, after) = number(rest)?;
        let letter = after.chars().next()?;
        let unit = match (letter.to_ascii_uppercase(), in_time) {
            ('Y', false) => Unit::Months(12),
            ('M', false) => Unit::Months(1),
            ('W', false) => Unit::Days(7),
            ('D', false) => Unit::Days(1),
            ('H', true) => Unit::Microseconds(3600 * SECOND_US),
            ('M', true) => Unit::Microseconds(60 * SECOND_US),
            ('S', true) => Unit::Microseconds(SECOND_US),
            _ => return None,
        };
        signed(sum, negative, whole, fraction_of(fraction), unit);
        rest = &after[letter.len_utf8()..];
        any = true;
    }
    any.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(value: IntervalMonthDayNano) -> String {
        let mut out = BytesMut::new();
        put_interval(&mut out, value);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn printed_like_postgresql() {
        let cases = [
            ((0, 0, 0), "00:00:00"),
            ((14, 3, 14_706_700_000_000), "1 year 2 mons 3 days 04:05:06.7"),
            ((12, 1, 0), "1 year 1 day"),
            ((-1, 2, 3_000_000_000), "-1 mons +2 days 00:00:03"),
            ((-1, 0, 3_000_000_000), "-1 mons +00:00:03"),
            ((0, 1, -3_600_000_000_000), "1 day -01:00:00"),
            ((-14, 0, 0), "-1 years -2 mons"),
            ((0, 0, 360_000_000_000_000), "100:00:00"),
            ((0, 0, -500_000_000), "-00:00:00.5"),
        ];
        for ((months, days, nanoseconds), expected) in cases {
            let value = IntervalMonthDayNano::new(months, days, nanoseconds);
            assert_eq!(text(value), expected);
            assert_eq!(parse_interval(expected).unwrap(), value, "{expected}");
        }
    }

    #[test]
    fn read_in_many_forms() {
        let cases = [
            ("1 day", "1 day"),
            ("1d 2h", "1 day 02:00:00"),
            ("90 minutes ago", "-01:30:00"),
            ("1.5 days", "1 day 12:00:00"),
            ("1.5 months", "1 mon 15 days"),
            ("1.5 years", "1 year 6 mons"),
            ("-0.5 hours", "-00:30:00"),
            ("P1Y2M3DT4H5M6.5S", "1 year 2 mons 3 days 04:05:06.5"),
            ("PT0.1S", "00:00:00.1"),
            ("@ 2 weeks", "14 days"),
            ("5", "00:00:05"),
            ("100 ms", "00:00:00.1"),
            ("1 century", "100 years"),
        ];
        for (t, expected) in cases {
            assert_eq!(text(parse_interval(t).unwrap()), expected, "{t}");
        }
        for t in ["", "abc", "1 parsec", "P", "PX", "1:2:3:4", "ago", "1 2 days", "P1H", "1 day ago ago", "-", "."] {
            assert_eq!(parse_interval(t).unwrap_err().state(), INVALID_DATETIME_FORMAT, "{t}");
        }
        assert_eq!(parse_interval("99999999999 years").unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW);
        assert_eq!(parse_interval("9999999999999 hours").unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW);
    }
}
