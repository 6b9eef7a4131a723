//! Schemas and relations, and who depends on whom. A value: DDL works on a copy, which replaces the original
//! once it is stored.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::SchemaRef;
use millpond_common::{Error, JobId, RelationId, RelationSpec, Result, SqlState};
use serde::{Deserialize, Serialize};
use sqlparser::ast::Ident;

use crate::statement::{DropKind, Name, SourceFormat, fold};

/// The schemas that users cannot create in, drop or rename.
pub const RESERVED_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "millpond"];

/// The schema that is there from the start.
pub const PUBLIC: &str = "public";

/// The first number given out; those below are for the system's relations.
const FIRST_ID: u32 = 1000;

/// OIDs that clients see are ids shifted into the range that PostgreSQL gives to users' objects.
const FIRST_USER_OID: u32 = 16384;

/// All schemas and relations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Catalog {
    schemas: BTreeMap<String, Schema>,
    relations: BTreeMap<RelationId, Relation>,
    /// The next number for a relation, job or state table. Never goes back.
    next_id: u32,
}

/// A schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// As pg_namespace shows it.
    pub oid: u32,
    /// COMMENT ON SCHEMA
    pub comment: Option<String>,
}

/// A table, source, view or materialized view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relation {
    /// Its number, also that of its rows in the store.
    pub id: RelationId,
    /// Where it is.
    pub schema: String,
    /// Its name there.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns, with SQL types as [`millpond_common::SqlType::field`] writes them.
    pub columns: SchemaRef,
    /// COMMENT ON the relation
    pub comment: Option<String>,
    /// COMMENT ON COLUMN, by position.
    pub column_comments: BTreeMap<usize, String>,
    /// The relations that its definition names.
    pub depends_on: Vec<RelationId>,
    /// As pg_class shows it.
    pub oid: u32,
}

/// What a relation is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RelationKind {
    /// Rows that users write.
    Table(TableDef),
    /// A stream that a connector reads; stores nothing.
    Source(SourceDef),
    /// A named query.
    View {
        /// The query's text.
        sql: String,
        /// How its names resolve.
        search_path: Vec<String>,
    },
    /// A query whose result is kept up to date.
    MaterializedView {
        /// The query's text.
        sql: String,
        /// How its names resolve.
        search_path: Vec<String>,
        /// The job that maintains it.
        job: JobId,
        /// Columns that are unique in it, where the planner knows some.
        key: Option<Vec<usize>>,
        /// Whether rows are only ever added.
        append_only: bool,
        /// Whether they are stored in the order in which they came: so they are if they have no key, but not in views made before that was possible.
        #[serde(default)]
        appended: bool,
        /// Settings of the server that the view has for itself.
        #[serde(default)]
        options: BTreeMap<String, String>,
    },
}

/// What is declared of a table beyond its columns. NOT NULL is a field's nullability.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TableDef {
    /// Columns of the primary key, in its order. Without one the table is a multiset.
    pub primary_key: Option<Vec<usize>>,
    /// The name of the primary key's constraint.
    pub primary_key_name: Option<String>,
    /// CHECK constraints: name and expression.
    pub checks: Vec<(String, String)>,
    /// DEFAULT expressions by column.
    pub defaults: Vec<Option<String>>,
}

/// What is declared of a source beyond its columns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceDef {
    /// WITH (…)
    pub options: BTreeMap<String, String>,
    /// FORMAT … ENCODE …, where written.
    pub format: Option<SourceFormat>,
}

/// A relation that has no number yet; [`Catalog::add`] gives it one.
#[derive(Clone, Debug)]
pub struct NewRelation {
    /// Where it will be.
    pub schema: String,
    /// Its name there.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns.
    pub columns: SchemaRef,
    /// The relations that its definition names.
    pub depends_on: Vec<RelationId>,
}

impl Relation {
    /// The word for its kind in messages.
    pub fn noun(&self) -> &'static str {
        self.drop_kind().noun()
    }

    /// The word for its kind in DROP.
    pub fn drop_kind(&self) -> DropKind {
        match &self.kind {
            RelationKind::Table(_) => DropKind::Table,
            RelationKind::Source(_) => DropKind::Source,
            RelationKind::View { .. } => DropKind::View,
            RelationKind::MaterializedView { .. } => DropKind::MaterializedView,
        }
    }

    /// What the store and the engine need to know of it; `None` for what has no stored rows.
    pub fn spec(&self) -> Option<RelationSpec> {
        let (key, appended) = match &self.kind {
            RelationKind::Table(table) => (table.primary_key.clone(), false),
            RelationKind::MaterializedView { key, appended, .. } => (key.clone(), *appended),
            RelationKind::Source(_) | RelationKind::View { .. } => return None,
        };
        Some(RelationSpec { id: self.id, schema: self.columns.clone(), key, appended })
    }

    /// The job that maintains it, for a materialized view.
    pub fn job(&self) -> Option<JobId> {
        match &self.kind {
            RelationKind::MaterializedView { job, .. } => Some(*job),
            _ => None,
        }
    }

    /// The position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.fields().iter().position(|f| f.name() == name)
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog::new()
    }
}

impl Catalog {
    /// With the schema `public` and nothing in it.
    pub fn new() -> Self {
        let public = Schema { name: PUBLIC.into(), oid: 2200, comment: Some("standard public schema".into()) };
        Catalog { schemas: BTreeMap::from([(PUBLIC.to_string(), public)]), relations: BTreeMap::new(), next_id: FIRST_ID }
    }

    /// A number that no relation, job or state table has had before.
    pub fn next_id(&mut self) -> u32 {
        self.reserve_ids(1)
    }

    /// The first of `count` fresh numbers in a row.
    pub fn reserve_ids(&mut self, count: u32) -> u32 {
        let first = self.next_id;
        self.next_id += count;
        first
    }

    /// Gives out no number that another catalog has given out.
    pub fn take_numbers_of(&mut self, other: &Catalog) {
        self.next_id = self.next_id.max(other.next_id);
    }

    /// Users' schemas, by name.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.values()
    }

    /// A user's schema.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.get(name)
    }

    /// All relations, oldest first.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }

    /// The relation with this number.
    pub fn get(&self, id: RelationId) -> Option<&Relation> {
        self.relations.get(&id)
    }

    /// The relation of this name in this schema.
    pub fn by_name(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.values().find(|r| r.name == name && r.schema == schema)
    }

    /// The relation with this OID.
    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations.values().find(|r| r.oid == oid)
    }

    /// What a dotted name stands for: `relation`, `schema.relation` or `database.schema.relation`.
    pub fn resolve(&self, parts: &[Ident], search_path: &[String]) -> Result<&Relation> {
        let name = name_of(parts)?;
        self.find(&name, search_path)
    }

    /// The relation of this name, in its schema or the first of the search path that has it.
    pub fn find(&self, name: &Name, search_path: &[String]) -> Result<&Relation> {
        let found = match &name.schema {
            Some(schema) => self.by_name(schema, &name.name),
            None => search_path.iter().find_map(|schema| self.by_name(schema, &name.name)),
        };
        found.ok_or_else(|| undefined_table(name))
    }

    /// The schema in which an unqualified new relation lands, or the one that was written.
    pub fn creation_schema(&self, name: &Name, search_path: &[String]) -> Result<String> {
        match &name.schema {
            Some(schema) if RESERVED_SCHEMAS.contains(&schema.as_str()) => {
                Err(Error::new(SqlState("42501"), format!("permission denied for schema {schema}"))
                    .with_hint("This schema holds the system's own relations; create yours in public or a schema of your own."))
            }
            Some(schema) if self.schemas.contains_key(schema) => Ok(schema.clone()),
            Some(schema) => Err(undefined_schema(schema)),
            None => search_path
                .iter()
                .find(|s| self.schemas.contains_key(*s))
                .cloned()
                .ok_or_else(|| Error::new(SqlState::INVALID_SCHEMA_NAME, "no schema has been selected to create in")),
        }
    }

    /// Fails if a relation of this name exists.
    pub fn check_free(&self, schema: &str, name: &str) -> Result<()> {
        match self.by_name(schema, name) {
            Some(_) => Err(Error::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))),
            None => Ok(()),
        }
    }

    /// Adds a relation under a fresh number.
    pub fn add(&mut self, new: NewRelation) -> Result<RelationId> {
        if !self.schemas.contains_key(&new.schema) {
            return Err(undefined_schema(&new.schema));
        }
        self.check_free(&new.schema, &new.name)?;
        let id = RelationId(self.next_id());
        let relation = Relation {
            id,
            schema: new.schema,
            name: new.name,
            kind: new.kind,
            columns: new.columns,
            comment: None,
            column_comments: BTreeMap::new(),
            depends_on: new.depends_on,
            oid: FIRST_USER_OID + id.0,
        };
        self.relations.insert(id, relation);
        Ok(id)
    }

    /// Removes a relation; those that depend on it must be gone already.
    pub fn remove(&mut self, id: RelationId) -> Option<Relation> {
        self.relations.remove(&id)
    }

    /// For changes in place (comments, a view's new query).
    pub fn get_mut(&mut self, id: RelationId) -> Option<&mut Relation> {
        self.relations.get_mut(&id)
    }

    /// Exchanges a relation's definition for another one under a new number. Its name, its OID and its comments stay, and what
    /// depends on it depends on the new one.
    pub fn replace(&mut self, old: RelationId, id: RelationId, new: NewRelation) -> Result<()> {
        let Some(gone) = self.relations.remove(&old) else { return Err(Error::internal("replacing a relation that is not there")) };
        let column = |at: usize| new.columns.index_of(gone.columns.fields().get(at)?.name()).ok();
        let comments = gone.column_comments.iter().filter_map(|(at, comment)| Some((column(*at)?, comment.clone())));
        let column_comments = comments.collect();
        let NewRelation { kind, columns, depends_on, .. } = new;
        for depends_on in self.relations.values_mut().map(|r| &mut r.depends_on) {
            depends_on.iter_mut().filter(|d| **d == old).for_each(|d| *d = id);
        }
        self.relations.insert(id, Relation { id, kind, columns, depends_on, column_comments, ..gone });
        Ok(())
    }

    /// Gives a relation another name in its schema. The definitions of relations that use it name it by text, so
    /// the rename is refused while a view does.
    pub fn rename(&mut self, id: RelationId, new_name: &str) -> Result<()> {
        let Some(relation) = self.relations.get(&id) else { return Err(Error::internal("renaming a relation that is not there")) };
        self.check_free(&relation.schema.clone(), new_name)?;
        let users = self.relations.values().filter(|r| r.depends_on.contains(&id)).map(describe).collect::<Vec<_>>();
        if !users.is_empty() {
            return Err(Error::new(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!("cannot rename {} {} because other objects depend on it", relation.noun(), relation.name),
            )
            .with_detail(users.join("\n"))
            .with_hint("Drop them first, and create them again with the new name."));
        }
        if let Some(relation) = self.relations.get_mut(&id) {
            relation.name = new_name.to_string();
        }
        Ok(())
    }

    /// All that depends on a relation, directly or not, in an order in which they can be dropped.
    pub fn dependents(&self, id: RelationId) -> Vec<RelationId> {
        let mut found = BTreeSet::new();
        let mut queue = vec![id];
        while let Some(next) = queue.pop() {
            for relation in self.relations.values().filter(|r| r.depends_on.contains(&next)) {
                if found.insert(relation.id) {
                    queue.push(relation.id);
                }
            }
        }
        self.drop_order(found)
    }

    /// Relations sorted so that each comes before those that it depends on.
    fn drop_order(&self, mut left: BTreeSet<RelationId>) -> Vec<RelationId> {
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let free = |id: &RelationId| !left.iter().any(|other| self.relations.get(other).is_some_and(|r| r.depends_on.contains(id)));
            // OR REPLACE could in theory make a cycle of numbers; then any order does.
            let next = left.iter().rev().copied().find(free).or_else(|| left.last().copied());
            let Some(next) = next else { break };
            left.remove(&next);
            order.push(next);
        }
        order
    }

    /// What DROP of these relations removes, dependents first. Without `cascade`, fails and names the dependents
    /// that are not in the list.
    pub fn drop_set(&self, ids: &[RelationId], cascade: bool) -> Result<Vec<RelationId>> {
        let mut all = ids.iter().copied().collect::<BTreeSet<_>>();
        for id in ids {
            let dependents = self.dependents(*id);
            let others = dependents.iter().filter(|d| !ids.contains(d)).collect::<Vec<_>>();
            if !cascade && !others.is_empty() {
                let Some(relation) = self.get(*id) else { continue };
                let lines = others
                    .iter()
                    .rev()
                    .filter_map(|d| self.get(**d))
                    .map(|d| format!("{} depends on {}", describe(d), describe(relation)))
                    .collect::<Vec<_>>();
                return Err(Error::new(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!("cannot drop {} because other objects depend on it", describe(relation)),
                )
                .with_detail(lines.join("\n"))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
            }
            all.extend(dependents);
        }
        Ok(self.drop_order(all))
    }

    /// Adds a schema.
    pub fn create_schema(&mut self, name: &str) -> Result<()> {
        if self.schemas.contains_key(name) || RESERVED_SCHEMAS.contains(&name) {
            return Err(Error::new(SqlState::DUPLICATE_SCHEMA, format!("schema \"{name}\" already exists")));
        }
        if name.starts_with("pg_") {
            return Err(Error::new(SqlState("42939"), format!("unacceptable schema name \"{name}\""))
                .with_detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        let oid = FIRST_USER_OID + self.next_id();
        self.schemas.insert(name.to_string(), Schema { name: name.to_string(), oid, comment: None });
        Ok(())
    }

    /// COMMENT ON SCHEMA
    pub fn comment_on_schema(&mut self, name: &str, comment: Option<String>) -> Result<()> {
        let schema = self.schemas.get_mut(name).ok_or_else(|| undefined_schema(name))?;
        schema.comment = comment;
        Ok(())
    }

    /// The relations in a schema.
    pub fn relations_in(&self, schema: &str) -> Vec<RelationId> {
        self.relations.values().filter(|r| r.schema == schema).map(|r| r.id).collect()
    }

    /// Removes a schema, which must be empty.
    pub fn drop_schema(&mut self, name: &str) -> Result<()> {
        if RESERVED_SCHEMAS.contains(&name) {
            return Err(Error::new(SqlState("42501"), format!("permission denied for schema {name}")));
        }
        if !self.schemas.contains_key(name) {
            return Err(undefined_schema(name));
        }
        let inside = self.relations_in(name);
        if !inside.is_empty() {
            let lines = inside.iter().filter_map(|id| self.get(*id)).map(|r| format!("{} depends on schema {name}", describe(r)));
            return Err(Error::new(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!("cannot drop schema {name} because other objects depend on it"),
            )
            .with_detail(lines.collect::<Vec<_>>().join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        self.schemas.remove(name);
        Ok(())
    }
}

/// `table orders`, `materialized view other.totals`.
fn describe(relation: &Relation) -> String {
    match relation.schema.as_str() {
        PUBLIC => format!("{} {}", relation.noun(), relation.name),
        schema => format!("{} {schema}.{}", relation.noun(), relation.name),
    }
}

/// The error for a relation that is not there.
pub fn undefined_table(name: &Name) -> Error {
    let error = Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
    if name.position > 0 { error.at(name.position) } else { error }
}

/// The error for a schema that is not there.
pub fn undefined_schema(name: &str) -> Error {
    Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
}

/// A dotted name, folded. The database part of a three-part name is not looked at.
pub fn name_of(parts: &[Ident]) -> Result<Name> {
    let folded = parts.iter().map(fold).collect::<Vec<_>>();
    match folded.as_slice() {
        [name] => Ok(Name::bare(name.clone())),
        [schema, name] | [_, schema, name] => Ok(Name::qualified(schema.clone(), name.clone())),
        _ => Err(Error::new(SqlState::SYNTAX_ERROR, format!("improper qualified name (too many dotted names): {}", folded.join(".")))),
    }
}
