//! Dates, times and timestamps, in ISO 8601 and PostgreSQL's output forms.

use millpond_common::SqlState;

use super::{Bad, shown};

const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01. A time after the date is allowed and dropped.
pub fn date(text: &[u8]) -> Result<i32, Bad> {
    let moment = moment(text).map_err(|f| f.bad("date", text))?;
    i32::try_from(moment.day).map_err(|_| Failure::Range.bad("date", text))
}

/// Microseconds since midnight.
pub fn time(text: &[u8]) -> Result<i64, Bad> {
    let mut cursor = Cursor { rest: text.trim_ascii() };
    let result = cursor.clock().and_then(|us| {
        cursor.zone()?;
        if cursor.rest.is_empty() { Ok(us) } else { Err(Failure::Syntax) }
    });
    result.map_err(|f| f.bad("time", text))
}

/// Microseconds since 1970-01-01 00:00:00 on the clock that the text shows: a zone is read and dropped, as PostgreSQL does.
pub fn timestamp(text: &[u8]) -> Result<i64, Bad> {
    let moment = moment(text).map_err(|f| f.bad("timestamp", text))?;
    moment.micros(0).ok_or_else(|| Failure::Range.bad("timestamp", text))
}

/// Microseconds since 1970-01-01 00:00:00 UTC; without a zone the text is UTC.
pub fn timestamptz(text: &[u8]) -> Result<i64, Bad> {
    let moment = moment(text).map_err(|f| f.bad("timestamp with time zone", text))?;
    moment.micros(moment.offset_s.unwrap_or(0)).ok_or_else(|| Failure::Range.bad("timestamp with time zone", text))
}

enum Failure {
    Syntax,
    Range,
}

impl Failure {
    fn bad(self, type_name: &str, text: &[u8]) -> Bad {
        match self {
            Failure::Syntax => Bad::syntax(type_name, text),
            Failure::Range => {
                Bad::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{}\"", shown(text)))
            }
        }
    }
}

/// A date with a clock and perhaps a zone.
struct Moment {
    day: i64,
    clock_us: i64,
    offset_s: Option<i64>,
}

impl Moment {
    fn micros(&self, offset_s: i64) -> Option<i64> {
        self.day.checked_mul(DAY_US)?.checked_add(self.clock_us)?.checked_sub(offset_s * 1_000_000)
    }
}

fn moment(text: &[u8]) -> Result<Moment, Failure> {
    if let Some(moment) = fixed(text) {
        return Ok(moment);
    }
    let mut cursor = Cursor { rest: text.trim_ascii() };
    let day = cursor.date()?;
    let mut moment = Moment { day, clock_us: 0, offset_s: None };
    match cursor.rest.first() {
        None => return Ok(moment),
        Some(b'T' | b't') => cursor.rest = &cursor.rest[1..],
        Some(b' ') => cursor.spaces(),
        Some(_) => return Err(Failure::Syntax),
    }
    moment.clock_us = cursor.clock()?;
    moment.offset_s = cursor.zone()?;
    if cursor.rest.is_empty() { Ok(moment) } else { Err(Failure::Syntax) }
}

/// The form in which machines write, `2024-02-29T23:59:59.999999`, with or without a fraction: everything is at its place. `None`: it is another.
fn fixed(text: &[u8]) -> Option<Moment> {
    let (head, fraction) = text.split_first_chunk::<19>()?;
    if ![head[4], head[7], head[13], head[16]].iter().eq(b"--::") || !matches!(head[10], b'T' | b' ') {
        return None;
    }
    let mut other = false;
    let mut digits = |from: usize, count: usize| {
        head[from..from + count].iter().fold(0, |value, byte| {
            let digit = byte.wrapping_sub(b'0');
            other |= digit > 9;
            value * 10 + i64::from(digit)
        })
    };
    let (year, month, day) = (digits(0, 4), digits(5, 2), digits(8, 2));
    let (hour, minute, second) = (digits(11, 2), digits(14, 2), digits(17, 2));
    if other
        || year == 0
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if digits.len() <= 6 && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().chain(&b"000000"[digits.len()..]).fold(0, |value, byte| value * 10 + i64::from(byte - b'0'))
        }
        _ => return None,
    };
    let clock_us = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    Some(Moment { day: days_from_civil(year, month, day), clock_us, offset_s: None })
}

/// What of a text is still to be read.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Result<i64, Failure> {
        let count = self.rest.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        if count < least {
            return Err(Failure::Syntax);
        }
        let value = self.rest[..count].iter().fold(0, |v, b| v * 10 + i64::from(b - b'0'));
        self.rest = &self.rest[count..];
        Ok(value)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn spaces(&mut self) {
        while self.take(b' ') {}
    }

    /// `2024-02-29`, `2024/2/29` or `20240229`.
    fn date(&mut self) -> Result<i64, Failure> {
        let compact = self.rest.iter().take_while(|b| b.is_ascii_digit()).count() == 8;
        let (year, month, day) = if compact {
            (self.number(4, 4)?, self.number(2, 2)?, self.number(2, 2)?)
        } else {
            let year = self.number(4, 6)?;
            let separator = if self.take(b'-') {
                b'-'
            } else if self.take(b'/') {
                b'/'
            } else {
                return Err(Failure::Syntax);
            };
            let month = self.number(1, 2)?;
            if !self.take(separator) {
                return Err(Failure::Syntax);
            }
            (year, month, self.number(1, 2)?)
        };
        if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(Failure::Range);
        }
        Ok(days_from_civil(year, month, day))
    }

    /// `23:59`, `23:59:59` or `23:59:59.999999`; fractions are rounded to microseconds.
    fn clock(&mut self) -> Result<i64, Failure> {
        let hour = self.number(1, 2)?;
        if !self.take(b':') {
            return Err(Failure::Syntax);
        }
        let minute = self.number(2, 2)?;
        let mut second = 0;
        let mut micros = 0;
        if self.take(b':') {
            second = self.number(2, 2)?;
            if self.take(b'.') {
                micros = self.fraction();
            }
        }
        let total = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
        if hour > 24 || minute > 59 || second > 60 || total > DAY_US {
            return Err(Failure::Range);
        }
        Ok(total)
    }

    fn fraction(&mut self) -> i64 {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let digit = |i: usize| if i < count { i64::from(self.rest[i] - b'0') } else { 0 };
        let micros = (0..6).fold(0, |v, i| v * 10 + digit(i)) + i64::from(digit(6) >= 5);
        self.rest = &self.rest[count..];
        micros
    }

    /// Seconds east of UTC: `Z`, `UTC`, `+02`, `+0230`, `+02:30`.
    fn zone(&mut self) -> Result<Option<i64>, Failure> {
        self.spaces();
        if self.rest.is_empty() {
            return Ok(None);
        }
        if ["z", "utc", "gmt"].iter().any(|name| self.rest.eq_ignore_ascii_case(name.as_bytes())) {
            self.rest = &[];
            return Ok(Some(0));
        }
        let sign = if self.take(b'+') {
            1
        } else if self.take(b'-') {
            -1
        } else {
            return Err(Failure::Syntax);
        };
        let hours = self.number(1, 2)?;
        self.take(b':');
        let minutes = if self.rest.is_empty() { 0 } else { self.number(2, 2)? };
        let seconds = if self.take(b':') { self.number(2, 2)? } else { 0 };
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(Failure::Range);
        }
        Ok(Some(sign * ((hours * 60 + minutes) * 60 + seconds)))
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years are counted from March, so that the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let year = if month > 2 { year } else { year - 1 };
    let century_start = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    century_start * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With a space before it, a text is read part by part, whatever its form.
        #[test]
        fn fixed_and_free_forms_agree(
            date in "(19|20)[0-9]{2}-([01][0-9]-[0-3][0-9]|02-(28|29|30)|(0[1-9]|1[0-2])-(30|31|32))", clock in "[T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]", fraction in "(|\\.[0-9]{0,8})(|Z)", at in 0usize..40, other in "[ -~]",
        ) {
            let right = [date, clock, fraction].concat();
            let mut wrong = right.clone();
            wrong.replace_range(at.min(right.len() - 1)..=at.min(right.len() - 1), &other);
            for text in [right, wrong] {
                let free = timestamp(format!(" {text}").as_bytes());
                prop_assert_eq!(timestamp(text.as_bytes()).ok(), free.ok(), "{}", text);
            }
        }
    }

    #[test]
    fn fixed_form_is_used() {
        for text in ["2024-02-29T23:59:59.999999", "2024-02-29 00:00:00", "0001-01-01 00:00:00.5"] {
            assert_eq!(fixed(text.as_bytes()).unwrap().micros(0), timestamp(format!(" {text}").as_bytes()).ok(), "{text}");
        }
    }
}
