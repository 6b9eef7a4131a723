//! IN and EXISTS in conditions. DataFusion makes joins of them, which tell whether there is a partner: not that PostgreSQL's
//! answer is NULL, which matters below NOT, CASE, coalesce or IS NULL; nor that an aggregate over no rows is a row.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{BinaryExpr, Case, Exists, InSubquery};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, lit, not};
use millpond_common::Error;

use super::operators::compared;
use crate::functions::external;

/// The condition of a WHERE or HAVING over rows of a schema: NULL is as good as false there.
pub(super) fn condition(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let expr = expr.transform_up(|e| over_one_row(e, schema))?.data;
    among(expr, schema, true)
}

/// `conjunct`: it is one of conditions joined by AND, of which a NOT IN is made a join that knows NULLs.
fn among(expr: Expr, schema: &DFSchema, conjunct: bool) -> DfResult<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if matches!(op, Operator::And | Operator::Or) => {
            let conjunct = conjunct && op == Operator::And;
            Ok(binary_expr(among(*left, schema, conjunct)?, op, among(*right, schema, conjunct)?))
        }
        Expr::InSubquery(InSubquery { negated, .. }) if conjunct || !negated => Ok(expr),
        other => Ok(other.transform_up(|e| three_valued(e, schema))?.data),
    }
}

/// `x IN (q)`, with NULL where nothing is found but NULLs could be what is looked for.
fn three_valued(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Expr::InSubquery(InSubquery { expr: value, subquery, negated }) = expr else { return Ok(Transformed::no(expr)) };
    let Some(column) = subquery.subquery.schema().iter().next().map(Column::from) else {
        return Err(external(Error::internal("a subquery without a column")));
    };
    let exists = |plan: LogicalPlan| {
        let subquery = Subquery { subquery: Arc::new(plan), ..subquery.clone() };
        Expr::Exists(Exists { subquery, negated: false })
    };
    let rows = || subquery.subquery.as_ref().clone();
    let mut unknown = Vec::new();
    if value.nullable(schema)? {
        unknown.push(value.as_ref().clone().is_null().and(exists(rows())));
    }
    let column = Expr::Column(column);
    if column.nullable(subquery.subquery.schema())? {
        unknown.push(exists(LogicalPlanBuilder::from(rows()).filter(column.is_null())?.build()?));
    }
    let found = Expr::InSubquery(InSubquery { expr: value, subquery: subquery.clone(), negated: false });
    let Some(unknown) = unknown.into_iter().reduce(Expr::or) else {
        return Ok(Transformed::yes(if negated { not(found) } else { found }));
    };
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let cases = vec![(Box::new(found), Box::new(lit(!negated))), (Box::new(unknown), Box::new(null))];
    Ok(Transformed::yes(Expr::Case(Case { expr: None, when_then_expr: cases, else_expr: Some(Box::new(lit(negated))) })))
}

/// A correlated subquery that is an aggregate gives a row for every row of the query, also where it aggregates none.
fn over_one_row(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::InSubquery(InSubquery { expr: value, subquery, negated })
            if !subquery.outer_ref_columns.is_empty() && is_a_row(&subquery.subquery) =>
        {
            let op = if negated { Operator::NotEq } else { Operator::Eq };
            let (left, right) = compared(*value, Expr::ScalarSubquery(subquery), op, schema)?;
            Transformed::yes(binary_expr(left, op, right))
        }
        Expr::Exists(Exists { subquery, negated }) if !subquery.outer_ref_columns.is_empty() => {
            let mut plan = subquery.subquery.as_ref();
            while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) = plan {
                let Some(input) = plan.inputs().first().copied() else { break };
                plan = input;
            }
            match plan {
                plan if is_a_row(plan) => Transformed::yes(lit(!negated)),
                LogicalPlan::Filter(having) if is_a_row(&having.input) => {
                    if having.predicate.contains_outer() {
                        let hint = "Compare with a scalar subquery: (SELECT count(*) ...) > outer_column.";
                        return Err(external(Error::unsupported(
                            "HAVING of a correlated subquery with an outer column is not supported",
                            hint,
                        )));
                    }
                    let holds =
                        LogicalPlanBuilder::from(having.input.clone()).project([having.predicate.clone().alias("holds")])?.build()?;
                    let holds = Expr::ScalarSubquery(Subquery { subquery: Arc::new(holds), ..subquery });
                    Transformed::yes(if negated { holds.is_not_true() } else { holds.is_true() })
                }
                _ => Transformed::no(Expr::Exists(Exists { subquery, negated })),
            }
        }
        other => Transformed::no(other),
    })
}

/// Whether a plan gives one row, neither more nor fewer.
fn is_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => is_a_row(&p.input),
        LogicalPlan::SubqueryAlias(s) => is_a_row(&s.input),
        LogicalPlan::Sort(s) => is_a_row(&s.input),
        LogicalPlan::Aggregate(a) => a.group_expr.is_empty(),
        _ => false,
    }
}
