//! ON CONFLICT.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow_schema::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::ast;
use millpond_sql::statement::fold;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::DmlContext;
use super::bind::{Binder, Evaluator, has_subquery};
use super::modify;
use super::target::{Checks, Target};
use super::update::assignments;
use crate::transaction::Transaction;

/// Before the names of the proposed row's columns, where they stand beside the existing row's.
const EXCLUDED: &str = "excluded ";

/// A bound ON CONFLICT clause.
pub struct Conflict {
    /// DO UPDATE; without it, DO NOTHING.
    update: Option<DoUpdate>,
}

struct DoUpdate {
    /// The existing row's columns, then the proposed one's.
    schema: SchemaRef,
    sets: Vec<(usize, Expr)>,
    filter: Option<Expr>,
}

impl Conflict {
    /// Binds the clause. `None`: it can never take effect.
    pub fn bind(binder: &Binder<'_>, target: &Target<'_>, on: &ast::OnConflict) -> Result<Option<Conflict>> {
        let names_key = match &on.conflict_target {
            None => target.codec.keyed(),
            Some(ast::ConflictTarget::Columns(columns)) => {
                let mut named = columns.iter().map(|c| target.column(c)).collect::<Result<Vec<_>>>()?;
                let mut key = if target.codec.keyed() { target.codec.columns().to_vec() } else { vec![] };
                named.sort_unstable();
                named.dedup();
                key.sort_unstable();
                if key.is_empty() || named != key {
                    let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                    return Err(Error::new(SqlState::INVALID_COLUMN_REFERENCE, message));
                }
                true
            }
            Some(ast::ConflictTarget::OnConstraint(name)) => {
                let ident = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                if target.def.primary_key_name.as_deref() != Some(ident.as_str()) {
                    let message = format!("constraint \"{ident}\" for table \"{}\" does not exist", target.relation.name);
                    return Err(Error::new(SqlState::UNDEFINED_OBJECT, message));
                }
                true
            }
        };
        let update = match &on.action {
            ast::OnConflictAction::DoNothing => None,
            ast::OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => {
                let message = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
                return Err(Error::new(SqlState::SYNTAX_ERROR, message).with_hint("For example, ON CONFLICT (column_name)."));
            }
            ast::OnConflictAction::DoUpdate(update) => Some(DoUpdate::bind(binder, target, update)?),
        };
        Ok(names_key.then_some(Conflict { update }))
    }

    /// Ready for rows.
    pub fn compile<'a>(&'a self, binder: &Binder<'_>, target: &Target<'_>) -> Result<ReadyConflict<'a>> {
        let update = match &self.update {
            None => None,
            Some(update) => {
                let compile = |e: &Expr| binder.compile(e, &update.schema, Some(&target.alias));
                let sets = update.sets.iter().map(|(c, e)| Ok((*c, compile(e)?))).collect::<Result<Vec<_>>>()?;
                Some(ReadyUpdate { schema: &update.schema, sets, filter: update.filter.as_ref().map(compile).transpose()? })
            }
        };
        Ok(ReadyConflict { update })
    }
}

impl DoUpdate {
    fn bind(binder: &Binder<'_>, target: &Target<'_>, update: &ast::DoUpdate) -> Result<DoUpdate> {
        let existing = &target.spec().schema;
        let proposed =
            existing.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_name(format!("{EXCLUDED}{}", f.name())).with_nullable(true)));
        let schema = Arc::new(Schema::new(existing.fields().iter().cloned().chain(proposed).collect::<Vec<_>>()));
        let plain = |expr: &ast::Expr| -> Result<ast::Expr> {
            if has_subquery(expr) {
                return Err(Error::unsupported(
                    "subqueries in ON CONFLICT are not supported",
                    "Insert from a SELECT that computes the value, and use excluded.",
                ));
            }
            let mut expr = expr.clone();
            let _ = expr.visit(&mut Excluded); // it never breaks off
            Ok(expr)
        };
        let bind_set = |(column, expr): (usize, Option<ast::Expr>)| {
            let bound = match expr {
                Some(expr) => target.assignment(binder, &plain(&expr)?, &schema, Some(&target.alias), column)?,
                None => super::update::default_expr(binder, target, column)?,
            };
            Ok((column, bound))
        };
        let sets = assignments(target, &update.assignments)?.into_iter().map(bind_set).collect::<Result<Vec<_>>>()?;
        let filter = match &update.selection {
            Some(e) => Some(binder.expr(&plain(e)?, &schema, Some(&target.alias), Some(&SqlType::Boolean))?),
            None => None,
        };
        Ok(DoUpdate { schema, sets, filter })
    }
}

/// Makes `excluded.x` the name of the proposed row's column.
struct Excluded;

impl VisitorMut for Excluded {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
            && fold(table) == "excluded"
        {
            *expr = ast::Expr::Identifier(ast::Ident {
                value: format!("{EXCLUDED}{}", fold(column)),
                quote_style: Some('"'),
                span: column.span,
            });
        }
        ControlFlow::Continue(())
    }
}

/// An ON CONFLICT clause ready for rows.
pub struct ReadyConflict<'a> {
    update: Option<ReadyUpdate<'a>>,
}

struct ReadyUpdate<'a> {
    schema: &'a SchemaRef,
    sets: Vec<(usize, Evaluator)>,
    filter: Option<Evaluator>,
}

impl ReadyConflict<'_> {
    /// Whether it is DO UPDATE.
    pub fn updates(&self) -> bool {
        self.update.is_some()
    }

    /// Updates existing rows, which are locked and the newest, for the proposed rows beside them. Gives the updated rows
    /// and their places among those; `None` for DO NOTHING.
    pub async fn update(
        &self,
        ctx: &DmlContext<'_>,
        txn: &mut Transaction,
        target: &Target<'_>,
        checks: &Checks,
        existing: &RecordBatch,
        proposed: &RecordBatch,
    ) -> Result<Option<(RecordBatch, Vec<u32>)>> {
        let Some(update) = &self.update else { return Ok(None) };
        let columns = existing.columns().iter().chain(proposed.columns()).cloned().collect();
        let mut both = RecordBatch::try_new(Arc::clone(update.schema), columns)?;
        let mut old = existing.clone();
        let mut places = (0..existing.num_rows() as u32).collect::<Vec<_>>();
        if let Some(filter) = &update.filter {
            let holds = filter.holds(&both)?;
            both = filter_record_batch(&both, &holds)?;
            old = filter_record_batch(&old, &holds)?;
            places.retain(|p| holds.value(*p as usize));
        }
        let new = modify::assigned(target, &old, &both, &update.sets)?;
        checks.check(&new)?;
        modify::replace(ctx, txn, target, &old, Some(&new)).await?;
        Ok(Some((new, places)))
    }
}
