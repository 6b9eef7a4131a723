//! DataFusion's expressions over columns by position.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, cast};
use millpond_common::{Error, Result};

use super::builder::{Builder, carried, column};
use super::unsupported;
use crate::error::from_datafusion;

/// The expression below its aliases.
pub(super) fn strip(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => strip(&alias.expr),
        other => other,
    }
}

/// Columns that an expression may name, and where they are.
pub(super) struct Scope<'a> {
    parts: Vec<(&'a DFSchema, usize)>,
}

impl<'a> Scope<'a> {
    /// The columns of one node, which are those of `schema` by position.
    pub fn over(_builder: &Builder, _node: usize, schema: &'a DFSchema) -> Self {
        Scope { parts: vec![(schema, 0)] }
    }

    /// The columns of two inputs, the second ones from position `offset`.
    pub fn both(left: &'a DFSchema, right: &'a DFSchema, offset: usize) -> Self {
        Scope { parts: vec![(left, 0), (right, offset)] }
    }

    fn find(&self, name: &Column) -> Option<(usize, &arrow_schema::DataType)> {
        self.parts.iter().find_map(|(schema, offset)| {
            let at = schema.maybe_index_of_column(name)?;
            Some((at + offset, schema.field(at).data_type()))
        })
    }

    /// The expression over columns `c0`, `c1`, …, without aliases.
    pub fn convert(&self, expr: &Expr) -> Result<Expr> {
        let converted = expr.clone().transform_up(|e| {
            Ok(match e {
                Expr::Column(name) => {
                    let missing = || DataFusionError::Internal(format!("column {name} is not among its input's"));
                    let (position, data_type) = self.find(&name).ok_or_else(missing)?;
                    let found = column(position);
                    // Where the plan's type is not the one that is carried, the expression gets what it was made for.
                    let found = if carried(data_type) == *data_type { found } else { cast(found, data_type.clone()) };
                    Transformed::yes(found)
                }
                Expr::Alias(alias) => Transformed::yes(*alias.expr),
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                    return Err(DataFusionError::External(Box::new(unsupported(
                        "this form of correlated subquery",
                        "Write it as a join, or compute the subquery in a view of its own.",
                    ))));
                }
                other => Transformed::no(other),
            })
        });
        Ok(converted.map_err(from_datafusion)?.data)
    }
}

/// Refuses what has no meaning on a changing input: a view must depend on its inputs only.
pub fn check_deterministic(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(f) = e {
                    let (name, volatility) = (f.func.name(), f.func.signature().volatility);
                    let clock = ["now", "current_date", "current_time", "current_timestamp", "localtimestamp"].contains(&name);
                    if volatility == Volatility::Volatile || clock {
                        found = Some(name.to_string());
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(from_datafusion)?;
    match found {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(
            format!("function {name}() cannot be used in a materialized view"),
            "Its value changes without any input changing. Use it in the SELECT that reads the view.",
        )),
    }
}
