//! The table that a statement writes: its columns, defaults and constraints.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use millpond_common::{Error, RelationSpec, Result, SqlState, SqlType};
use millpond_sql::ast;
use millpond_sql::catalog::name_of;
use millpond_sql::{Name, Relation, RelationKind, TableDef};

use super::bind::{Binder, Evaluator, parse_expr};
use super::row_text;
use crate::transaction::KeyCodec;

/// A table that is written.
pub struct Target<'a> {
    /// Its entry in the catalog.
    pub relation: &'a Relation,
    /// Its constraints and defaults.
    pub def: &'a TableDef,
    /// Encodes its keys.
    pub codec: KeyCodec,
    /// Its columns' types.
    pub types: Vec<SqlType>,
    /// The name under which the statement's expressions know it.
    pub alias: String,
}

/// The catalog's name for a written one.
pub fn relation_name(name: &ast::ObjectName) -> Result<Name> {
    let idents = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect::<Vec<_>>();
    name_of(&idents)
}

impl<'a> Target<'a> {
    /// Finds the table. `command`: how messages call what is done to it.
    pub fn find(binder: &Binder<'a>, name: &Name, alias: Option<String>, command: &str) -> Result<Target<'a>> {
        let relation = binder.catalog.find(name, &binder.planner.search_path)?;
        let wrong = |what: &str| Error::new(SqlState::WRONG_OBJECT_TYPE, what.to_string());
        let def = match &relation.kind {
            RelationKind::Table(def) => def,
            RelationKind::MaterializedView { .. } => {
                return Err(wrong(&format!("cannot change materialized view \"{}\"", relation.name))
                    .with_hint("It follows its query's inputs: change those."));
            }
            RelationKind::View { .. } => return Err(wrong(&format!("cannot {command} view \"{}\"", relation.name))),
            RelationKind::Source(_) => {
                return Err(wrong(&format!("cannot {command} source \"{}\"", relation.name))
                    .with_hint("A source is only read. CREATE TABLE makes something to write to."));
            }
        };
        let spec = relation.spec().ok_or_else(|| Error::internal("a table without rows"))?;
        let types = spec.schema.fields().iter().map(|f| SqlType::of(f)).collect();
        let alias = alias.unwrap_or_else(|| relation.name.clone());
        Ok(Target { relation, def, codec: KeyCodec::new(spec)?, types, alias })
    }

    /// What the store knows of it.
    pub fn spec(&self) -> &RelationSpec {
        self.codec.spec()
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.types.len()
    }

    /// The position of a column to be written.
    pub fn column(&self, ident: &ast::Ident) -> Result<usize> {
        let name = millpond_sql::statement::fold(ident);
        self.relation.column(&name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", self.relation.name);
            Error::new(SqlState::UNDEFINED_COLUMN, message)
        })
    }

    /// The position of a column that is named as the target of an assignment.
    pub fn assigned(&self, name: &ast::ObjectName) -> Result<usize> {
        match name.0.last().and_then(|part| part.as_ident()) {
            Some(ident) if name.0.len() == 1 => self.column(ident),
            Some(ident) => {
                let message = format!("column \"{name}\" of relation \"{}\" does not exist", self.relation.name);
                let hint = format!("Name the column alone: SET {ident} = …");
                Err(Error::new(SqlState::UNDEFINED_COLUMN, message).with_hint(hint))
            }
            None => Err(Error::new(SqlState::SYNTAX_ERROR, format!("\"{name}\" is no column name"))),
        }
    }

    /// A column's default, ready for rows of no columns.
    pub fn default_of(&self, binder: &Binder<'_>, column: usize) -> Result<Evaluator> {
        let none = arrow_schema::Schema::empty();
        let expr = match self.def.defaults.get(column).and_then(Option::as_ref) {
            Some(text) => parse_expr(text)?,
            None => ast::Expr::value(ast::Value::Null),
        };
        let target = self.types.get(column);
        let bound = binder.expr(&expr, &none, None, target).map_err(super::bind::without_position)?;
        binder.compile(&bound, &none, None)
    }

    /// An expression that is assigned to one of its columns.
    pub fn assignment(
        &self,
        binder: &Binder<'_>,
        expr: &ast::Expr,
        schema: &arrow_schema::Schema,
        qualifier: Option<&str>,
        column: usize,
    ) -> Result<datafusion::logical_expr::Expr> {
        binder.expr(expr, schema, qualifier, self.types.get(column)).map_err(|e| self.mismatch(e, column))
    }

    /// A type error that names the column.
    fn mismatch(&self, error: Error, column: usize) -> Error {
        let Some(field) = self.spec().schema.fields().get(column) else { return error };
        let Some((_, types)) = error.message().split_once("\" is of type ").filter(|_| error.state() == SqlState::DATATYPE_MISMATCH) else {
            return error;
        };
        let message = format!("column \"{}\" is of type {types}", field.name());
        let named = Error::new(SqlState::DATATYPE_MISMATCH, message).with_hint("You will need to rewrite or cast the expression.");
        match error.position() {
            Some(position) => named.at(position),
            None => named,
        }
    }

    /// Rows of the table from one array per column, checked for NULL where none may be.
    pub fn rows(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let schema = &self.spec().schema;
        for (field, column) in schema.fields().iter().zip(&columns) {
            if !field.is_nullable() && column.null_count() > 0 {
                let row = (0..column.len()).find(|i| column.is_null(*i)).unwrap_or(0);
                let message = format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    self.relation.name
                );
                let detail = format!("Failing row contains ({}).", row_text::row(&columns, row, schema));
                return Err(Error::new(SqlState::NOT_NULL_VIOLATION, message).with_detail(detail));
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// The CHECK constraints, ready for rows.
    pub fn checks(&self, binder: &Binder<'_>) -> Result<Checks> {
        let schema = &self.spec().schema;
        let compile = |(name, text): &(String, String)| {
            let expr = parse_expr(text)?;
            let name_of_table = Some(self.relation.name.as_str());
            let bound = binder.expr(&expr, schema, name_of_table, Some(&SqlType::Boolean)).map_err(super::bind::without_position)?;
            Ok((name.clone(), binder.compile(&bound, schema, name_of_table)?))
        };
        let list = self.def.checks.iter().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(Checks { table: self.relation.name.clone(), list })
    }

    /// The error of a key that is there already.
    pub fn duplicate(&self, rows: &RecordBatch, row: usize) -> Error {
        let fallback = || format!("{}_pkey", self.relation.name);
        let constraint = self.def.primary_key_name.clone().unwrap_or_else(fallback);
        let schema = &self.spec().schema;
        let columns = self.codec.columns();
        let names = columns.iter().filter_map(|c| schema.fields().get(*c)).map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let arrays = columns.iter().map(|c| Arc::clone(rows.column(*c))).collect::<Vec<_>>();
        let values = row_text::row(&arrays, row, &self.spec().project(columns));
        Error::new(SqlState::UNIQUE_VIOLATION, format!("duplicate key value violates unique constraint \"{constraint}\""))
            .with_detail(format!("Key ({names})=({values}) already exists."))
            .with_constraint(constraint)
    }
}

/// A table's CHECK constraints.
pub struct Checks {
    table: String,
    list: Vec<(String, Evaluator)>,
}

impl Checks {
    /// Fails if a row violates one. NULL does not.
    pub fn check(&self, rows: &RecordBatch) -> Result<()> {
        for (name, check) in &self.list {
            let held = check.evaluate(rows)?;
            let Some(held) = held.as_boolean_opt() else { continue };
            if let Some(row) = (0..held.len()).find(|i| held.is_valid(*i) && !held.value(*i)) {
                let message = format!("new row for relation \"{}\" violates check constraint \"{name}\"", self.table);
                let detail = format!("Failing row contains ({}).", row_text::row(rows.columns(), row, rows.schema_ref()));
                return Err(Error::new(SqlState::CHECK_VIOLATION, message).with_detail(detail).with_constraint(name));
            }
        }
        Ok(())
    }
}
