//! What catalog functions (`current_setting`, `pg_get_viewdef`, …) know of the session that calls them.

use std::sync::Arc;

use millpond_common::{Result, settings};
use parking_lot::Mutex;

use crate::system::facts::Facts;
use crate::system::{CatalogAccess, SystemSnapshot};

/// A setting that a function changed: name, value, and whether for the transaction only.
pub type Change = (String, Option<String>, bool);

/// Shared by a session and the functions registered for it.
pub struct SessionAccess {
    snapshot: Mutex<SystemSnapshot>,
    changes: Mutex<Vec<Change>>,
}

impl SessionAccess {
    /// Before the first statement.
    pub fn new(snapshot: SystemSnapshot) -> Self {
        SessionAccess { snapshot: Mutex::new(snapshot), changes: Mutex::default() }
    }

    /// A statement begins: this is what its functions see.
    pub fn begin(&self, snapshot: SystemSnapshot) {
        *self.snapshot.lock() = snapshot;
    }

    /// The settings that functions have changed since the last call.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock())
    }
}

impl CatalogAccess for SessionAccess {
    fn facts(&self) -> Arc<Facts> {
        let snapshot = self.snapshot.lock().clone();
        snapshot.facts()
    }

    fn set_config(&self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        let setting = settings::find(name)?;
        let mut known = self.snapshot.lock();
        known.settings.set(name, value)?;
        self.changes.lock().push((setting.name.into(), value.map(str::to_string), local));
        known.settings.get(name)
    }
}
