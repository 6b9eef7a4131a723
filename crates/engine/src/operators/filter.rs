//! Rows for which a predicate is true.

use arrow::array::{Array, AsArray};
use arrow::compute::prep_null_mask_filter;
use arrow_schema::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator};
use millpond_common::{Delta, Error, Result};
use millpond_plan::PlanExpr;

use super::Stateless;
use super::expr::BoundExpr;

/// Keeps the rows for which its predicate is true (neither false nor NULL).
pub struct Filter {
    /// All must be true; a later one sees only the rows that have passed the earlier ones.
    conditions: Vec<BoundExpr>,
    schema: SchemaRef,
}

impl Filter {
    /// A filter over rows of `input`; `schema` differs from it in names at most.
    pub fn new(predicate: &PlanExpr, input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let conjuncts = split_conjunction(&predicate.0);
        // So `b <> 0 AND a / b > 1` does not divide by zero. Where nothing can fail, one pass is cheaper.
        let conditions = if conjuncts.iter().any(|c| can_fail(c)) {
            conjuncts.into_iter().map(|c| BoundExpr::new(&PlanExpr(c.clone()), input)).collect::<Result<_>>()?
        } else {
            vec![BoundExpr::new(predicate, input)?]
        };
        Ok(Filter { conditions, schema: SchemaRef::clone(schema) })
    }
}

impl Stateless for Filter {
    fn apply(&mut self, mut delta: Delta, out: &mut Vec<Delta>) -> Result<()> {
        for condition in &self.conditions {
            if delta.is_empty() {
                return Ok(());
            }
            let value = condition.evaluate(&delta.batch)?;
            let mask = value.as_boolean_opt().ok_or_else(|| Error::internal("a predicate is not boolean"))?;
            let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
            if mask.true_count() < delta.len() {
                delta = delta.filter(&mask)?;
            }
        }
        if !delta.is_empty() {
            out.push(delta.with_schema(SchemaRef::clone(&self.schema))?);
        }
        Ok(())
    }
}

/// Whether evaluating an expression on some row may be an error.
fn can_fail(expr: &Expr) -> bool {
    let found = expr.exists(|e| {
        Ok(match e {
            Expr::BinaryExpr(b) => {
                matches!(b.op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
            }
            Expr::Cast(_) | Expr::ScalarFunction(_) => true,
            _ => false,
        })
    });
    found.unwrap_or(true)
}
