//! Places where a crash test ends the process.
//!
//! `MILLPOND_FAILPOINT="name:count"` aborts when `failpoint("name")` is reached for the count-th time (without `:count`,
//! the first time). Unset, which is always so outside of tests, a failpoint costs one load.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Armed {
    name: String,
    remaining: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Every name that [`failpoint`] is called with in this crate, for tests that visit them all.
pub const FAILPOINTS: [&str; 25] = [
    "log-unwritten",
    "log-synced",
    "catalog-unwritten",
    "catalog-synced",
    "drop-recorded",
    "commit-begin",
    "commit-file-written",
    "commit-files-synced",
    "commit-recorded",
    "commit-ingested",
    "commit-end",
    "savepoint-begin",
    "savepoint-linked",
    "savepoint-written",
    "savepoint-renamed",
    "release-renamed",
    "release-removed",
    "restore-unrecorded",
    "restore-recorded",
    "restore-linked",
    "restore-moved",
    "restore-swapped",
    "restore-done",
    "fork-linked",
    "fork-done",
];

/// Ends the process here, without any cleaning up, if the environment says so.
#[inline]
pub fn failpoint(name: &str) {
    if let Some(armed) = ARMED.get_or_init(read) {
        hit(armed, name);
    }
}

fn read() -> Option<Armed> {
    parse(&std::env::var("MILLPOND_FAILPOINT").ok()?)
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let count = count.parse().ok().filter(|c| *c > 0)?;
    Some(Armed { name: name.to_owned(), remaining: AtomicU64::new(count) })
}

#[cold]
fn hit(armed: &Armed, name: &str) {
    if armed.name == name && armed.remaining.fetch_sub(1, Ordering::SeqCst) == 1 {
        // Not by a macro: a test harness would keep it to itself.
        drop(writeln!(std::io::stderr(), "failpoint {name} reached"));
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_name_and_a_count() {
        let armed = parse("commit-recorded:3").unwrap();
        assert_eq!((armed.name.as_str(), armed.remaining.load(Ordering::SeqCst)), ("commit-recorded", 3));
        hit(&armed, "log-synced");
        hit(&armed, "commit-recorded");
        assert_eq!(armed.remaining.load(Ordering::SeqCst), 2);
        assert_eq!(parse("x").unwrap().remaining.load(Ordering::SeqCst), 1);
        assert!(parse("x:0").is_none() && parse("x:y").is_none());
    }
}
