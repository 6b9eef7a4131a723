//! RETURNING: what a statement answers of the rows that it has written.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::ast::{self, SelectItem};
use millpond_sql::statement::fold;

use super::bind::{Binder, Evaluator, has_subquery};
use super::target::Target;
use crate::error::from_datafusion;

/// A bound RETURNING clause.
pub struct Returning {
    columns: Vec<(Field, Expr)>,
    input: SchemaRef,
    qualifier: String,
}

impl Returning {
    /// Binds the clause over the table's columns.
    pub fn bind(binder: &Binder<'_>, target: &Target<'_>, items: Option<&Vec<SelectItem>>) -> Result<Option<Returning>> {
        let Some(items) = items else { return Ok(None) };
        let input = Arc::clone(&target.spec().schema);
        let qualifier = target.alias.clone();
        let df_schema = DFSchema::try_from_qualified_schema(datafusion::common::TableReference::bare(qualifier.as_str()), &input)
            .map_err(from_datafusion)?;
        let mut columns = Vec::new();
        let mut add = |expr: &ast::Expr, name: String| -> Result<()> {
            if has_subquery(expr) {
                return Err(Error::unsupported("subqueries in RETURNING are not supported", "SELECT in a statement of its own."));
            }
            let bound = binder.expr(expr, &input, Some(&qualifier), None)?;
            let field = bound.to_field(&df_schema).map_err(from_datafusion)?.1;
            columns.push((SqlType::of(&field).field(&name, true), bound));
            Ok(())
        };
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => add(expr, name_of(expr))?,
                SelectItem::ExprWithAlias { expr, alias } => add(expr, fold(alias))?,
                SelectItem::Wildcard(_) => input.fields().iter().try_for_each(|f| add(&column(f.name()), f.name().clone()))?,
                SelectItem::QualifiedWildcard(kind, _) => {
                    let named = match kind {
                        ast::SelectItemQualifiedWildcardKind::ObjectName(name) => name.0.last().and_then(|p| p.as_ident()).map(fold),
                        ast::SelectItemQualifiedWildcardKind::Expr(_) => None,
                    };
                    if named.as_deref() != Some(qualifier.as_str()) {
                        let name = named.unwrap_or_else(|| kind.to_string());
                        return Err(Error::new(SqlState::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{name}\"")));
                    }
                    input.fields().iter().try_for_each(|f| add(&column(f.name()), f.name().clone()))?;
                }
                other => return Err(Error::new(SqlState::SYNTAX_ERROR, format!("syntax error in RETURNING near \"{other}\""))),
            }
        }
        Ok(Some(Returning { columns, input, qualifier }))
    }

    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()))
    }

    /// Ready for rows.
    pub fn compile(&self, binder: &Binder<'_>) -> Result<Returned> {
        let compile = |(_, expr): &(Field, Expr)| binder.compile(expr, &self.input, Some(&self.qualifier));
        let evaluators = self.columns.iter().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(Returned { schema: self.schema(), evaluators, batches: vec![] })
    }
}

/// The rows of a RETURNING clause as they come up.
pub struct Returned {
    schema: SchemaRef,
    evaluators: Vec<Evaluator>,
    batches: Vec<RecordBatch>,
}

impl Returned {
    /// Some rows have been written.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = self.evaluators.iter().map(|e| e.evaluate(rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        self.batches.push(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?);
        Ok(())
    }

    /// All of them.
    pub fn finish(self) -> (SchemaRef, Vec<RecordBatch>) {
        (self.schema, self.batches)
    }
}

/// A column, exactly as named.
fn column(name: &str) -> ast::Expr {
    ast::Expr::Identifier(ast::Ident::with_quote('"', name))
}

/// What PostgreSQL calls the column of an expression without an alias.
fn name_of(expr: &ast::Expr) -> String {
    match expr {
        ast::Expr::Identifier(ident) => fold(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map_or_else(|| "?column?".into(), fold),
        ast::Expr::Function(f) => f.name.0.last().and_then(|p| p.as_ident()).map_or_else(|| "?column?".into(), fold),
        ast::Expr::Nested(inner) => name_of(inner),
        ast::Expr::Cast { expr, data_type, .. } => match name_of(expr).as_str() {
            "?column?" => data_type.to_string().to_lowercase(),
            name => name.to_string(),
        },
        ast::Expr::Case { .. } => "case".into(),
        _ => "?column?".into(),
    }
}
