//! Every setting: its name, default, unit and meaning, in one table that SHOW, SET, ALTER SYSTEM and the
//! documentation read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::text::zone::Zone;
use crate::{Error, Result, SqlState};

/// Who may change a setting, and when it takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// `SET`: this session, at once.
    Session,
    /// `ALTER SYSTEM SET`: the whole server, at once, kept across restarts.
    System,
    /// Shown only.
    ReadOnly,
}

/// What values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `on` or `off`.
    Bool,
    /// A whole number.
    Integer,
    /// A whole number that is not below this one.
    AtLeast(i64),
    /// A duration: a number with `us`, `ms`, `s`, `min`, `h`, `d`; a bare number is milliseconds.
    Duration,
    /// A duration above zero.
    Positive,
    /// A duration that is not below this one.
    AtLeastTime(Duration),
    /// A size: a number with `kB`, `MB`, `GB`; a bare number is bytes.
    Size,
    /// Any text.
    Text,
    /// The name of a time zone.
    Zone,
    /// One of a few words.
    OneOf(&'static [&'static str]),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its default, as SHOW prints it.
    pub default: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Who may change it.
    pub scope: Scope,
    /// One sentence for SHOW ALL.
    pub description: &'static str,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind, scope: Scope, description: &'static str) -> Setting {
    Setting { name, default, kind, scope, description }
}

/// All settings, by name.
pub const SETTINGS: &[Setting] = &[
    setting("application_name", "", Kind::Text, Scope::Session, "Name that the client gives itself."),
    setting(
        "backfill_rate_limit",
        "0",
        Kind::AtLeast(0),
        Scope::System,
        "Rows a second that a new view reads of what its inputs hold already; 0 = as many as it can.",
    ),
    setting("background_ddl", "off", Kind::Bool, Scope::Session, "CREATE MATERIALIZED VIEW returns before the view has caught up."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), Scope::Session, "Output format of bytea."),
    setting("checkpoint_interval", "1s", Kind::Positive, Scope::System, "Time between the barriers of two checkpoints."),
    setting(
        "checkpoint_max_concurrent",
        "1",
        Kind::AtLeast(1),
        Scope::System,
        "Checkpoints that may be on their way at once; they are committed in order.",
    ),
    setting(
        "checkpoint_min_pause",
        "0",
        Kind::Duration,
        Scope::System,
        "Least time between a checkpoint's end and the next one's barrier.",
    ),
    setting(
        "checkpoint_mode",
        "aligned",
        Kind::OneOf(&["aligned", "unaligned"]),
        Scope::System,
        "Whether periodic checkpoints wait for the epochs before their barrier, or contain what waits in operators.",
    ),
    setting("checkpoint_retention", "0", Kind::AtLeast(0), Scope::System, "How many of the last checkpoints are kept as savepoints."),
    setting(
        "checkpoint_timeout",
        "10min",
        Kind::AtLeastTime(Duration::from_millis(10)),
        Scope::System,
        "A checkpoint whose state is not collected after this time has failed; the next one contains what it would have written.",
    ),
    setting(
        "checkpoint_tolerable_failures",
        "-1",
        Kind::AtLeast(-1),
        Scope::System,
        "Checkpoints in a row that may fail before the server stops; -1 = any number. A failed write or sync always stops it.",
    ),
    setting(
        "client_encoding",
        "UTF8",
        Kind::OneOf(&["UTF8", "utf8", "UTF-8", "utf-8", "unicode", "UNICODE"]),
        Scope::Session,
        "Client's character set.",
    ),
    setting(
        "client_min_messages",
        "notice",
        Kind::OneOf(&["debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error"]),
        Scope::Session,
        "Least level of messages sent to the client.",
    ),
    setting(
        "consistency",
        "session",
        Kind::OneOf(&["session", "relaxed", "durable"]),
        Scope::Session,
        "Whether a SELECT waits for the session's own writes, does not wait, or reads only what a completed checkpoint holds.",
    ),
    setting("datestyle", "ISO, MDY", Kind::Text, Scope::Session, "Output format of dates; only ISO."),
    setting(
        "dead_letters_max",
        "10000",
        Kind::AtLeast(0),
        Scope::System,
        "Records of sources with on_error = 'dead_letter' that are kept; the oldest go.",
    ),
    setting(
        "default_transaction_isolation",
        "read committed",
        Kind::OneOf(&["read uncommitted", "read committed", "repeatable read"]),
        Scope::Session,
        "Isolation of new transactions.",
    ),
    setting("default_transaction_read_only", "off", Kind::Bool, Scope::Session, "Whether new transactions are read-only."),
    setting("enable_fault_injection", "off", Kind::Bool, Scope::System, "Whether millpond_fail_after() exists and fails."),
    setting("epochs_in_flight_max", "2", Kind::AtLeast(1), Scope::System, "Epochs between barrier and completion."),
    setting("extra_float_digits", "1", Kind::Integer, Scope::Session, "Accepted for clients; floats are always printed exactly."),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Duration,
        Scope::Session,
        "Ends a session that idles in a transaction for longer; 0 = never.",
    ),
    setting("integer_datetimes", "on", Kind::Bool, Scope::ReadOnly, "Timestamps are 64-bit integers."),
    setting("intervalstyle", "postgres", Kind::OneOf(&["postgres"]), Scope::Session, "Output format of intervals."),
    setting("lock_timeout", "0", Kind::Duration, Scope::Session, "Longest wait for a row lock; 0 = no limit."),
    setting(
        "restart_attempts",
        "3",
        Kind::AtLeast(0),
        Scope::System,
        "fixed-delay: restarts of a job until a checkpoint finds it running again.",
    ),
    setting("restart_backoff_initial", "1s", Kind::Positive, Scope::System, "exponential-delay: wait before the first restart."),
    setting("restart_backoff_max", "1min", Kind::Positive, Scope::System, "exponential-delay: longest wait."),
    setting("restart_backoff_multiplier", "2", Kind::AtLeast(1), Scope::System, "exponential-delay: by how much each wait is longer."),
    setting(
        "restart_backoff_reset",
        "10min",
        Kind::Positive,
        Scope::System,
        "exponential-delay: after this time without failure the wait is short again.",
    ),
    setting("restart_delay", "5s", Kind::Duration, Scope::System, "fixed-delay, failure-rate: wait before a restart."),
    setting(
        "restart_failure_rate_interval",
        "1min",
        Kind::Positive,
        Scope::System,
        "failure-rate: the time in which failures are counted.",
    ),
    setting(
        "restart_failure_rate_max",
        "3",
        Kind::AtLeast(0),
        Scope::System,
        "failure-rate: failures in that time after which a job still restarts.",
    ),
    setting(
        "restart_log_bytes_max",
        "64MB",
        Kind::Size,
        Scope::System,
        "Changes of its inputs that are kept for a job that waits for its restart; beyond, the restart fills it anew.",
    ),
    setting(
        "restart_strategy",
        "fixed-delay",
        Kind::OneOf(&["fixed-delay", "failure-rate", "exponential-delay", "none"]),
        Scope::System,
        "How jobs are restarted after a failure that is not one of the data.",
    ),
    setting(
        "rocksdb_block_cache_size",
        "0",
        Kind::Size,
        Scope::System,
        "Memory for blocks of data files; 0 = a quarter of the server's memory, less 32MB.",
    ),
    setting(
        "rocksdb_compression",
        "lz4",
        Kind::OneOf(&["lz4", "snappy", "zstd", "none"]),
        Scope::System,
        "Compression of data files that are written from now on.",
    ),
    setting(
        "rocksdb_write_buffer_size",
        "8MB",
        Kind::Size,
        Scope::System,
        "How much of the table log is gathered in memory before a file of it is written.",
    ),
    setting("search_path", "\"$user\", public", Kind::Text, Scope::Session, "Schemas searched for unqualified names."),
    setting("server_encoding", "UTF8", Kind::Text, Scope::ReadOnly, "Server's character set."),
    setting("server_version", "15.0", Kind::Text, Scope::ReadOnly, "PostgreSQL version whose protocol and dialect are spoken."),
    setting("server_version_num", "150000", Kind::Integer, Scope::ReadOnly, "The same as a number."),
    setting("standard_conforming_strings", "on", Kind::OneOf(&["on"]), Scope::Session, "Backslashes in '…' are literal."),
    setting(
        "state_backend",
        "rocksdb",
        Kind::OneOf(&["rocksdb", "memory"]),
        Scope::System,
        "rocksdb: state that memory has no room for stays on disk and is read when it is needed; memory: all of it is in memory.",
    ),
    setting(
        "state_memory",
        "0",
        Kind::Size,
        Scope::System,
        "Memory for the state of views; 0 = a quarter of the server's memory. With state_backend = 'rocksdb' what is beyond is on disk only.",
    ),
    setting(
        "state_ttl",
        "0",
        Kind::Duration,
        Scope::System,
        "For views created from now on: state that no change has touched for this time expires, with what it has contributed; 0 = never.",
    ),
    setting("statement_timeout", "0", Kind::Duration, Scope::Session, "Longest run of a statement; 0 = no limit."),
    setting("timezone", "UTC", Kind::Zone, Scope::Session, "Time zone in which timestamptz is shown, and read where it names none."),
    setting(
        "transaction_isolation",
        "read committed",
        Kind::OneOf(&["read uncommitted", "read committed", "repeatable read"]),
        Scope::Session,
        "Isolation of the current transaction.",
    ),
    setting("transaction_rows_max", "10000000", Kind::AtLeast(1), Scope::System, "Most rows that one transaction may change."),
];

/// The settings of the server that a materialized view may have for itself.
pub const VIEW_OPTIONS: &[&str] = &[
    "backfill_rate_limit",
    "restart_strategy",
    "restart_attempts",
    "restart_delay",
    "restart_failure_rate_max",
    "restart_failure_rate_interval",
    "restart_backoff_initial",
    "restart_backoff_max",
    "restart_backoff_multiplier",
    "restart_backoff_reset",
    "restart_log_bytes_max",
    "state_ttl",
];

/// Fails if materialized views have no such option.
pub fn check_view_option(name: &str) -> Result<()> {
    if VIEW_OPTIONS.contains(&name) {
        return Ok(());
    }
    Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized option \"{name}\" of a materialized view"))
        .with_hint(format!("The options are: {}.", VIEW_OPTIONS.join(", "))))
}

/// Finds a setting; names are case-insensitive.
pub fn find(name: &str) -> Result<&'static Setting> {
    let lower = name.to_ascii_lowercase();
    SETTINGS.iter().find(|s| s.name == lower).ok_or_else(|| {
        Error::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
            .with_hint("SHOW ALL lists the settings.")
    })
}

/// Values of settings: what was set, and the defaults for the rest.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    set: BTreeMap<&'static str, String>,
}

impl Settings {
    /// The value as SHOW prints it.
    pub fn get(&self, name: &str) -> Result<String> {
        let s = find(name)?;
        Ok(self.set.get(s.name).cloned().unwrap_or_else(|| s.default.to_string()))
    }

    /// Checks and sets a value; `None` returns to the default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let s = find(name)?;
        let Some(value) = value else {
            self.set.remove(s.name);
            return Ok(());
        };
        let invalid = || Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{}\": \"{value}\"", s.name));
        let value = match s.kind {
            Kind::Bool => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" | "t" | "y" => "on".to_string(),
                "off" | "false" | "no" | "0" | "f" | "n" => "off".to_string(),
                _ => return Err(invalid().with_hint("Use on or off.")),
            },
            Kind::Integer => value.trim().parse::<i64>().map_err(|_| invalid().with_hint("Use a whole number."))?.to_string(),
            Kind::AtLeast(least) => match value.trim().parse::<i64>() {
                Ok(number) if number >= least => number.to_string(),
                _ => return Err(invalid().with_hint(format!("Use a whole number, at least {least}."))),
            },
            Kind::Size => {
                parse_size(value).ok_or_else(|| invalid().with_hint("Use a number with a unit: B, kB, MB, GB."))?;
                value.trim().to_string()
            }
            Kind::Positive if parse_duration(value).is_some_and(|d| d.is_zero()) => {
                return Err(invalid().with_hint("Use a time above zero."));
            }
            Kind::AtLeastTime(least) if parse_duration(value).is_some_and(|d| d < least) => {
                return Err(invalid().with_hint(format!("Use a time of at least {least:?}.")));
            }
            Kind::Duration | Kind::Positive | Kind::AtLeastTime(_) => {
                parse_duration(value).ok_or_else(|| invalid().with_hint("Use a number with a unit: us, ms, s, min, h, d."))?;
                value.trim().to_string()
            }
            Kind::Text => value.to_string(),
            Kind::Zone => Zone::named(value).map_err(|e| invalid().with_hint(e.hint().unwrap_or_default()))?.name().to_string(),
            Kind::OneOf(words) => match words.iter().find(|w| w.eq_ignore_ascii_case(value)) {
                Some(w) => (*w).to_string(),
                None => return Err(invalid().with_hint(format!("Available values: {}.", words.join(", ")))),
            },
        };
        self.set.insert(s.name, value);
        Ok(())
    }

    /// A boolean setting.
    pub fn on(&self, name: &str) -> bool {
        self.get(name).is_ok_and(|v| v == "on")
    }

    /// A duration setting; `None` where it is 0 (no limit).
    pub fn duration(&self, name: &str) -> Option<Duration> {
        let d = parse_duration(&self.get(name).ok()?)?;
        (!d.is_zero()).then_some(d)
    }

    /// A whole-number setting.
    pub fn integer(&self, name: &str) -> i64 {
        self.get(name).ok().and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// The session's time zone.
    pub fn zone(&self) -> Zone {
        self.get("timezone").and_then(|name| Zone::named(&name)).unwrap_or(Zone::UTC)
    }

    /// A size setting, in bytes.
    pub fn size(&self, name: &str) -> u64 {
        self.get(name).ok().and_then(|v| parse_size(&v)).unwrap_or(0)
    }

    /// These settings where they were set explicitly, the others as in `base`.
    pub fn over(&self, base: &Settings) -> Settings {
        let mut both = base.clone();
        both.set.extend(self.set.iter().map(|(name, value)| (*name, value.clone())));
        both
    }

    /// Options of a materialized view: settings that a view may have for itself.
    pub fn of_view(options: &BTreeMap<String, String>) -> Result<Settings> {
        let mut settings = Settings::default();
        for (name, value) in options {
            check_view_option(name)?;
            settings.set(name, Some(value))?;
        }
        Ok(settings)
    }

    /// What was set explicitly, by name.
    pub fn explicit(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.set.iter().map(|(k, v)| (*k, v.as_str()))
    }
}

/// Parses `5s`, `100ms`, `1min`, `250` (milliseconds).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "us" => number / 1e6,
        "" | "ms" => number / 1e3,
        "s" | "second" | "seconds" => number,
        "min" | "m" | "minute" | "minutes" => number * 60.0,
        "h" | "hour" | "hours" => number * 3600.0,
        "d" | "day" | "days" => number * 86400.0,
        _ => return None,
    };
    (seconds.is_finite() && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

/// Parses a size such as `512MB`, `4GiB`, `1048576` (bytes).
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" | "kib" => 1024.0,
        "mb" | "m" | "mib" => 1024.0 * 1024.0,
        "gb" | "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * factor;
    ((0.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1 day"), parse_duration("24 hours"));
        assert_eq!(parse_duration("1 parsec"), None);
        assert_eq!(parse_size("1.5GB"), Some(1_610_612_736));
    }

    #[test]
    fn values_are_checked() {
        let mut s = Settings::default();
        assert!(s.set("consistency", Some("Relaxed")).is_ok());
        assert_eq!(s.get("CONSISTENCY").ok().as_deref(), Some("relaxed"));
        assert!(s.set("consistency", Some("never")).is_err());
        assert!(s.set("no_such", Some("x")).is_err());
        assert!(SETTINGS.is_sorted_by_key(|s| s.name));
        for (name, value) in [("checkpoint_interval", "0"), ("checkpoint_max_concurrent", "0"), ("restart_log_bytes_max", "much")] {
            let error = s.set(name, Some(value)).err();
            assert_eq!(error.as_ref().map(|e| (e.state(), e.hint().is_some())), Some((SqlState::INVALID_PARAMETER_VALUE, true)), "{name}");
        }
        let mut defaults = Settings::default();
        assert!(SETTINGS.iter().all(|s| s.default.is_empty() || defaults.set(s.name, Some(s.default)).is_ok()), "defaults are valid");
    }

    #[test]
    fn options_of_a_view_go_over_the_servers() {
        let options = BTreeMap::from([("restart_delay".to_string(), "1ms".to_string())]);
        let view = Settings::of_view(&options).unwrap_or_default();
        let mut server = Settings::default();
        assert!(server.set("restart_delay", Some("7s")).is_ok() && server.set("restart_attempts", Some("9")).is_ok());
        let both = view.over(&server);
        assert_eq!((both.duration("restart_delay"), both.integer("restart_attempts")), (Some(Duration::from_millis(1)), 9));
        let unknown = Settings::of_view(&BTreeMap::from([("timezone".to_string(), "UTC".to_string())]));
        assert_eq!(unknown.err().map(|e| e.state()), Some(SqlState::INVALID_PARAMETER_VALUE));
    }
}
