//! Time zones by name. An Arrow column of moments carries the one that it is shown in: `Timestamp(µs, "Europe/Berlin")`.

use std::cell::Cell;

use arrow_schema::DataType;
use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::{Error, Result, SqlState};

/// A time zone with its history of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Tz);

thread_local! {
    static CURRENT: Cell<Zone> = const { Cell::new(Zone::UTC) };
}

impl Zone {
    /// Where nothing else is said.
    pub const UTC: Zone = Zone(Tz::UTC);

    /// The zone of this name, in capitals or not.
    pub fn named(name: &str) -> Result<Zone> {
        let other_case = || chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name.trim())).copied();
        name.parse().ok().or_else(other_case).map(Zone).ok_or_else(|| {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
                .with_hint("Use a name such as UTC, Europe/Berlin or Etc/GMT-2.")
        })
    }

    /// The one that moments of an Arrow type are shown in.
    pub fn of(of: &DataType) -> Zone {
        match of {
            DataType::Timestamp(_, Some(name)) if name.as_ref() != "UTC" => Zone::named(name).unwrap_or(Zone::UTC),
            _ => Zone::UTC,
        }
    }

    /// The same type for moments that are shown here; other types stay.
    pub fn shown(self, of: &DataType) -> DataType {
        match of {
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(self.name().into())),
            DataType::List(item) => DataType::List(std::sync::Arc::new(item.as_ref().clone().with_data_type(self.shown(item.data_type())))),
            other => other.clone(),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether it never differs from UTC.
    pub fn is_utc(self) -> bool {
        matches!(self.0, Tz::UTC | Tz::Etc__UTC | Tz::GMT | Tz::Etc__GMT)
    }

    /// Seconds east of Greenwich at a moment, in microseconds since 1970.
    pub fn offset(self, moment: i64) -> i32 {
        if self.is_utc() {
            return 0;
        }
        DateTime::from_timestamp_micros(moment).map_or(0, |m| self.0.offset_from_utc_datetime(&m.naive_utc()).fix().local_minus_utc())
    }

    /// What the zone is called at a moment: `CEST`, or its offset where that has no name.
    pub fn abbreviation(self, moment: i64) -> String {
        DateTime::from_timestamp_micros(moment).map(|m| self.0.offset_from_utc_datetime(&m.naive_utc()).to_string()).unwrap_or_default()
    }

    /// The moment at which clocks here show a time.
    pub fn moment(self, shown: i64) -> Option<i64> {
        if self.is_utc() { Some(shown) } else { moment(&self.0, shown) }
    }

    /// The zone of texts that name none, on this thread.
    pub fn current() -> Zone {
        CURRENT.get()
    }

    /// Makes it that while `f` runs.
    pub fn during<T>(self, f: impl FnOnce() -> T) -> T {
        struct Back(Zone);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _back = Back(CURRENT.replace(self));
        f()
    }
}

/// What clocks show at a moment, in microseconds.
pub fn local<Z: TimeZone>(zone: &Z, moment: i64) -> Option<i64> {
    Some(DateTime::from_timestamp_micros(moment)?.with_timezone(zone).naive_local().and_utc().timestamp_micros())
}

/// The moment at which clocks show a time: the later one where they show it twice; where they jump over it, it is counted with the
/// offset from before.
pub fn moment<Z: TimeZone>(zone: &Z, shown: i64) -> Option<i64> {
    let find = |time: &NaiveDateTime| zone.from_local_datetime(time).latest().map(|found| found.timestamp_micros());
    let time = DateTime::from_timestamp_micros(shown)?.naive_utc();
    let jump = TimeDelta::hours(3);
    find(&time).or_else(|| Some(find(&(time - jump))? + jump.num_microseconds()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    /// 2024-03-31 01:00 UTC, when clocks in Berlin went from 2 to 3.
    const SPRING: i64 = 1_711_846_800_000_000;
    /// 2024-10-27 01:00 UTC, when they went from 3 to 2.
    const AUTUMN: i64 = 1_729_990_800_000_000;

    #[test]
    fn clocks_jump_and_repeat() {
        let berlin = Zone::named("europe/BERLIN").unwrap();
        assert_eq!((berlin.name(), berlin.is_utc(), Zone::UTC.is_utc()), ("Europe/Berlin", false, true));
        // moment, offset in hours, name
        for (moment, hours, name) in [(SPRING - 1, 1, "CET"), (SPRING, 2, "CEST"), (AUTUMN - 1, 2, "CEST"), (AUTUMN, 1, "CET")] {
            assert_eq!((berlin.offset(moment), berlin.abbreviation(moment).as_str()), (hours * 3600, name));
            let shown = local(&berlin.0, moment).unwrap();
            assert_eq!(shown, moment + i64::from(hours) * HOUR);
            // Shown twice, it is the later one.
            let later = if moment == AUTUMN - 1 { moment + HOUR } else { moment };
            assert_eq!(berlin.moment(shown), Some(later));
        }
        // 02:30 was not shown: 03:30.
        assert_eq!(berlin.moment(SPRING + HOUR + HOUR / 2), Some(SPRING + HOUR / 2));
        assert_eq!(Zone::named("nowhere").unwrap_err().state(), SqlState::INVALID_PARAMETER_VALUE);
    }

    #[test]
    fn the_current_zone_ends() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(berlin.during(|| (Zone::current(), Zone::UTC.during(Zone::current))), (berlin, Zone::UTC));
        assert_eq!(Zone::current(), Zone::UTC);
        let tokyo = Zone::named("Asia/Tokyo").unwrap().shown(&DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into())));
        assert_eq!(Zone::of(&tokyo).name(), "Asia/Tokyo");
    }
}
