//! Expressions over columns by position.

use datafusion::common::Column;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::Expr;
use millpond_common::{Error, Result};
use millpond_plan::PlanExpr;

use super::{not_yet, refuse};
use crate::error::from_datafusion;
use crate::functions::external;

/// The expression with the columns of `schema` as `c0`, `c1`, …; `position` says where each stands in the input.
pub(super) fn convert(expr: &Expr, schema: &DFSchema, position: impl Fn(usize) -> usize) -> Result<PlanExpr> {
    let converted = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(column_expr(position(schema.index_of_column(&column)?))),
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) => {
                return Err(external(Error::internal("an aggregate where a scalar is expected")));
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) | Expr::OuterReferenceColumn(_, _) => {
                return Err(external(not_yet("this correlated subquery", "Write it as a join or with EXISTS.")));
            }
            Expr::Placeholder(_) | Expr::ScalarVariable(_, _) => return Err(external(refuse("a parameter", "Write the value itself."))),
            Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => {
                return Err(external(not_yet("a lambda function", "Use unnest and an aggregate.")));
            }
            other => Transformed::no(other),
        })
    });
    converted.data().map(PlanExpr).map_err(from_datafusion)
}

/// The input column at a position.
pub(super) fn column_expr(position: usize) -> Expr {
    Expr::Column(Column::new_unqualified(PlanExpr::column_name(position)))
}

/// The position that an expression is, if it is a column and nothing else.
pub(super) fn as_column(expr: &PlanExpr) -> Option<usize> {
    match &expr.0 {
        Expr::Column(column) if column.relation.is_none() => PlanExpr::column_position(&column.name),
        _ => None,
    }
}
