//! CREATE OR REPLACE MATERIALIZED VIEW, and EXPLAIN of it and of CREATE.
//!
//! The new query is filled beside the old view, which is read meanwhile, and so are the materialized views that read it. When
//! all are level and durable, one write of the catalog exchanges them. DDL of others waits for all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_common::settings::Settings;
use millpond_common::{Error, JobId, RelationId, Result, SqlState};
use millpond_engine::{JobInfo, JobState, Replacement, kept, state_tables, state_tables_needed};
use millpond_plan::{Kept, Operator, StreamPlan};
use millpond_sql::ast::Ident;
use millpond_sql::catalog::Relation;
use millpond_sql::statement::{CreateMaterializedView, Name};
use millpond_sql::{Catalog, NewRelation, Planner, RelationKind, StatementKind};
use millpond_state::failpoint::failpoint;
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
    fn new(create: &CreateMaterializedView, old: &Relation, planner: &Planner<'_>, database: &Database) -> Result<Change> {
        let RelationKind::MaterializedView {
            job,
            options: old_options,
            key: old_key,
            append_only: old_append_only,
            appended: old_appended,
            ..
        } = &old.kind
        else {
            return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a materialized view", old.name)));
        };
        // What is not said stays as it is.
        let options = old_options.iter().chain(&create.options).map(|(name, value)| (name.clone(), value.clone())).collect();
        let (mut new, mut view) = millpond_sql::create_materialized_view(&CreateMaterializedView { options, ..create.clone() }, planner)?;
        check_storable(&new.columns)?;
        let dependents = planner.catalog.dependents(old.id);
        if new.depends_on.contains(&old.id) || new.depends_on.iter().any(|d| dependents.contains(d)) {
            return Err(Error::new(SqlState("42P17"), format!("materialized view \"{}\" cannot depend on itself", old.name)));
        }
        let job = database.engine.jobs().into_iter().find(|j| j.id == *job).ok_or_else(|| Error::internal("a view without a job"))?;
        let RelationKind::MaterializedView { key, append_only, appended, .. } = &mut new.kind else {
            return Err(Error::internal("a materialized view is not one"));
        };
        let runs = matches!(job.state, JobState::Running);
        if runs {
            view.plan.store_as(&job.spec.plan);
        }
        let result = |plan: &StreamPlan| plan.fingerprints().last().copied().flatten();
        let same = runs
            && (&*key, *append_only, &new.columns) == (old_key, *old_append_only, &old.columns)
            && result(&view.plan).is_some_and(|r| Some(r) == result(&job.spec.plan));
        if same {
            // Its rows stay as they are stored.
            *appended = *old_appended;
        }
        let kept = if runs { kept(&view.plan, &job.spec.plan) } else { vec![None; view.plan.nodes.len()] };
        if !same && !dependents.is_empty() {
            check_replacement(old, &new)?;
        }
        Ok(Change { old: old.clone(), job, new, plan: view.plan, kept, same })
    }

    /// The same query over relations of which some have been replaced.
    fn again(old: &Relation, planner: Planner<'_>, database: &Database) -> Result<Change> {
        let RelationKind::MaterializedView { sql, search_path, .. } = &old.kind else { return Err(Error::internal("not a view")) };
        let parsed = millpond_sql::parse(&format!("CREATE MATERIALIZED VIEW v AS {sql}"))?.pop().map(|s| s.kind);
        let Some(StatementKind::CreateMaterializedView(mut create)) = parsed else {
            return Err(Error::internal("the text of a view is not a query"));
        };
        create.name = Name::qualified(old.schema.clone(), old.name.clone());
        create.columns = old.columns.fields().iter().map(|f| Ident::with_quote('"', f.name())).collect();
        let planner = Planner { search_path: search_path.clone(), ..planner };
        let change = Change::new(&create, old, &planner, database)?;
        if change.new.columns != old.columns {
            let message = format!("cannot change the columns of materialized view {}, which reads the replaced view", old.name);
            return Err(Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_hint("Drop it first, and create it again over the new view."));
        }
        Ok(change)
    }

    /// What becomes of a node: for scans, whether they are read from the beginning; for others, of their state.
    fn note(&self, at: usize, sizes: &BTreeMap<usize, u64>) -> String {
        let Some(node) = self.plan.nodes.get(at) else { return String::new() };
        let kept = self.kept.get(at).copied().flatten();
        match (&node.operator, kept) {
            (Operator::Scan { .. }, _) if !self.same && self.plan.rest(&self.kept).places.contains(&at) => "read again".into(),
            (operator, Some(old)) if operator.is_stateful() => {
                format!("state kept, {} rows of it in memory", sizes.get(&old).copied().unwrap_or_default())
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

    /// The same with what becomes of each operator.
    fn notice(&self, database: &Database) -> Notice {
        let sizes = self.sizes(database);
        let notes = (0..self.plan.nodes.len()).filter_map(|at| {
            let node = self.plan.nodes.get(at).filter(|n| n.operator.is_stateful())?;
            Some(format!("{}: {}", self.plan.describe(node), self.note(at, &sizes)))
        });
        let detail = Some(notes.collect::<Vec<_>>().join("\n")).filter(|d| !d.is_empty());
        Notice { detail, ..Notice::notice(self.summary()) }
    }
}

/// Changes of a view and of those that read it, upstream first, and what there will be.
struct Group {
    changes: Vec<Change>,
    jobs: Vec<(StoredJob, Replacement)>,
    catalog: Catalog,
}

impl Group {
    /// Of a change that is none of the view's rows nothing follows.
    fn new(create: &CreateMaterializedView, old: &Relation, scope: &Scope, database: &Database) -> Result<Group> {
        let mut group = Group { changes: Vec::new(), jobs: Vec::new(), catalog: Catalog::clone(&scope.catalog) };
        let first = Change::new(create, old, &scope.planner(), database)?;
        if first.same {
            group.changes.push(first);
            return Ok(group);
        }
        group.take(first)?;
        let dependents = scope.catalog.dependents(old.id);
        for id in dependents.iter().rev() {
            let Some(reader) = scope.catalog.get(*id).filter(|r| r.job().is_some()) else { continue };
            let catalog = group.catalog.clone();
            // As the catalog has it by now: it depends on what has been replaced.
            let reader = catalog.get(reader.id).ok_or_else(|| Error::internal("a view vanished"))?;
            let planner = Planner { catalog: &catalog, ..scope.planner() };
            group.take(Change::again(reader, planner, database)?)?;
        }
        Ok(group)
    }

    /// Gives the new job its numbers, and the view its place in the catalog.
    fn take(&mut self, mut change: Change) -> Result<()> {
        let (id, relation) = (JobId(self.catalog.next_id()), RelationId(self.catalog.next_id()));
        let first_state_table = self.catalog.reserve_ids(state_tables_needed(&change.plan)?);
        let tables = state_tables(&change.plan, &change.kept, &change.job.spec, first_state_table)?;
        let RelationKind::MaterializedView { job, .. } = &mut change.new.kind else { return Err(Error::internal("not a view")) };
        *job = id;
        self.catalog.replace(change.old.id, relation, change.new.clone())?;
        let stored = StoredJob { id, relation, plan: change.plan.clone(), first_state_table, state_tables: Some(tables) };
        let spec = stored.spec(&self.catalog)?;
        self.jobs.push((stored, Replacement { old: change.job.id, spec, kept: change.kept.clone() }));
        self.changes.push(change);
        Ok(())
    }
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
        let engine = database.engine.clone();
        // What was corrected before, such as a row that the query fails on, must not be read as it was.
        scope.limits.run(engine.wait_visible(engine.newest_transaction())).await?;
        let Group { changes, jobs, catalog } = Group::new(create, old, scope, &database)?;
        changes.iter().for_each(|change| self.notice(change.notice(&database)));
        if jobs.is_empty() {
            return keep_result(&database, changes, catalog).await;
        }
        // The numbers will never be given out again, whatever becomes of this.
        let mut numbers = Catalog::clone(&scope.catalog);
        numbers.take_numbers_of(&catalog);
        database.replace_catalog(numbers, vec![], vec![]).await?;

        let mut begun = Begun { database: Arc::clone(&database), jobs: Vec::new(), lock: Some(lock), keep: false };
        let (mut handles, mut records) = (Vec::new(), Vec::new());
        for (stored, replacement) in jobs {
            stored.check_readable(Arc::new(database.context.clone()))?;
            begun.jobs.push((stored.id, stored.relation));
            records.push((stored.record()?, records::job_key(replacement.old)));
            handles.push((stored.id, replacement.spec.name.clone(), scope.limits.run(engine.replace_job(replacement)).await?));
        }
        failpoint("replace-view-begun");
        for (id, name, handle) in handles {
            let engine = engine.clone();
            let rows_read = move || rows_read(&engine, id);
            progress::wait(&name, handle, &scope.limits, &self.sink(), &rows_read).await?;
        }
        failpoint("replace-view-level");
        // From here on it ends, even if the client is gone.
        let finished = tokio::spawn(begun.finish(catalog, records));
        finished.await.map_err(|e| Error::internal(format!("replacing a view ended early: {e}")))?
    }

    /// EXPLAIN CREATE [OR REPLACE] MATERIALIZED VIEW.
    pub(crate) fn explain_view(&self, create: &CreateMaterializedView, scope: &Scope) -> Result<Response> {
        let schema = scope.catalog.creation_schema(&create.name, &scope.search_path)?;
        let old = scope.catalog.by_name(&schema, &create.name.name).filter(|_| create.or_replace);
        let mut text = String::new();
        let mut catalog = Catalog::clone(&scope.catalog);
        match old {
            None => text = millpond_sql::create_materialized_view(&self.with_default_ttl(create), &scope.planner())?.1.plan.to_string(),
            Some(old) => {
                let group = Group::new(create, old, scope, &self.database)?;
                for change in &group.changes {
                    let sizes = change.sizes(&self.database);
                    let note = |at| Some(change.note(at, &sizes)).filter(|n| !n.is_empty()).map(|n| format!("  -- {n}"));
                    text += &change.plan.tree(&|at| note(at).unwrap_or_default());
                    text += &format!("{}\n", change.summary());
                }
                catalog = group.catalog;
            }
        }
        for relation in catalog.relations() {
            text = text.replace(&format!("Scan relation={} ", relation.id.0), &format!("Scan {} ", relation.name));
        }
        Response::lines("QUERY PLAN", text.lines().map(str::to_string), "EXPLAIN")
    }
}

/// The query computes the same: only its text is another one.
async fn keep_result(database: &Database, changes: Vec<Change>, mut catalog: Catalog) -> Result<()> {
    let mut settings = Vec::new();
    for Change { old, job: running, mut new, .. } in changes {
        if let RelationKind::MaterializedView { job, options, .. } = &mut new.kind {
            *job = running.id;
            settings.push((running.id, Settings::of_view(options)?));
        }
        if let Some(relation) = catalog.get_mut(old.id) {
            (relation.kind, relation.depends_on) = (new.kind, new.depends_on);
        }
    }
    database.replace_catalog(catalog, vec![], vec![]).await?;
    settings.into_iter().try_for_each(|(job, settings)| database.engine.set_job_options(job, settings))
}

/// Jobs that are to replace others. Dropped before they do, they go, and the others stay.
struct Begun {
    database: Arc<Database>,
    jobs: Vec<(JobId, RelationId)>,
    /// No other DDL runs until they have replaced the others, or are gone.
    lock: Option<OwnedMutexGuard<()>>,
    keep: bool,
}

impl Begun {
    /// `records`: those of the new jobs, each with the key of the old one's.
    async fn finish(mut self, catalog: Catalog, records: Vec<(records::Record, Vec<u8>)>) -> Result<()> {
        let database = Arc::clone(&self.database);
        database.engine.checkpoint().await?;
        failpoint("replace-view-saved");
        let jobs = database.engine.jobs();
        let error = jobs.iter().filter(|j| self.jobs.iter().any(|(id, _)| *id == j.id)).find_map(|j| j.state.error());
        if let Some(error) = error {
            return Err(error.clone());
        }
        // Before this write a crash leaves the old views, after it the new ones.
        let (puts, deletes) = records.into_iter().unzip();
        database.replace_catalog(catalog, puts, deletes).await?;
        self.keep = true;
        failpoint("replace-view-stored");
        for (job, _) in &self.jobs {
            database.engine.switch_job(*job).await?;
            failpoint("replace-view-switched");
        }
        Ok(())
    }
}

impl std::ops::Drop for Begun {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.keep, tokio::runtime::Handle::try_current()) {
            let engine = self.database.engine.clone();
            let (jobs, relations) = self.jobs.iter().copied().unzip();
            let lock = self.lock.take();
            runtime.spawn(async move {
                let _lock = lock;
                if let Err(error) = engine.drop_relations(relations, jobs).await {
                    tracing::warn!(%error, "what a failed statement had begun could not be removed");
                }
            });
        }
    }
}
