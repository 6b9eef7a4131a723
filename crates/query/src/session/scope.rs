//! What one statement of a session works with: names, time, limits, rows.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use millpond_common::text::zone::Zone;
use millpond_common::{Error, Result, SqlState};
use millpond_sql::{Catalog, Planner, SavedCatalogs};
use millpond_state::ReadView;
use parking_lot::Mutex;

use super::Session;
use crate::block::Block;
use crate::cancel::Limits;
use crate::database::Database;
use crate::saved::{Saved, savepoint_of};
use crate::select::Runner;
use crate::system::SystemSnapshot;

/// What one statement sees of the database and of its session.
pub(crate) struct Scope {
    pub catalog: Arc<Catalog>,
    pub version: u64,
    pub search_path: Vec<String>,
    pub limits: Limits,
    user: String,
    pub now: DateTime<Utc>,
    pub zone: Zone,
    context: Arc<SessionContext>,
    database: Arc<Database>,
    database_name: String,
    /// The savepoint that the session reads, if it does not read what is live.
    saved: Option<Arc<Saved>>,
    /// Savepoints that the statement names: open until it is planned.
    named: Mutex<Vec<Arc<Saved>>>,
}

impl Scope {
    /// Binds names in it.
    pub fn planner(&self) -> Planner<'_> {
        Planner {
            catalog: &self.catalog,
            system: &self.database.system,
            context: Arc::clone(&self.context),
            search_path: self.search_path.clone(),
            user: self.user.clone(),
            database: self.database_name.clone(),
            now: self.now,
            zone: self.zone,
            saved: Some(self),
            at: None,
        }
    }

    /// The same with the catalog as it is now.
    pub fn refresh(&mut self) {
        (self.catalog, self.version) = catalog_of(&self.database, self.saved.as_deref());
    }
}

impl SavedCatalogs for Scope {
    fn catalog(&self, database: &str) -> Result<Arc<Catalog>> {
        let unknown = || Error::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{database}\" does not exist"));
        let saved = self.database.saved(savepoint_of(database).ok_or_else(unknown)?)?;
        let catalog = Arc::clone(&saved.catalog);
        self.named.lock().push(saved);
        Ok(catalog)
    }
}

/// The catalog that a session sees, and its version.
pub(super) fn catalog_of(database: &Database, saved: Option<&Saved>) -> (Arc<Catalog>, u64) {
    match saved {
        Some(saved) => (Arc::clone(&saved.catalog), 0),
        None => database.catalog(),
    }
}

impl Session {
    /// What a statement that begins now sees.
    pub(crate) fn scope(&self) -> Scope {
        let (catalog, version) = catalog_of(&self.database, self.saved.as_deref());
        self.access.begin(self.snapshot(&catalog));
        Scope {
            catalog,
            version,
            search_path: self.search_path(),
            limits: self.limits(),
            user: self.user.clone(),
            now: self.block.as_ref().map_or_else(Utc::now, |b| b.started),
            zone: self.settings.zone(),
            context: Arc::clone(&self.context),
            database: Arc::clone(&self.database),
            database_name: self.database_name.clone(),
            saved: self.saved.clone(),
            named: Mutex::default(),
        }
    }

    /// What ends a statement that begins now.
    pub(crate) fn limits(&self) -> Limits {
        let deadline = self.settings.duration("statement_timeout").map(|d| Instant::now() + d);
        Limits { cancel: self.cancel.clone(), deadline }
    }

    pub(crate) fn search_path(&self) -> Vec<String> {
        let text = self.settings.get("search_path").unwrap_or_default();
        let part = |p: &str| match p.trim() {
            "\"$user\"" | "$user" => self.user.clone(),
            quoted if quoted.len() > 1 && quoted.starts_with('"') && quoted.ends_with('"') => {
                quoted[1..quoted.len() - 1].replace("\"\"", "\"")
            }
            name => name.to_lowercase(),
        };
        text.split(',').map(part).filter(|p| !p.is_empty()).collect()
    }

    /// What runs a statement's queries.
    pub(crate) fn runner(&self, scope: &Scope) -> Runner {
        let snapshot = self.snapshot(&scope.catalog);
        Runner {
            catalog: Arc::clone(&scope.catalog),
            snapshot,
            state: Arc::clone(&self.state),
            task: Arc::clone(&self.task),
            limits: scope.limits.clone(),
            now: scope.now,
            database: Arc::clone(&self.database),
        }
    }

    fn snapshot(&self, catalog: &Arc<Catalog>) -> SystemSnapshot {
        let sessions = self.database.sessions.lock().values().cloned().collect();
        let (engine, settings) = (self.database.engine.clone(), self.settings.clone());
        let (user, database) = (self.user.clone(), self.database_name.clone());
        let mut snapshot = SystemSnapshot::new(Arc::clone(catalog), engine, settings, user, database, self.process_id, sessions);
        snapshot.storage = self.database.storage_url.clone().zip(self.database.uploader.lock().as_ref().map(|u| u.status()));
        snapshot
    }

    /// What a statement reads: one epoch for all relations, as its consistency and its transaction have it.
    pub(crate) async fn view(&mut self, reads_relations: bool, limits: &Limits) -> Result<ReadView> {
        if let Some(saved) = &self.saved {
            return Ok(saved.view.clone());
        }
        let store = &self.database.store;
        let begun = self.block.as_mut().and_then(Block::begun).is_some_and(|t| t.has_writes());
        let base = match self.settings.get("consistency")?.as_str() {
            // Own writes go on top of what they were made on: the newest rows.
            _ if begun => store.newest_view(),
            "durable" => store.durable_view(),
            "session" if reads_relations => {
                // What this session has written, and what any other one has been answered, is there.
                let seq = self.database.engine.newest_transaction().max(self.last_write.unwrap_or(0));
                limits.run(self.database.engine.wait_visible(seq)).await?;
                self.last_write = None;
                store.read_view()
            }
            _ => store.read_view(),
        };
        Ok(match &mut self.block {
            Some(block) if block.explicit => block.transaction(&self.database).read_view(base),
            Some(block) => block.begun().map(|t| t.read_view(base.clone())).unwrap_or(base),
            None => base,
        })
    }
}
