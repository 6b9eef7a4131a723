//! Bugs that a test plants, to see that its harness finds them.
//!
//! `MILLPOND_PLANT=name` in the environment of the process plants one; no client can. It is read once, and told in the log.

use std::sync::OnceLock;

/// Every name that [`planted`] is called with, and what goes wrong then.
pub const BUGS: [(&str, &str); 6] = [
    ("offsets-late", "a checkpoint has the source positions of the epoch before"),
    ("answered-early", "every second transaction is answered before it is written"),
    ("state-omitted", "a checkpoint leaves out the changes of one state table"),
    ("sync-omitted", "what is to be durable is written, but not synced"),
    ("error-ignored", "a failed write or sync is taken for a good one"),
    ("checksum-ignored", "a torn or damaged record is accepted"),
];

static PLANTED: OnceLock<Option<String>> = OnceLock::new();

/// Whether this bug is planted. Always false outside of tests, for the price of a load.
#[inline]
pub fn planted(bug: &str) -> bool {
    PLANTED.get_or_init(read).as_deref().is_some_and(|planted| planted == bug)
}

#[cold]
fn read() -> Option<String> {
    let name = std::env::var("MILLPOND_PLANT").ok()?;
    let (known, what) = BUGS.iter().find(|(known, _)| *known == name)?;
    tracing::error!(bug = known, "MILLPOND_PLANT is set, this server loses data on purpose: {what}");
    Some(name)
}
