//! Savepoints of the whole database as sessions read them, and the statements that make, drop and restore them.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use millpond_common::{Error, RelationId, Result, SqlState};
use millpond_engine::running_in;
use millpond_sql::{Catalog, Relation, StatementKind};
use millpond_state::failpoint::failpoint;
use millpond_state::{ReadView, Savepoint, SavepointKind};

use crate::database::{DATABASE_NAME, Database};
use crate::error::not_in_block;
use crate::records::Known;
use crate::response::{Notice, Response};
use crate::session::{Scope, Session};

/// A savepoint, open: the catalog and the rows of its moment. While it lives, the savepoint cannot be released.
pub(crate) struct Saved {
    /// Its relations.
    pub catalog: Arc<Catalog>,
    /// Their rows.
    pub view: ReadView,
    /// Materialized views that it does not have whole.
    partial: BTreeSet<RelationId>,
}

impl Saved {
    /// Fails if it does not have all rows of one of these relations.
    pub fn check_readable(&self, relations: &[RelationId]) -> Result<()> {
        let Some(view) = relations.iter().find(|id| self.partial.contains(id)).and_then(|id| self.catalog.get(*id)) else { return Ok(()) };
        let message = format!("materialized view \"{}\" was not filled when the savepoint was made", view.name);
        let hint = "RESTORE SAVEPOINT, or a fork of it, goes on filling it.";
        Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint(hint))
    }
}

/// The savepoint in a database's name: `dev@before_upgrade`, or `@before_upgrade` in front of a relation.
pub(crate) fn savepoint_of(database: &str) -> Option<&str> {
    let (name, savepoint) = database.split_once('@')?;
    (name.is_empty() || name == DATABASE_NAME).then_some(savepoint)
}

impl Database {
    /// A savepoint, open for reading; all who read it share it.
    pub(crate) fn saved(&self, name: &str) -> Result<Arc<Saved>> {
        let mut open = self.saved.lock();
        open.retain(|(_, saved)| saved.strong_count() > 0);
        if let Some(saved) = open.iter().find(|(n, _)| n == name).and_then(|(_, saved)| saved.upgrade()) {
            return Ok(saved);
        }
        let reader = self.store.savepoint_open(name)?;
        let known = Known::read(&reader.recovered().catalog, Arc::new(self.context.clone()))?;
        let view = reader.view(known.catalog.relations().filter_map(Relation::spec))?;
        let running = running_in(reader.recovered())?;
        let is_partial = |r: &&Relation| r.job().is_some_and(|job| !running.contains(&job) || reader.is_emptied(r.id));
        let partial = known.catalog.relations().filter(is_partial).map(|r| r.id).collect();
        let saved = Arc::new(Saved { catalog: Arc::new(known.catalog), view, partial });
        open.push((name.to_string(), Arc::downgrade(&saved)));
        Ok(saved)
    }
}

impl Session {
    /// SAVEPOINT, RELEASE SAVEPOINT outside of a transaction block, and RESTORE SAVEPOINT.
    pub(crate) async fn database_savepoint(&mut self, kind: &StatementKind, scope: &Scope) -> Result<Response> {
        let engine = self.database.engine.clone();
        match kind {
            StatementKind::Savepoint(name) => {
                self.check_alone("SAVEPOINT of the whole database")?;
                let (name, user) = (name.clone(), format!("made by {}", self.user));
                engine.store().savepoint_check_new(&name)?;
                scope.limits.run(engine.checkpoint()).await?;
                // From here on it is made or not, whoever stops waiting: the answer says which.
                let made = engine.blocking(move |store| store.savepoint_create(&name, SavepointKind::Manual, &user)).await?;
                self.notice(Notice::notice(made_of(&made)));
                Ok(Response::command("SAVEPOINT"))
            }
            StatementKind::Release(name) => {
                self.check_alone("RELEASE SAVEPOINT of the whole database")?;
                let name = name.clone();
                engine.blocking(move |store| store.savepoint_release(&name)).await?;
                Ok(Response::command("RELEASE"))
            }
            StatementKind::RestoreSavepoint(name) => {
                self.check_alone("RESTORE SAVEPOINT")?;
                // Whether it is there and whole, before anything happens.
                let (wanted, database) = (name.clone(), Arc::clone(&self.database));
                let opens = Arc::clone(&database);
                let opened = tokio::task::spawn_blocking(move || opens.saved(&wanted)).await;
                let opened = opened.map_err(|e| Error::internal(format!("opening the savepoint ended early: {e}")))??;
                // What was answered until here is in that savepoint; nothing more is answered.
                let closing = scope.limits.run(database.transactions.gate.closing()).await?;
                let before = format!("before_restore_{}", Utc::now().format("%Y%m%d_%H%M%S_%3f"));
                let comment = format!("before RESTORE SAVEPOINT {name}");
                scope.limits.run(engine.savepoint_create(before.clone(), SavepointKind::Automatic, comment)).await?;
                // Checkpoints that are still made, the last one among them, do not take its place in the retained ones.
                *database.restoring.lock() = Some(opened);
                let wanted = name.clone();
                let ordered = engine.blocking(move |store| store.savepoint_restore(&wanted)).await;
                ordered.inspect_err(|_| *database.restoring.lock() = None)?;
                closing.close();
                failpoint("restore-announced");
                let mut notice = Notice::notice(format!("the database continues from savepoint \"{name}\"; all sessions end"));
                notice.detail = Some(format!("What it was until now is kept as savepoint \"{before}\"."));
                self.notice(notice);
                self.database.reopen.notify_one();
                Ok(Response::command("RESTORE"))
            }
            _ => Err(Error::internal("not a statement about savepoints")),
        }
    }

    /// CHECKPOINT and CHECKPOINT (FULL).
    pub(crate) async fn checkpoint(&mut self, full: bool, scope: &Scope) -> Result<Response> {
        let engine = &self.database.engine;
        let info = match full {
            true => scope.limits.run(engine.checkpoint_full()).await?,
            false => scope.limits.run(engine.checkpoint()).await?,
        };
        if full {
            let took = info.duration.as_secs_f64() * 1e3;
            self.notice(Notice::notice(format!("full checkpoint of epoch {}: {} bytes in {took:.1} ms", info.epoch, info.bytes)));
        }
        Ok(Response::command("CHECKPOINT"))
    }

    fn check_alone(&self, command: &str) -> Result<()> {
        if self.block.is_some() { Err(not_in_block(command)) } else { Ok(()) }
    }

    /// Whether the session reads a savepoint, which nothing can change.
    pub(crate) fn check_writable(&self, kind: &StatementKind) -> Result<()> {
        let Some(tag) = self.saved.as_ref().and_then(|_| changes(kind, self.in_block())) else { return Ok(()) };
        Err(Error::new(SqlState("25006"), format!("cannot execute {tag} in a savepoint, which is read-only"))
            .with_hint(format!("Connect to the database \"{DATABASE_NAME}\".")))
    }
}

/// What a statement that changes the database is called. Every kind is named, so that a new one is thought about.
fn changes(kind: &StatementKind, in_block: bool) -> Option<&'static str> {
    Some(match kind {
        StatementKind::Insert(_) => "INSERT",
        StatementKind::Update(_) => "UPDATE",
        StatementKind::Delete(_) => "DELETE",
        StatementKind::Truncate { .. } => "TRUNCATE TABLE",
        StatementKind::CreateTable(_) => "CREATE TABLE",
        StatementKind::CreateSource(_) => "CREATE SOURCE",
        StatementKind::CreateView(_) => "CREATE VIEW",
        StatementKind::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
        StatementKind::CreateSchema { .. } => "CREATE SCHEMA",
        StatementKind::Drop(_) => "DROP",
        StatementKind::Rename { .. } => "ALTER",
        StatementKind::AlterMaterializedView { .. } => "ALTER MATERIALIZED VIEW",
        StatementKind::CancelJob(_) => "CANCEL JOB",
        StatementKind::Comment { .. } => "COMMENT",
        StatementKind::AlterSystem { .. } => "ALTER SYSTEM",
        StatementKind::Checkpoint { .. } => "CHECKPOINT",
        StatementKind::RestoreSavepoint(_) => "RESTORE SAVEPOINT",
        StatementKind::Savepoint(_) if !in_block => "SAVEPOINT",
        StatementKind::Release(_) if !in_block => "RELEASE SAVEPOINT",
        // What these run is looked at when it runs, the statement of an EXPLAIN ANALYZE here.
        StatementKind::Explain { analyze: true, statement, .. } => return changes(&statement.kind, in_block),
        StatementKind::Query(_)
        | StatementKind::Begin { .. }
        | StatementKind::Commit { .. }
        | StatementKind::Rollback { .. }
        | StatementKind::SetTransaction { .. }
        | StatementKind::Savepoint(_)
        | StatementKind::Release(_)
        | StatementKind::RollbackTo(_)
        | StatementKind::Set { .. }
        | StatementKind::Reset(_)
        | StatementKind::Show(_)
        | StatementKind::Explain { .. }
        | StatementKind::ExplainCreateMaterializedView(_)
        | StatementKind::Flush
        | StatementKind::Discard(_)
        | StatementKind::Deallocate(_)
        | StatementKind::Prepare { .. }
        | StatementKind::Execute { .. }
        | StatementKind::DeclareCursor { .. }
        | StatementKind::Fetch { .. }
        | StatementKind::Close(_)
        | StatementKind::NoOperation(_) => return None,
    })
}

fn made_of(made: &Savepoint) -> String {
    let at: DateTime<Utc> = made.created.into();
    format!("savepoint \"{}\" of epoch {}, {} bytes, at {}", made.name, made.epoch, made.bytes, at.format("%Y-%m-%d %H:%M:%S UTC"))
}
