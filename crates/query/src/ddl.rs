//! CREATE, DROP, ALTER … RENAME, COMMENT. A statement plans on a copy of the catalog; the copy is stored in one synced
//! write, then takes the catalog's place. What a crash leaves half done, the next start finishes or removes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use millpond_common::text::zone::Zone;
use millpond_common::{Delta, Error, JobId, RelationId, Result, SqlState};
use millpond_engine::Engine;
use millpond_sql::catalog::{Relation, undefined_schema};
use millpond_sql::statement::{CommentTarget, CreateMaterializedView, CreateSource, CreateTable, CreateView, Drop, DropKind, Name};
use millpond_sql::{Catalog, NewRelation, RelationKind, StatementKind, TableDef};
use millpond_state::failpoint::failpoint;
use tokio::sync::OwnedMutexGuard;

use crate::database::{Database, source_spec};
use crate::dropping::{Claimed, dropped_tables};
use crate::error::not_in_block;
use crate::locks::Patience;
use crate::progress;
use crate::records::StoredJob;
use crate::response::{Notice, Response, client_schema, conform};
use crate::select::format_of;
use crate::session::{Scope, Session};

/// The words of a DDL statement, for its command tag and for messages.
fn command(kind: &StatementKind) -> String {
    let noun = |kind: DropKind| kind.noun().to_uppercase();
    match kind {
        StatementKind::CreateTable(_) => "CREATE TABLE".into(),
        StatementKind::CreateSource(_) => "CREATE SOURCE".into(),
        StatementKind::CreateView(_) => "CREATE VIEW".into(),
        StatementKind::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW".into(),
        StatementKind::CreateSchema { .. } => "CREATE SCHEMA".into(),
        StatementKind::Drop(drop) => format!("DROP {}", noun(drop.kind)),
        StatementKind::Rename { kind, .. } => format!("ALTER {}", noun(*kind)),
        StatementKind::AlterMaterializedView { .. } => "ALTER MATERIALIZED VIEW".into(),
        StatementKind::CancelJob(_) => "CANCEL JOB".into(),
        _ => "COMMENT".into(),
    }
}

impl Session {
    /// Any DDL statement. It commits by itself: in an implicit block, what came before is committed first.
    pub(crate) async fn ddl(&mut self, kind: &StatementKind, mut scope: Scope) -> Result<Response> {
        let tag = command(kind);
        if self.in_block() {
            return Err(not_in_block(&tag));
        }
        if let Some(block) = self.block.take() {
            self.commit_block(block).await?;
        }
        let database = Arc::clone(&self.database);
        let limits = scope.limits.clone();
        // The statement that it ends holds the lock which other DDL waits for.
        if let StatementKind::CancelJob(id) = kind
            && limits.run(database.engine.cancel_replacement(JobId(*id))).await?
        {
            return Ok(Response::command(tag));
        }
        // What a DROP takes away nobody else may be writing to.
        let patience = Patience { lock_timeout: self.settings.duration("lock_timeout"), limits: &limits };
        let (_claimed, lock) = loop {
            let claimed = Claimed::lock(&database, dropped_tables(kind, &scope), patience).await?;
            let lock = limits.run(async { Ok(Arc::clone(&database.ddl).lock_owned().await) }).await?;
            scope.refresh();
            if claimed.has(&dropped_tables(kind, &scope)) {
                break (claimed, lock);
            }
        };
        match kind {
            StatementKind::CreateTable(create) => return self.create_table(create, scope, lock).await,
            StatementKind::CreateSource(create) => self.create_source(create, &scope).await?,
            StatementKind::CreateView(create) => self.create_view(create, &scope).await?,
            StatementKind::CreateMaterializedView(create) => self.create_materialized_view(create, scope, lock).await?,
            StatementKind::CreateSchema { name, if_not_exists } => {
                let mut catalog = Catalog::clone(&scope.catalog);
                match catalog.create_schema(name) {
                    Err(error) if *if_not_exists && error.state() == SqlState::DUPLICATE_SCHEMA => {
                        self.notice(Notice::notice(format!("schema \"{name}\" already exists, skipping")));
                    }
                    other => {
                        other?;
                        database.replace_catalog(catalog, vec![], vec![]).await?;
                    }
                }
            }
            StatementKind::Drop(drop) if drop.kind == DropKind::Schema => self.drop_schemas(drop, &scope).await?,
            StatementKind::Drop(drop) => {
                let mut ids = Vec::new();
                for name in &drop.names {
                    ids.extend(self.find_of_kind(name, drop.kind, drop.if_exists, "remove", &scope)?);
                }
                self.drop_all(&ids, drop.cascade, &scope).await?;
            }
            StatementKind::Rename { kind, name, if_exists, new_name } => {
                if *kind == DropKind::Schema {
                    return Err(Error::unsupported("ALTER SCHEMA … RENAME is not supported", "Create a schema with the new name."));
                }
                if let Some(id) = self.find_of_kind(name, *kind, *if_exists, "rename", &scope)? {
                    let mut catalog = Catalog::clone(&scope.catalog);
                    catalog.rename(id, new_name)?;
                    database.replace_catalog(catalog, vec![], vec![]).await?;
                }
            }
            StatementKind::AlterMaterializedView { name, if_exists, action } => {
                if let Some(id) = self.find_of_kind(name, DropKind::MaterializedView, *if_exists, "alter", &scope)? {
                    self.alter_view(id, action, &scope, lock).await?;
                }
            }
            StatementKind::CancelJob(number) => self.cancel_job(JobId(*number), &scope).await?,
            StatementKind::Comment { target, comment } => self.comment(target, comment.clone(), &scope).await?,
            _ => return Err(Error::internal("not a DDL statement")),
        }
        Ok(Response::command(tag))
    }

    /// Whether a relation of this name exists; with IF NOT EXISTS the client is told so.
    fn exists(&self, name: &Name, if_not_exists: bool, scope: &Scope) -> Result<bool> {
        let schema = scope.catalog.creation_schema(name, &scope.search_path)?;
        match scope.catalog.check_free(&schema, &name.name) {
            Ok(()) => Ok(false),
            Err(error) if if_not_exists => {
                let message = format!("relation \"{}\" already exists, skipping", name.name);
                self.notice(Notice { state: error.state(), ..Notice::notice(message) });
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn create_table(&mut self, create: &CreateTable, scope: Scope, lock: OwnedMutexGuard<()>) -> Result<Response> {
        if self.exists(&create.name, create.if_not_exists, &scope)? {
            return Ok(Response::command("CREATE TABLE"));
        }
        let (new, rows) = match &create.query {
            None => (millpond_sql::create_table(create, &scope.planner())?, None),
            Some(query) => {
                if !create.columns.is_empty() || !create.constraints.is_empty() {
                    return Err(Error::unsupported(
                        "column definitions in CREATE TABLE AS are not supported",
                        "Name the columns in the query, with AS.",
                    ));
                }
                let bound = scope.planner().plan_query(query, &[])?;
                let new = table_of(client_schema(&bound.columns, Zone::UTC), create, &scope)?;
                let (runner, plan, view) = self.prepare_query(bound, &[], &scope).await?;
                let (_, batches) = runner.collect(plan, &view).await?;
                let batches = batches.iter().map(|b| conform(b, &new.columns)).collect::<Result<Vec<_>>>()?;
                (new, Some(batches))
            }
        };
        check_storable(&new.columns)?;
        let mut catalog = Catalog::clone(&scope.catalog);
        let id = catalog.add(new)?;
        let spec = catalog.get(id).and_then(Relation::spec).ok_or_else(|| Error::internal("a table holds no rows"))?;
        let database = Arc::clone(&self.database);
        // Readable before anybody can name it.
        database.store.relation_add(spec.clone());
        let Some(batches) = rows else {
            database.replace_catalog(catalog, vec![], vec![]).await?;
            failpoint("create-table-stored");
            database.engine.create_table(spec)?;
            drop(lock);
            return Ok(Response::command("CREATE TABLE"));
        };
        // A crash leaves the table with its rows, or a number that is never used: rows without a table are deleted at the start.
        let mut reserved = Catalog::clone(&scope.catalog);
        reserved.reserve_ids(1);
        database.replace_catalog(reserved, vec![], vec![]).await?;
        failpoint("create-table-as-reserved");
        database.engine.create_table(spec)?;
        let count = batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
        let changes = batches.into_iter().filter(|b| b.num_rows() > 0).map(|b| (id, Delta::insert(b))).collect::<Vec<_>>();
        let filled = async {
            if !changes.is_empty() {
                self.last_write = Some(database.engine.commit_transaction(changes).await?);
            }
            failpoint("create-table-as-filled");
            database.replace_catalog(catalog, vec![], vec![]).await
        };
        if let Err(error) = filled.await {
            database.engine.drop_relations(vec![id], vec![]).await?;
            return Err(error);
        }
        drop(lock);
        Ok(Response::command(format!("SELECT {count}")))
    }

    async fn create_source(&mut self, create: &CreateSource, scope: &Scope) -> Result<()> {
        if self.exists(&create.name, create.if_not_exists, scope)? {
            return Ok(());
        }
        let mut new = millpond_sql::create_source(create, &scope.planner())?;
        let RelationKind::Source(def) = &new.kind else { return Err(Error::internal("a source is not one")) };
        let (options, format) = (def.options.clone(), format_of(def)?);
        let declared = (!new.columns.fields().is_empty()).then(|| Arc::clone(&new.columns));
        // It may look into files.
        let validate = tokio::task::spawn_blocking(move || millpond_connect::validate(&options, &format, declared.as_ref()));
        let validated = async { validate.await.map_err(|e| Error::internal(format!("checking a source ended early: {e}")))? };
        new.columns = scope.limits.run(validated).await?;
        let mut catalog = Catalog::clone(&scope.catalog);
        let id = catalog.add(new)?;
        let spec = catalog.get(id).map(source_spec).transpose()?.flatten();
        let spec = spec.ok_or_else(|| Error::internal("a source has no definition"))?;
        self.database.replace_catalog(catalog, vec![], vec![]).await?;
        failpoint("create-source-stored");
        self.database.engine.create_source(spec)
    }

    async fn create_view(&mut self, create: &CreateView, scope: &Scope) -> Result<()> {
        let schema = scope.catalog.creation_schema(&create.name, &scope.search_path)?;
        let existing = scope.catalog.by_name(&schema, &create.name.name).filter(|_| create.or_replace).cloned();
        let mut catalog = Catalog::clone(&scope.catalog);
        let Some(old) = existing else {
            if !self.exists(&create.name, create.if_not_exists, scope)? {
                catalog.add(millpond_sql::create_view(create, &scope.planner())?)?;
                self.database.replace_catalog(catalog, vec![], vec![]).await?;
            }
            return Ok(());
        };
        if !matches!(old.kind, RelationKind::View { .. }) {
            return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a view", old.name)));
        }
        let new = millpond_sql::create_view(create, &scope.planner())?;
        check_replacement(&old, &new)?;
        if new.depends_on.contains(&old.id) || new.depends_on.iter().any(|d| scope.catalog.dependents(old.id).contains(d)) {
            return Err(Error::new(SqlState("42P17"), format!("view \"{}\" cannot depend on itself", old.name)));
        }
        if let Some(relation) = catalog.get_mut(old.id) {
            (relation.kind, relation.columns, relation.depends_on) = (new.kind, new.columns, new.depends_on);
        }
        self.database.replace_catalog(catalog, vec![], vec![]).await?;
        Ok(())
    }

    /// A new view has the server's `state_ttl`, unless it says something else.
    pub(crate) fn with_default_ttl<'a>(&self, create: &'a CreateMaterializedView) -> Cow<'a, CreateMaterializedView> {
        let is_set = self.settings.duration("state_ttl").is_some() && !create.options.contains_key("state_ttl");
        let Some(ttl) = self.settings.get("state_ttl").ok().filter(|_| is_set) else { return Cow::Borrowed(create) };
        let mut create = create.clone();
        create.options.insert("state_ttl".into(), ttl);
        Cow::Owned(create)
    }

    async fn create_materialized_view(&mut self, create: &CreateMaterializedView, scope: Scope, lock: OwnedMutexGuard<()>) -> Result<()> {
        let schema = scope.catalog.creation_schema(&create.name, &scope.search_path)?;
        if let Some(old) = scope.catalog.by_name(&schema, &create.name.name).filter(|_| create.or_replace) {
            return self.replace_view(create, old, &scope, lock).await;
        }
        if self.exists(&create.name, create.if_not_exists, &scope)? {
            return Ok(());
        }
        let (mut new, view) = millpond_sql::create_materialized_view(&self.with_default_ttl(create), &scope.planner())?;
        check_storable(&new.columns)?;
        let mut catalog = Catalog::clone(&scope.catalog);
        let id = JobId(catalog.next_id());
        let first_state_table = catalog.reserve_ids(millpond_engine::state_tables_needed(&view.plan)?.max(1));
        if let RelationKind::MaterializedView { job, .. } = &mut new.kind {
            *job = id;
        }
        let name = new.name.clone();
        let relation = catalog.add(new)?;
        let job = StoredJob { id, relation, plan: view.plan, first_state_table, state_tables: None };
        job.check_readable(Arc::new(self.database.context.clone()))?;
        let half_built = HalfBuilt::new(&self.database, relation);
        // What was corrected before, such as a row that the query fails on, must not be read as it was.
        let engine = &self.database.engine;
        scope.limits.run(engine.wait_visible(engine.newest_transaction())).await?;
        let handle = self.database.start_job(catalog, job).await?;
        failpoint("create-view-started");
        drop(lock);
        if self.settings.on("background_ddl") {
            half_built.keep();
            return Ok(());
        }
        let engine = self.database.engine.clone();
        let rows_read = move || rows_read(&engine, id);
        match progress::wait(&name, handle, &scope.limits, &self.sink(), &rows_read).await {
            Ok(()) => {
                half_built.keep();
                failpoint("create-view-level");
                // A crash after the answer must not fill it again.
                self.database.engine.checkpoint().await?;
                failpoint("create-view-saved");
                Ok(())
            }
            Err(error) => {
                half_built.remove().await;
                Err(error)
            }
        }
    }

    /// The relation of this name, which must be of this kind; `None` if it is missing and that is fine.
    fn find_of_kind(&self, name: &Name, kind: DropKind, if_exists: bool, verb: &str, scope: &Scope) -> Result<Option<RelationId>> {
        let schema_is_missing = name.schema.as_ref().is_some_and(|s| scope.catalog.schema(s).is_none());
        let found = match scope.catalog.find(name, &scope.search_path) {
            Ok(found) => found,
            Err(_) if if_exists => {
                let message = match &name.schema {
                    Some(schema) if schema_is_missing => format!("schema \"{schema}\" does not exist, skipping"),
                    _ => format!("{} \"{}\" does not exist, skipping", kind.noun(), name.name),
                };
                self.notice(Notice::notice(message));
                return Ok(None);
            }
            Err(_) if schema_is_missing => return Err(undefined_schema(name.schema.as_deref().unwrap_or_default())),
            Err(_) => return Err(Error::new(SqlState::UNDEFINED_TABLE, format!("{} \"{name}\" does not exist", kind.noun()))),
        };
        if found.drop_kind() == kind {
            return Ok(Some(found.id));
        }
        let article = |noun: &str| format!("{} {noun}", if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" });
        let error = Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not {}", found.name, article(kind.noun())));
        let word = if verb == "remove" { "DROP" } else { "ALTER" };
        Err(error.with_hint(format!("Use {word} {} to {verb} {}.", found.noun().to_uppercase(), article(found.noun()))))
    }

    async fn drop_schemas(&mut self, drop: &Drop, scope: &Scope) -> Result<()> {
        let mut names = Vec::new();
        let mut inside = Vec::new();
        for name in &drop.names {
            if scope.catalog.schema(&name.name).is_none() && drop.if_exists {
                self.notice(Notice::notice(format!("schema \"{}\" does not exist, skipping", name.name)));
                continue;
            }
            if drop.cascade {
                inside.extend(scope.catalog.relations_in(&name.name));
            } else {
                // Fails where it must, before anything is done.
                Catalog::clone(&scope.catalog).drop_schema(&name.name)?;
            }
            names.push(name.name.as_str());
        }
        let dropped = scope.catalog.drop_set(&inside, true)?;
        self.tell_cascade(&dropped, &scope.catalog);
        self.database.drop_relations(Catalog::clone(&scope.catalog), &dropped, &names).await
    }

    async fn drop_all(&mut self, ids: &[RelationId], cascade: bool, scope: &Scope) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let all = scope.catalog.drop_set(ids, cascade)?;
        let others = all.iter().copied().filter(|id| !ids.contains(id)).collect::<Vec<_>>();
        self.tell_cascade(&others, &scope.catalog);
        self.database.drop_relations(Catalog::clone(&scope.catalog), &all, &[]).await
    }

    /// Names what goes along with what was named.
    fn tell_cascade(&self, others: &[RelationId], catalog: &Catalog) {
        let lines = others.iter().rev().filter_map(|id| catalog.get(*id)).map(|r| format!("drop cascades to {} {}", r.noun(), r.name));
        let lines = lines.collect::<Vec<_>>();
        match lines.as_slice() {
            [] => {}
            [one] => self.notice(Notice::notice(one.clone())),
            many => {
                let notice = Notice::notice(format!("drop cascades to {} other objects", many.len()));
                self.notice(Notice { detail: Some(many.join("\n")), ..notice });
            }
        }
    }

    async fn comment(&mut self, target: &CommentTarget, comment: Option<String>, scope: &Scope) -> Result<()> {
        let mut catalog = Catalog::clone(&scope.catalog);
        let missing = || Error::internal("a relation vanished");
        match target {
            CommentTarget::Relation(kind, name) => {
                let id = self.find_of_kind(name, *kind, false, "comment on", scope)?.ok_or_else(missing)?;
                catalog.get_mut(id).ok_or_else(missing)?.comment = comment;
            }
            CommentTarget::Column(name, column) => {
                let relation = scope.catalog.find(name, &scope.search_path)?;
                let position = relation.column(column).ok_or_else(|| {
                    let message = format!("column \"{column}\" of relation \"{}\" does not exist", relation.name);
                    Error::new(SqlState::UNDEFINED_COLUMN, message)
                })?;
                let comments = &mut catalog.get_mut(relation.id).ok_or_else(missing)?.column_comments;
                match comment {
                    Some(comment) => drop(comments.insert(position, comment)),
                    None => drop(comments.remove(&position)),
                }
            }
            CommentTarget::Schema(name) => catalog.comment_on_schema(name, comment)?,
            CommentTarget::Database => {
                return Err(Error::unsupported("COMMENT ON DATABASE is not supported", "Comment on its schemas and relations."));
            }
        }
        self.database.replace_catalog(catalog, vec![], vec![]).await?;
        Ok(())
    }
}

/// How many rows a job has taken in: those of its busiest operator, on all workers.
pub(crate) fn rows_read(engine: &Engine, job: JobId) -> u64 {
    let mut rows = BTreeMap::<usize, u64>::new();
    for operator in engine.operators().iter().filter(|o| o.job == job) {
        *rows.entry(operator.node).or_default() += operator.rows_in;
    }
    rows.into_values().max().unwrap_or(0)
}

/// Refuses columns whose values have no stored form.
pub(crate) fn check_storable(columns: &SchemaRef) -> Result<()> {
    millpond_common::row::supports(columns).map_err(|_| {
        let names = columns.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>();
        Error::unsupported("a column has a type that cannot be stored", "Cast it to another type.").with_detail(names.join(", "))
    })
}

/// A table with a query's columns, for CREATE TABLE AS.
fn table_of(columns: SchemaRef, create: &CreateTable, scope: &Scope) -> Result<NewRelation> {
    for (i, field) in columns.fields().iter().enumerate() {
        if columns.fields().iter().take(i).any(|f| f.name() == field.name()) {
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{}\" specified more than once", field.name())));
        }
    }
    let table = TableDef { defaults: vec![None; columns.fields().len()], ..TableDef::default() };
    let schema = scope.catalog.creation_schema(&create.name, &scope.search_path)?;
    Ok(NewRelation { schema, name: create.name.name.clone(), kind: RelationKind::Table(table), columns, depends_on: vec![] })
}

/// CREATE OR REPLACE VIEW may add columns at the end and nothing else, so that what reads the view stays right.
pub(crate) fn check_replacement(old: &Relation, new: &NewRelation) -> Result<()> {
    let invalid = |message: String| Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, message));
    if new.columns.fields().len() < old.columns.fields().len() {
        return invalid("cannot drop columns from view".into());
    }
    for (before, after) in old.columns.fields().iter().zip(new.columns.fields()) {
        if before.name() != after.name() {
            return invalid(format!("cannot change name of view column \"{}\" to \"{}\"", before.name(), after.name()));
        }
        let (was, is) = (millpond_common::SqlType::of(before), millpond_common::SqlType::of(after));
        if was != is {
            return invalid(format!("cannot change data type of view column \"{}\" from {} to {}", before.name(), was.name(), is.name()));
        }
    }
    Ok(())
}

/// A view whose CREATE has not ended. Dropped, it takes the view with it: its client is gone.
struct HalfBuilt {
    database: Arc<Database>,
    relation: Option<RelationId>,
}

impl HalfBuilt {
    fn new(database: &Arc<Database>, relation: RelationId) -> Self {
        HalfBuilt { database: Arc::clone(database), relation: Some(relation) }
    }

    fn keep(mut self) {
        self.relation = None;
    }

    async fn remove(mut self) {
        if let Some(relation) = self.relation.take() {
            forget(&self.database, relation).await;
        }
    }
}

impl std::ops::Drop for HalfBuilt {
    fn drop(&mut self) {
        if let (Some(relation), Ok(runtime)) = (self.relation.take(), tokio::runtime::Handle::try_current()) {
            let database = Arc::clone(&self.database);
            runtime.spawn(async move { forget(&database, relation).await });
        }
    }
}

/// Removes a relation that a failed statement has made, with what was built on it meanwhile.
async fn forget(database: &Database, relation: RelationId) {
    let _ddl = database.ddl.lock().await;
    let (catalog, _) = database.catalog();
    if catalog.get(relation).is_none() {
        return;
    }
    let removed = match catalog.drop_set(&[relation], true) {
        Ok(all) => database.drop_relations(Catalog::clone(&catalog), &all, &[]).await,
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "what a failed statement had begun could not be removed");
    }
}
