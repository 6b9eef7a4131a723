//! CREATE OR REPLACE MATERIALIZED VIEW, and EXPLAIN of it and of CREATE.
//!
//! The new query is filled beside the old view, which is read meanwhile. When it is level and durable, one write of the catalog
//! exchanges them. DDL of others waits for all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_common::settings::Settings;
use millpond_common::{Error, JobId, RelationId, Result, SqlState};
use millpond_engine::{JobInfo, JobState, Replacement, kept, state_tables, state_tables_needed};
use millpond_plan::{Kept, Operator, StreamPlan};
use millpond_sql::catalog::Relation;
use millpond_sql::statement::CreateMaterializedView;
use millpond_sql::{Catalog, NewRelation, RelationKind};
use tokio::sync::OwnedMutexGuard;

use crate::database::Database;
use crate::ddl::{check_replacement, check_storable, rows_read};
use crate::progress;
use crate::records::{self, StoredJob};
use crate::response::{Notice, Response};
use crate::session::{Scope, Session};

/// A view's new definition beside its old one.
struct Change {
    old: Relation,
    job: JobInfo,
    new: NewRelation,
    plan: StreamPlan,
    kept: Kept,
    /// The view's rows stay as they are.
    same: bool,
}

impl Change {
    fn new(create: &CreateMaterializedView, old: &Relation, scope: &Scope, database: &Database) -> Result<Change> {
        let RelationKind::MaterializedView { job, options: old_options, key: old_key, append_only: old_append_only, .. } = &old.kind else {
            return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a materialized view", old.name)));
        };
        let (mut new, view) = millpond_sql::create_materialized_view(create, &scope.planner())?;
        check_storable(&new.columns)?;
        let dependents = scope.catalog.dependents(old.id);
        if new.depends_on.contains(&old.id) || new.depends_on.iter().any(|d| dependents.contains(d)) {
            return Err(Error::new(SqlState("42P17"), format!("materialized view \"{}\" cannot depend on itself", old.name)));
        }
        let job = database.engine.jobs().into_iter().find(|j| j.id == *job).ok_or_else(|| Error::internal("a view without a job"))?;
        let RelationKind::MaterializedView { options, key, append_only, .. } = &mut new.kind else {
            return Err(Error::internal("a materialized view is not one"));
        };
        let given = std::mem::replace(options, old_options.clone());
        options.extend(given);
        let runs = matches!(job.state, JobState::Running);
        let result = |plan: &StreamPlan| plan.fingerprints().last().copied().flatten();
        let same = runs
            && (&*key, *append_only, &new.columns) == (old_key, *old_append_only, &old.columns)
            && result(&view.plan).is_some_and(|r| Some(r) == result(&job.spec.plan));
        let kept = if runs { kept(&view.plan, &job.spec.plan) } else { vec![None; view.plan.nodes.len()] };
        if !same {
            check_dependents(old, &new, &dependents, &scope.catalog)?;
        }
        Ok(Change { old: old.clone(), job, new, plan: view.plan, kept, same })
    }

    /// What becomes of a node: for scans, whether they are read from the beginning; for others, of their state.
    fn note(&self, at: usize, sizes: &BTreeMap<usize, u64>) -> String {
        let Some(node) = self.plan.nodes.get(at) else { return String::new() };
        let kept = self.kept.get(at).copied().flatten();
        match (&node.operator, kept) {
            (Operator::Scan { .. }, _) if !self.same && self.plan.rest(&self.kept).places.contains(&at) => "read again".into(),
            (operator, Some(old)) if operator.is_stateful() => {
                format!("state kept: {} rows", sizes.get(&old).copied().unwrap_or_default())
            }
            (operator, None) if operator.is_stateful() => "rebuilt".into(),
            _ => String::new(),
        }
    }

    /// Rows of the old job's state, by node.
    fn sizes(&self, database: &Database) -> BTreeMap<usize, u64> {
        let mut sizes = BTreeMap::new();
        for o in database.engine.operators().iter().filter(|o| o.job == self.job.id) {
            *sizes.entry(o.node).or_default() += o.state_rows;
        }
        sizes
    }

    /// In one line.
    fn summary(&self) -> String {
        let name = &self.old.name;
        let stateful = self.plan.nodes.iter().enumerate().filter(|(_, n)| n.operator.is_stateful()).map(|(at, _)| at);
        let (kept, rebuilt): (Vec<_>, Vec<_>) = stateful.partition(|at| self.kept.get(*at).is_some_and(Option::is_some));
        match self.same {
            true => format!("\"{name}\" stays as it is: the query computes the same"),
            false => format!("replacing \"{name}\": {} operators keep their state, {} are rebuilt", kept.len(), rebuilt.len()),
        }
    }
}

/// Views over the replaced one read it by its columns, and materialized ones have its rows in their state.
fn check_dependents(old: &Relation, new: &NewRelation, dependents: &[RelationId], catalog: &Catalog) -> Result<()> {
    let all = dependents.iter().rev().filter_map(|id| catalog.get(*id)).collect::<Vec<_>>();
    let kept = all.iter().filter(|r| matches!(r.kind, RelationKind::MaterializedView { .. }));
    let lines = kept.map(|r| format!("materialized view {} depends on materialized view {}", r.name, old.name)).collect::<Vec<_>>();
    if !lines.is_empty() {
        let message = format!("cannot replace materialized view {} because other materialized views depend on it", old.name);
        return Err(Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .with_detail(lines.join("\n"))
            .with_hint("Drop them first, and create them again over the new view."));
    }
    if all.is_empty() { Ok(()) } else { check_replacement(old, new) }
}

impl Session {
    /// Replaces a materialized view that exists.
    pub(crate) async fn replace_view(
        &mut self,
        create: &CreateMaterializedView,
        old: &Relation,
        scope: &Scope,
        lock: OwnedMutexGuard<()>,
    ) -> Result<()> {
        let database = Arc::clone(&self.database);
        // What was corrected before, such as a row that the query fails on, must not be read as it was.
        scope.limits.run(database.engine.wait_visible(database.engine.newest_transaction())).await?;
        let change = Change::new(create, old, scope, &database)?;
        let sizes = change.sizes(&database);
        let notes = (0..change.plan.nodes.len()).filter_map(|at| {
            let node = change.plan.nodes.get(at).filter(|n| n.operator.is_stateful())?;
            Some(format!("{}: {}", change.plan.describe(node), change.note(at, &sizes)))
        });
        let detail = Some(notes.collect::<Vec<_>>().join("\n")).filter(|d| !d.is_empty());
        self.notice(Notice { detail, ..Notice::notice(change.summary()) });

        let mut catalog = Catalog::clone(&scope.catalog);
        let Change { job: JobInfo { id: old_job, spec: old_spec, .. }, mut new, plan, kept, same, .. } = change;
        let RelationKind::MaterializedView { job, options, .. } = &mut new.kind else { return Err(Error::internal("not a view")) };
        if same {
            *job = old_job;
            let settings = Settings::of_view(options)?;
            if let Some(relation) = catalog.get_mut(old.id) {
                (relation.kind, relation.depends_on) = (new.kind, new.depends_on);
            }
            database.replace_catalog(catalog, vec![], vec![]).await?;
            return database.engine.set_job_options(old_job, settings);
        }
        // These numbers will never be given out again, whatever becomes of this.
        let (id, relation) = (JobId(catalog.next_id()), RelationId(catalog.next_id()));
        let first = catalog.reserve_ids(state_tables_needed(&plan)?);
        *job = id;
        database.replace_catalog(catalog.clone(), vec![], vec![]).await?;

        catalog.replace(old.id, relation, new)?;
        let state_tables = state_tables(&plan, &kept, &old_spec, first)?;
        let stored = StoredJob { id, relation, plan, first_state_table: first, state_tables: Some(state_tables) };
        stored.check_readable(Arc::new(database.context.clone()))?;
        let replacement = Replacement { old: old_job, spec: stored.spec(&catalog)?, kept };
        let begun = Begun { database: Arc::clone(&database), job: id, relation, keep: false };
        let handle = scope.limits.run(database.engine.replace_job(replacement)).await?;
        let engine = database.engine.clone();
        let rows_read = move || rows_read(&engine, id);
        progress::wait(&old.name, handle, &scope.limits, &self.sink(), &rows_read).await?;
        // From here on it ends, even if the client is gone.
        let finished = tokio::spawn(async move {
            let _lock = lock;
            begun.finish(catalog, stored, old_job).await
        });
        finished.await.map_err(|e| Error::internal(format!("replacing a view ended early: {e}")))?
    }

    /// EXPLAIN CREATE [OR REPLACE] MATERIALIZED VIEW.
    pub(crate) fn explain_view(&self, create: &CreateMaterializedView, scope: &Scope) -> Result<Response> {
        let schema = scope.catalog.creation_schema(&create.name, &scope.search_path)?;
        let old = scope.catalog.by_name(&schema, &create.name.name).filter(|_| create.or_replace);
        let (plan, mut text) = match old {
            None => {
                let (_, view) = millpond_sql::create_materialized_view(create, &scope.planner())?;
                let text = view.plan.to_string();
                (view.plan, text)
            }
            Some(old) => {
                let change = Change::new(create, old, scope, &self.database)?;
                let sizes = change.sizes(&self.database);
                let tree = change.plan.tree(&|at| {
                    let note = change.note(at, &sizes);
                    if note.is_empty() { note } else { format!("  -- {note}") }
                });
                let text = format!("{tree}{}\n", change.summary());
                (change.plan, text)
            }
        };
        for relation in plan.relations().iter().filter_map(|id| scope.catalog.get(*id)) {
            text = text.replace(&format!("Scan relation={} ", relation.id.0), &format!("Scan {} ", relation.name));
        }
        Response::lines("QUERY PLAN", text.lines().map(str::to_string), "EXPLAIN")
    }
}

/// A job that is to replace another. Dropped before it does, it goes, and the other stays.
struct Begun {
    database: Arc<Database>,
    job: JobId,
    relation: RelationId,
    keep: bool,
}

impl Begun {
    async fn finish(mut self, catalog: Catalog, stored: StoredJob, old: JobId) -> Result<()> {
        let database = Arc::clone(&self.database);
        database.engine.checkpoint().await?;
        if let Some(error) = database.engine.jobs().iter().find(|j| j.id == self.job).and_then(|j| j.state.error()) {
            return Err(error.clone());
        }
        // Before this write a crash leaves the old view, after it the new one.
        database.replace_catalog(catalog, vec![stored.record()?], vec![records::job_key(old)]).await?;
        self.keep = true;
        database.engine.switch_job(self.job).await
    }
}

impl std::ops::Drop for Begun {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.keep, tokio::runtime::Handle::try_current()) {
            let (engine, relation, job) = (self.database.engine.clone(), self.relation, self.job);
            runtime.spawn(async move {
                if let Err(error) = engine.drop_relations(vec![relation], vec![job]).await {
                    tracing::warn!(%error, "what a failed statement had begun could not be removed");
                }
            });
        }
    }
}
