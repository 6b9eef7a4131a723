//! Dates, times and timestamps in the ISO style.

use crate::{Error, Result, SqlState};
use bytes::{BufMut, BytesMut};

use super::number::put_unsigned;
use super::zone::Zone;
use super::{INVALID_DATETIME_FORMAT, shorten};

/// Microseconds in a day.
pub const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;
/// 24 November 4714 BC, where Julian days and PostgreSQL's dates begin.
const FIRST_DAY: i64 = -2_440_588;
/// 31 December 5874897, PostgreSQL's last date.
const LAST_DAY: i64 = 2_145_042_905;
const INVALID_ZONE_DISPLACEMENT: SqlState = SqlState("22009");

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (year 0 is 1 BC).
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is a year's last; an era is 400 years, 146,097 days.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * m + 2) / 5 + 1)
}

fn put_civil(out: &mut BytesMut, days: i64) -> bool {
    let (year, month, day) = civil_from_days(days);
    let before_christ = year <= 0;
    let shown = if before_christ { 1 - year } else { year };
    put_unsigned(out, u128::from(shown.unsigned_abs()), 4);
    out.put_u8(b'-');
    put_unsigned(out, u128::from(month.unsigned_abs()), 2);
    out.put_u8(b'-');
    put_unsigned(out, u128::from(day.unsigned_abs()), 2);
    before_christ
}

/// Appends a date given in days since 1970-01-01.
pub fn put_date(out: &mut BytesMut, days: i32) {
    if put_civil(out, i64::from(days)) {
        out.put_slice(b" BC");
    }
}

/// Appends a time of day given in microseconds.
pub fn put_time(out: &mut BytesMut, microseconds: i64) {
    let seconds = microseconds.div_euclid(SECOND_US);
    put_clock(out, seconds / 3600, seconds / 60 % 60, seconds % 60, microseconds.rem_euclid(SECOND_US));
}

pub(super) fn put_clock(out: &mut BytesMut, hours: i64, minutes: i64, seconds: i64, microseconds: i64) {
    put_unsigned(out, u128::from(hours.unsigned_abs()), 2);
    out.put_u8(b':');
    put_unsigned(out, u128::from(minutes.unsigned_abs()), 2);
    out.put_u8(b':');
    put_unsigned(out, u128::from(seconds.unsigned_abs()), 2);
    if microseconds != 0 {
        out.put_u8(b'.');
        put_unsigned(out, u128::from(microseconds.unsigned_abs()), 6);
        while out.last() == Some(&b'0') {
            out.truncate(out.len() - 1);
        }
    }
}

/// Appends a timestamp given in microseconds since 1970-01-01; a moment as clocks of its zone show it, with their offset.
pub fn put_timestamp(out: &mut BytesMut, microseconds: i64, zone: Option<Zone>) {
    let offset = zone.map_or(0, |z| z.offset(microseconds));
    let shown = microseconds.saturating_add(i64::from(offset) * SECOND_US);
    let before_christ = put_civil(out, shown.div_euclid(DAY_US));
    out.put_u8(b' ');
    put_time(out, shown.rem_euclid(DAY_US));
    if zone.is_some() {
        put_offset(out, offset);
    }
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// Seconds east of Greenwich as a text.
pub fn offset_text(seconds: i32) -> String {
    let mut out = BytesMut::new();
    put_offset(&mut out, seconds);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends seconds east of Greenwich: `+02`, `-03:30`.
pub fn put_offset(out: &mut BytesMut, seconds: i32) {
    out.put_u8(if seconds < 0 { b'-' } else { b'+' });
    let seconds = u128::from(seconds.unsigned_abs());
    put_unsigned(out, seconds / 3600, 2);
    for (part, rest) in [(seconds / 60 % 60, seconds % 3600), (seconds % 60, seconds % 60)] {
        if rest != 0 {
            out.put_u8(b':');
            put_unsigned(out, part, 2);
        }
    }
}

/// What a text says about a point in time.
struct Parts {
    days: Option<i64>,
    time: Option<i64>,
    /// Seconds east of Greenwich.
    offset: Option<i64>,
}

enum Bad {
    Syntax,
    Range,
    Zone,
}

/// Reads a date; a time of day after it is ignored, as PostgreSQL does.
pub fn parse_date(text: &str) -> Result<i32> {
    let days = parse(text).and_then(|p| p.days.ok_or(Bad::Syntax)).map_err(|bad| error(bad, "date", text))?;
    i32::try_from(days)
        .ok()
        .filter(|days| (FIRST_DAY..=LAST_DAY).contains(&i64::from(*days)))
        .ok_or_else(|| Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date out of range: \"{}\"", shorten(text))))
}

/// Reads a time of day, in microseconds.
pub fn parse_time(text: &str) -> Result<i64> {
    parse(text).and_then(|p| p.time.ok_or(Bad::Syntax)).map_err(|bad| error(bad, "time", text))
}

/// Reads a timestamp, in microseconds since 1970-01-01. Without time zone, an offset in the text is ignored;
/// with time zone, the result is in UTC, and a text without offset is in the [current zone](Zone::current).
pub fn parse_timestamp(text: &str, with_zone: bool) -> Result<i64> {
    let name = if with_zone { "timestamp with time zone" } else { "timestamp" };
    let parts = parse(text).map_err(|bad| error(bad, name, text))?;
    let days = parts.days.ok_or_else(|| error(Bad::Syntax, name, text))?;
    days.checked_mul(DAY_US)
        .and_then(|us| us.checked_add(parts.time.unwrap_or(0)))
        .and_then(|us| match parts.offset {
            _ if !with_zone => Some(us),
            Some(offset) => us.checked_sub(offset * SECOND_US),
            None => Zone::current().moment(us),
        })
        .filter(|us| *us >= FIRST_DAY * DAY_US)
        .ok_or_else(|| Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("timestamp out of range: \"{}\"", shorten(text))))
}

fn error(bad: Bad, type_name: &str, text: &str) -> Error {
    match bad {
        Bad::Syntax => Error::new(INVALID_DATETIME_FORMAT, format!("invalid input syntax for type {type_name}: \"{}\"", shorten(text))),
        Bad::Zone => Error::new(INVALID_ZONE_DISPLACEMENT, format!("time zone displacement out of range: \"{}\"", shorten(text))),
        Bad::Range => Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{}\"", shorten(text))),
    }
}

/// Reads `[date] [time[zone]] [BC]`.
fn parse(text: &str) -> Result<Parts, Bad> {
    let mut rest = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if rest.eq_ignore_ascii_case("epoch") {
        return Ok(Parts { days: Some(0), time: Some(0), offset: Some(0) });
    }
    let mut before_christ = false;
    for (suffix, bc) in [(" BC", true), (" AD", false), (" bc", true), (" ad", false)] {
        if let Some(head) = rest.strip_suffix(suffix) {
            (rest, before_christ) = (head.trim_end(), bc);
        }
    }
    let mut parts = Parts { days: None, time: None, offset: None };
    let digits = count_digits(rest);
    if rest.as_bytes().get(digits) != Some(&b':') {
        let length = rest.find(|c: char| c == 'T' || c == 't' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        parts.days = Some(date(&rest[..length], before_christ)?);
        rest = rest[length..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        rest = rest.strip_prefix(['T', 't']).unwrap_or(rest);
    } else if before_christ {
        return Err(Bad::Syntax);
    }
    if !rest.is_empty() {
        let length = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(rest.len());
        let (clock, zone) = rest.split_at(length);
        let zone = zone.trim_start();
        let (half, zone) = match zone.get(..2) {
            Some(h) if h.eq_ignore_ascii_case("am") => (Some(false), zone[2..].trim_start()),
            Some(h) if h.eq_ignore_ascii_case("pm") => (Some(true), zone[2..].trim_start()),
            _ => (None, zone),
        };
        parts.time = Some(time(clock, half)?);
        parts.offset = if zone.is_empty() { None } else { Some(offset(zone)?) };
    }
    Ok(parts)
}

fn count_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn number(text: &str) -> Result<i64, Bad> {
    if text.is_empty() || text.len() > 9 || count_digits(text) != text.len() {
        return Err(Bad::Syntax);
    }
    text.parse().map_err(|_| Bad::Syntax)
}

fn date(text: &str, before_christ: bool) -> Result<i64, Bad> {
    let (year, month, day) = if count_digits(text) == text.len() && text.len() == 8 {
        (number(&text[..4])?, number(&text[4..6])?, number(&text[6..])?)
    } else {
        let separator = if text.contains('-') { '-' } else { '/' };
        let mut fields = text.split(separator);
        let (Some(a), Some(b), Some(c), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
            return Err(Bad::Syntax);
        };
        match (a.len() >= 3, c.len() >= 3) {
            (true, _) => (number(a)?, month_number(b)?, number(c)?),
            // DateStyle is MDY.
            (false, true) => (number(c)?, number(a)?, number(b)?),
            (false, false) => return Err(Bad::Syntax),
        }
    };
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if year == 0 || !(1..=12).contains(&month) {
        return Err(Bad::Range);
    }
    let year = if before_christ { 1 - year } else { year };
    let length = match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=length).contains(&day) {
        return Err(Bad::Range);
    }
    Ok(days_from_civil(year, month, day))
}

fn month_number(text: &str) -> Result<i64, Bad> {
    const NAMES: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let named = NAMES.iter().position(|n| n.eq_ignore_ascii_case(text));
    named.map_or_else(|| number(text), |i| Ok(i as i64 + 1))
}

/// Reads `H:M[:S[.fraction]]` or `HHMM[SS[.fraction]]`; `half` is Some(true) for PM.
fn time(text: &str, half: Option<bool>) -> Result<i64, Bad> {
    let digits = count_digits(text);
    if matches!(digits, 4 | 6) && !text[digits..].starts_with(':') {
        let seconds = if digits == 6 { &text[4..] } else { "0" };
        return time(&format!("{}:{}:{seconds}", &text[..2], &text[2..4]), half);
    }
    let mut fields = text.split(':');
    let (Some(hour), Some(minute)) = (fields.next(), fields.next()) else { return Err(Bad::Syntax) };
    let second = fields.next().unwrap_or("0");
    if fields.next().is_some() {
        return Err(Bad::Syntax);
    }
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    if count_digits(fraction) != fraction.len() {
        return Err(Bad::Syntax);
    }
    let (mut hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    match half {
        Some(_) if hour > 12 => return Err(Bad::Range),
        Some(pm) => hour = hour % 12 + if pm { 12 } else { 0 },
        None => {}
    }
    let time = ((hour * 60 + minute) * 60 + second) * SECOND_US + microseconds(fraction);
    if minute > 59 || second > 60 || !(0..=DAY_US).contains(&time) || hour > 24 { Err(Bad::Range) } else { Ok(time) }
}

/// The digits after a decimal point, as microseconds, rounded as PostgreSQL does: in double precision, ties to even.
pub(super) fn microseconds(fraction: &str) -> i64 {
    if fraction.len() > 6 {
        let seconds: f64 = format!("0.{fraction}").parse().unwrap_or(0.0);
        return (seconds * 1e6).round_ties_even() as i64;
    }
    fraction.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |value, b| value * 10 + i64::from(b - b'0'))
}

/// Reads `Z`, `UTC`, `+02`, `+02:30`, `-0230`, as seconds east.
fn offset(text: &str) -> Result<i64, Bad> {
    if ["z", "utc", "gmt"].iter().any(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(0);
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(Bad::Syntax),
    };
    let (hours, minutes, seconds) = match digits.split_once(':') {
        Some((h, rest)) => {
            let (m, s) = rest.split_once(':').unwrap_or((rest, "0"));
            (number(h)?, number(m)?, number(s)?)
        }
        None if digits.len() == 4 && digits.is_ascii() => (number(&digits[..2])?, number(&digits[2..])?, 0),
        None => (number(digits)?, 0, 0),
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Bad::Zone);
    }
    Ok(sign * (hours * 3600 + minutes * 60 + seconds))
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
    fn civil_days_go_both_ways() {
        for days in
            (-800_000..800_000).step_by(97).chain([-719_529, -719_528, -719_163, -719_162, 0, i64::from(i32::MAX), i64::from(i32::MIN)])
        {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(19_782), (2024, 2, 29));
    }

    #[test]
    fn dates() {
        for t in ["2024-02-29", "0001-01-01", "0001-12-31 BC", "12345-06-07", "1969-12-31"] {
            assert_eq!(text(|o| put_date(o, parse_date(t).unwrap())), t);
        }
        for (t, same) in [
            ("20240229", "2024-02-29"),
            ("2/29/2024", "2024-02-29"),
            ("2024-feb-29", "2024-02-29"),
            ("2024-2-9", "2024-02-09"),
            (" 2024-02-29 10:00:00 ", "2024-02-29"),
        ] {
            assert_eq!(text(|o| put_date(o, parse_date(t).unwrap())), same);
        }
        for t in ["", "abc", "2024", "2024-1", "10:00", "2024-01-01-01", "é", "1-1-1"] {
            assert_eq!(parse_date(t).unwrap_err().state(), INVALID_DATETIME_FORMAT, "{t}");
        }
        for t in ["2023-02-29", "2024-13-01", "2024-00-01", "2024-01-32", "0000-01-01", "99999999-01-01", "4714-11-23 BC", "5874898-01-01"]
        {
            assert_eq!(parse_date(t).unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW, "{t}");
        }
    }

    #[test]
    fn times_and_timestamps() {
        for t in ["00:00:00", "23:59:59.999999", "12:30:00.5", "24:00:00"] {
            assert_eq!(text(|o| put_time(o, parse_time(t).unwrap())), t);
        }
        assert_eq!(text(|o| put_time(o, parse_time("1:02 PM").unwrap())), "13:02:00");
        assert!(parse_time("25:00:00").is_err() && parse_time("10:61").is_err() && parse_time("2024-01-01").is_err());
        for t in ["2024-01-01 00:00:00", "1969-12-31 23:59:59.5", "0044-03-15 12:00:00 BC"] {
            assert_eq!(text(|o| put_timestamp(o, parse_timestamp(t, false).unwrap(), None)), t);
        }
        let cases = [
            ("2024-01-01", "2024-01-01 00:00:00+00"),
            ("2024-01-01T12:00:00Z", "2024-01-01 12:00:00+00"),
            ("2024-01-01 12:00:00+02", "2024-01-01 10:00:00+00"),
            ("2024-01-01 12:00:00.123456-05:30", "2024-01-01 17:30:00.123456+00"),
            ("2024-01-01 12:00 UTC", "2024-01-01 12:00:00+00"),
            ("2024-01-01 12:00:00-0530", "2024-01-01 17:30:00+00"),
            ("epoch", "1970-01-01 00:00:00+00"),
        ];
        for (t, same) in cases {
            assert_eq!(text(|o| put_timestamp(o, parse_timestamp(t, true).unwrap(), Some(Zone::UTC))), same, "{t}");
        }
        assert_eq!(parse_timestamp("2024-01-01 12:00:00+02", false).unwrap(), parse_timestamp("2024-01-01 12:00:00", false).unwrap());
        assert!(parse_timestamp("999999-01-01", false).is_err());
        assert!(parse_timestamp("2024-01-01 12:00:00+99", true).is_err());
    }
}
