//! What a harness can find.

use std::fmt;

/// Something that must not be.
#[derive(Debug)]
pub enum Finding {
    /// What was answered is not there.
    Lost(String),
    /// A view is not its query, or a relation holds what it should not.
    Diverged(String),
    /// The server does not do what it promises: it does not start, it does not name the file that failed.
    Misbehaved(String),
}

impl Finding {
    /// The same with more to read.
    pub fn context(self, text: &str) -> Finding {
        let with = |found: String| format!("{text}: {found}");
        match self {
            Finding::Lost(found) => Finding::Lost(with(found)),
            Finding::Diverged(found) => Finding::Diverged(with(found)),
            Finding::Misbehaved(found) => Finding::Misbehaved(with(found)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Lost(found) => write!(f, "LOST {found}"),
            Finding::Diverged(found) => write!(f, "DIVERGED {found}"),
            Finding::Misbehaved(found) => write!(f, "MISBEHAVED {found}"),
        }
    }
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// See [`Finding::Lost`].
    pub lost: usize,
    /// See [`Finding::Diverged`].
    pub diverged: usize,
    /// See [`Finding::Misbehaved`].
    pub misbehaved: usize,
}

impl Tally {
    /// Counts one, and prints it.
    pub fn add(&mut self, finding: &Finding) {
        println!("{finding}");
        match finding {
            Finding::Lost(_) => self.lost += 1,
            Finding::Diverged(_) => self.diverged += 1,
            Finding::Misbehaved(_) => self.misbehaved += 1,
        }
    }

    /// Counts those of another.
    pub fn merge(&mut self, other: Tally) {
        self.lost += other.lost;
        self.diverged += other.diverged;
        self.misbehaved += other.misbehaved;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.lost + self.diverged + self.misbehaved
    }
}
