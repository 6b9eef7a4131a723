//! Intervals: PostgreSQL's `1 year 2 mons 3 days -04:05:06.7`, abbreviated `1y 2mon 3d`, and ISO 8601's `P1Y2M3DT4H`.

use arrow::array::types::IntervalMonthDayNano;

use super::Bad;

/// An interval; fractions of a unit become the next smaller ones, as in PostgreSQL: a month has 30 days, a day 24 hours.
pub fn interval(text: &[u8]) -> Result<IntervalMonthDayNano, Bad> {
    let trimmed = std::str::from_utf8(text.trim_ascii()).ok();
    let parsed = trimmed.and_then(|t| match t.strip_prefix('P') {
        Some(iso) => iso_8601(iso),
        None => postgres(t),
    });
    parsed.and_then(Sum::finish).ok_or_else(|| Bad::syntax("interval", text))
}

const DAYS_PER_MONTH: f64 = 30.0;
const HOUR_NS: f64 = 3.6e12;
const MINUTE_NS: f64 = 6e10;
const SECOND_NS: f64 = 1e9;

/// What has been read; whole numbers, so that sums are exact.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    nanos: i64,
    any: bool,
}

impl Sum {
    fn finish(self) -> Option<IntervalMonthDayNano> {
        let (months, days) = (i32::try_from(self.months).ok()?, i32::try_from(self.days).ok()?);
        // to microseconds, which is what PostgreSQL keeps
        let micros = self.nanos.checked_add(500)?.div_euclid(1000);
        self.any.then_some(IntervalMonthDayNano { months, days, nanoseconds: micros * 1000 })
    }

    fn add_months(&mut self, number: f64) -> Option<()> {
        self.months = self.months.checked_add(whole(number)?)?;
        self.add_days(number.fract() * DAYS_PER_MONTH)
    }

    fn add_days(&mut self, number: f64) -> Option<()> {
        self.days = self.days.checked_add(whole(number)?)?;
        self.add_nanos(number.fract() * 24.0 * HOUR_NS)
    }

    fn add_nanos(&mut self, nanos: f64) -> Option<()> {
        self.nanos = self.nanos.checked_add(whole(nanos.round())?)?;
        self.any = true;
        Some(())
    }

    fn add(&mut self, number: f64, unit: &str) -> Option<()> {
        match unit.to_ascii_lowercase().as_str() {
            "millennium" | "millennia" | "mil" => self.add_months(number * 12_000.0),
            "century" | "centuries" | "c" => self.add_months(number * 1200.0),
            "decade" | "decades" => self.add_months(number * 120.0),
            "year" | "years" | "yr" | "yrs" | "y" => self.add_months(number * 12.0),
            "month" | "months" | "mon" | "mons" => self.add_months(number),
            "week" | "weeks" | "w" => self.add_days(number * 7.0),
            "day" | "days" | "d" => self.add_days(number),
            "hour" | "hours" | "hr" | "hrs" | "h" => self.add_nanos(number * HOUR_NS),
            "minute" | "minutes" | "min" | "mins" | "m" => self.add_nanos(number * MINUTE_NS),
            "second" | "seconds" | "sec" | "secs" | "s" => self.add_nanos(number * SECOND_NS),
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => self.add_nanos(number * 1e6),
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => self.add_nanos(number * 1e3),
            _ => None,
        }
    }
}

fn whole(number: f64) -> Option<i64> {
    (number.abs() < 9e18).then_some(number.trunc() as i64)
}

fn postgres(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut words = text.strip_prefix('@').unwrap_or(text).split_ascii_whitespace().peekable();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("ago") {
            if words.next().is_some() {
                return None;
            }
            sum.months = -sum.months;
            sum.days = -sum.days;
            sum.nanos = -sum.nanos;
        } else if word.contains(':') {
            sum.add_nanos(clock(word)?)?;
        } else {
            let mut rest = word;
            while !rest.is_empty() {
                let digits = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
                let number = rest[..digits].parse::<f64>().ok().filter(|n| n.is_finite())?;
                let after = &rest[digits..];
                let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
                let unit = match &after[..letters] {
                    "" => words.next_if(|w| w.chars().all(|c| c.is_ascii_alphabetic()) && !w.eq_ignore_ascii_case("ago")).unwrap_or("s"),
                    attached => attached,
                };
                sum.add(number, unit)?;
                rest = &after[letters..];
            }
        }
    }
    Some(sum)
}

/// `[-+]HH:MM[:SS[.f]]` in nanoseconds.
fn clock(text: &str) -> Option<f64> {
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten();
    let mut parts = text.split(':');
    let hours = digits(parts.next()?)?;
    let minutes = digits(parts.next()?).filter(|m| *m < 60)?;
    let seconds = match parts.next() {
        None => 0.0,
        Some(part) if part.starts_with(|c: char| c.is_ascii_digit()) => part.parse::<f64>().ok().filter(|s| *s < 61.0)?,
        Some(_) => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    Some(sign * (f64::from(hours) * HOUR_NS + f64::from(minutes) * MINUTE_NS + seconds * SECOND_NS))
}

/// What follows the `P`.
fn iso_8601(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut in_time = false;
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T') {
            in_time = true;
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let number = rest[..end].parse::<f64>().ok()?;
        let unit = match (rest.as_bytes()[end], in_time) {
            (b'Y', false) => "y",
            (b'M', false) => "mon",
            (b'W', false) => "w",
            (b'D', false) => "d",
            (b'H', true) => "h",
            (b'M', true) => "m",
            (b'S', true) => "s",
            _ => return None,
        };
        sum.add(number, unit)?;
        rest = &rest[end + 1..];
    }
    Some(sum)
}
