//! `to_char`: times and numbers by PostgreSQL's patterns.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::types::IntervalMonthDayNano;
use arrow::array::{Array, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{IntervalMonthDayNanoType, TimestampMicrosecondType};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, Volatility};
use millpond_common::SqlType;
use millpond_common::text::zone::Zone;
use millpond_common::text::{datetime, encode};

use super::number_format::format_number;
use super::{Function, external, field, mismatch};

/// `to_char(value, pattern)`
pub(super) fn to_char() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        let value = match types {
            [DataType::Timestamp(_, zone), _] => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            [DataType::Date32, _] => DataType::Timestamp(TimeUnit::Microsecond, None),
            [DataType::Interval(_), _] => SqlType::Interval.arrow(),
            [number, _] if number.is_numeric() => number.clone(),
            _ => return Err(mismatch("to_char", types)),
        };
        Ok(vec![value, DataType::Utf8])
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
        let [values, patterns] = arrays.as_slice() else { return Err(mismatch("to_char", &[])) };
        let patterns = patterns.as_string::<i32>();
        // Numbers are formatted from their digits, which are exact.
        let numbers = match values.data_type() {
            of if of.is_numeric() => Some(encode::to_text(values, &SqlType::of(&args.arg_fields[0])).map_err(external)?),
            _ => None,
        };
        let zone = matches!(values.data_type(), DataType::Timestamp(_, Some(_))).then(|| Zone::of(values.data_type()));
        let texts: StringArray = match values.data_type() {
            DataType::Timestamp(..) => {
                let (moments, mut last) = (values.as_primitive::<TimestampMicrosecondType>(), Last::default());
                let mut texts = StringBuilder::with_capacity(values.len(), 0);
                for (moment, pattern) in moments.iter().zip(patterns) {
                    let (Some(moment), Some(pattern)) = (moment, pattern) else {
                        texts.append_null();
                        continue;
                    };
                    let offset = zone.map_or(0, |zone| zone.offset(moment));
                    let shown = moment.checked_add(i64::from(offset) * 1_000_000);
                    texts.append_option(shown.and_then(|shown| {
                        last.text((shown, offset), pattern, || {
                            let time = DateTime::from_timestamp_micros(shown)?;
                            let (day, hour) = (i64::from(time.day()), i64::from(time.hour()));
                            let zone = zone.map(|zone| (zone.abbreviation(moment), offset));
                            Some(format_time(&Time { time: time.naive_utc(), day, hour, zone }, pattern))
                        })
                    }));
                }
                texts.finish()
            }
            DataType::Interval(_) => {
                let text = |interval: IntervalMonthDayNano, pattern| {
                    let time = DateTime::from_timestamp_micros(interval.nanoseconds / 1000)?.naive_utc();
                    let (day, hour) = (interval.days.into(), interval.nanoseconds / 3_600_000_000_000);
                    Some(format_time(&Time { time, day, hour, zone: None }, pattern))
                };
                let intervals = values.as_primitive::<IntervalMonthDayNanoType>();
                intervals.iter().zip(patterns).map(|(interval, pattern)| text(interval?, pattern?)).collect()
            }
            _ => {
                let Some(numbers) = numbers else { return Err(mismatch("to_char", &[])) };
                numbers.iter().zip(patterns).map(|(number, pattern)| Some(format_number(number?, pattern?))).collect()
            }
        };
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
    Function::udf("to_char", Volatility::Immutable, coerce, |_| Ok(field(SqlType::Text)), invoke)
}

/// The last text. What shows dates alone is the same for all times of a day, hours and minutes for those of a minute; and times mostly come in order.
#[derive(Default)]
struct Last {
    pattern: Option<String>,
    /// The microseconds of the smallest part that is shown.
    unit: i64,
    /// The number of the unit that `text` shows, and how many seconds east of Greenwich; `None`: of none.
    shown: Option<(i64, i32)>,
    text: String,
}

impl Last {
    fn text(&mut self, (micros, offset): (i64, i32), pattern: &str, make: impl FnOnce() -> Option<String>) -> Option<&str> {
        if self.pattern.as_deref() != Some(pattern) {
            *self = Last { pattern: Some(pattern.into()), unit: smallest_part(pattern), ..Last::default() };
        }
        let shown = Some((micros.div_euclid(self.unit), offset));
        if self.shown != shown {
            self.shown = None;
            self.text = make()?;
            self.shown = shown;
        }
        Some(&self.text)
    }
}

/// No text of the pattern changes within so many microseconds, counted from midnight, as long as the zone has the same offset.
fn smallest_part(pattern: &str) -> i64 {
    // A zone's name may change at any moment, and then its offset need not.
    const PARTS: [(i64, &[&str]); 3] =
        [(1, &["MS", "US", "TZ", "OF"]), (1_000_000, &["SS"]), (60_000_000, &["HH", "MI", "AM", "PM", "A.M", "P.M"])];
    let upper = pattern.to_uppercase();
    let part = PARTS.iter().find(|(_, names)| names.iter().any(|name| upper.contains(name)));
    part.map_or(86_400_000_000, |(micros, _)| *micros)
}

/// The patterns of time, a longer one before those that it begins with.
const PATTERNS: [&str; 48] = [
    "Y,YYY", "YYYY", "YYY", "YY", "Y", "IYYY", "IYY", "IY", "HH24", "HH12", "HH", "MONTH", "Month", "month", "MON", "Mon", "mon", "MM",
    "MI", "MS", "IDDD", "DDD", "DD", "DAY", "Day", "day", "DY", "Dy", "dy", "D", "ID", "IW", "I", "SSSSS", "SSSS", "SS", "US", "A.M.",
    "P.M.", "a.m.", "p.m.", "AM", "PM", "am", "pm", "WW", "W", "Q",
];
/// Those after which nothing but their own case counts.
const WORDS: [&str; 17] =
    ["MONTH", "Month", "month", "MON", "Mon", "mon", "DAY", "Day", "day", "DY", "Dy", "dy", "A.M.", "P.M.", "a.m.", "p.m.", "AM"];

/// What is shown. An interval's days and hours may be more than those of a month and a day.
struct Time {
    time: NaiveDateTime,
    day: i64,
    hour: i64,
    /// A moment's: what it is called, and its seconds east of Greenwich.
    zone: Option<(String, i32)>,
}

fn format_time(time: &Time, pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(zone) = ["TZ", "tz", "OF"].into_iter().find(|z| rest.starts_with(z)) {
            if let Some((name, offset)) = &time.zone {
                match zone {
                    "TZ" => out.push_str(name),
                    "tz" => out.push_str(&name.to_lowercase()),
                    _ => out.push_str(&datetime::offset_text(*offset)),
                }
            }
            rest = &rest[2..];
            continue;
        }
        let (plain, after) = match rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let matches = |p: &&&str| {
            let exact = WORDS.contains(*p) || matches!(**p, "PM" | "am" | "pm");
            after.starts_with(**p) || !exact && after.get(..p.len()).is_some_and(|r| r.eq_ignore_ascii_case(p))
        };
        let Some(found) = PATTERNS.iter().find(matches) else {
            if plain {
                rest = after;
                continue;
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &after[found.len()..];
        let start = out.len();
        put(&mut out, found, time, plain);
        if let Some(ordinal) = rest.strip_prefix("TH").or_else(|| rest.strip_prefix("th"))
            && out[start..].bytes().all(|b| b.is_ascii_digit())
        {
            let suffix = ordinal_suffix(&out[start..]);
            out.push_str(&if rest.starts_with("TH") { suffix.to_uppercase() } else { suffix.into() });
            rest = ordinal;
        }
    }
    out
}

fn ordinal_suffix(digits: &str) -> &'static str {
    let teen = digits.len() > 1 && digits.as_bytes()[digits.len() - 2] == b'1';
    match digits.bytes().last() {
        Some(b'1') if !teen => "st",
        Some(b'2') if !teen => "nd",
        Some(b'3') if !teen => "rd",
        _ => "th",
    }
}

/// Appends one part of a time; `plain` is without padding.
fn put(out: &mut String, pattern: &str, Time { time, day, hour, .. }: &Time, plain: bool) {
    let number = |value: i64, width: usize| match plain {
        true => value.to_string(),
        false => format!("{value:0width$}"),
    };
    let year = i64::from(time.year());
    let iso = i64::from(time.iso_week().year());
    let hour = *hour;
    let half = (hour + 11).rem_euclid(12) + 1;
    let micros = i64::from(time.nanosecond() / 1000);
    let of_year = i64::from(time.ordinal());
    let text = match pattern {
        "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => number(year % 10, 1),
        "IYYY" => number(iso, 4),
        "IYY" => number(iso % 1000, 3),
        "IY" => number(iso % 100, 2),
        "I" => number(iso % 10, 1),
        "HH24" => number(hour, 2),
        "HH12" | "HH" => number(half, 2),
        "MM" => number(time.month().into(), 2),
        "MI" => number(time.minute().into(), 2),
        "SS" => number(time.second().into(), 2),
        "MS" => number(micros / 1000, 3),
        "US" => number(micros, 6),
        "SSSS" | "SSSSS" => number(time.num_seconds_from_midnight().into(), 1),
        "DDD" => number(of_year, 3),
        "IDDD" => number(i64::from(time.iso_week().week0()) * 7 + i64::from(time.weekday().number_from_monday()), 3),
        "DD" => number(*day, 2),
        "D" => number(i64::from(time.weekday().number_from_sunday()), 1),
        "ID" => number(time.weekday().number_from_monday().into(), 1),
        "WW" => number((of_year - 1) / 7 + 1, 2),
        "IW" => number(time.iso_week().week().into(), 2),
        "W" => number(i64::from(time.day0() / 7 + 1), 1),
        "Q" => number(i64::from(time.month0() / 3 + 1), 1),
        "A.M." | "P.M." => if hour < 12 { "A.M." } else { "P.M." }.into(),
        "a.m." | "p.m." => if hour < 12 { "a.m." } else { "p.m." }.into(),
        "AM" | "PM" => if hour < 12 { "AM" } else { "PM" }.into(),
        "am" | "pm" => if hour < 12 { "am" } else { "pm" }.into(),
        _ => {
            let long = pattern.len() > 3 || pattern.eq_ignore_ascii_case("day");
            let name = match (pattern.as_bytes()[0].to_ascii_lowercase(), long) {
                (b'm', true) => time.format("%B").to_string(),
                (b'm', false) => time.format("%b").to_string(),
                (_, true) => time.format("%A").to_string(),
                (_, false) => time.format("%a").to_string(),
            };
            let name = match pattern {
                p if p.bytes().all(|b| b.is_ascii_uppercase()) => name.to_uppercase(),
                p if p.bytes().all(|b| b.is_ascii_lowercase()) => name.to_lowercase(),
                _ => name,
            };
            // Long names are as wide as the longest, September and Wednesday.
            if long && !plain { format!("{name:9}") } else { name }
        }
    };
    let _ = write!(out, "{text}"); // writing to a String cannot fail
}
