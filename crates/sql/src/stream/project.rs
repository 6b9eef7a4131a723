//! Projections: merged with the one below, left out where they change nothing.

use std::collections::HashMap;

use arrow_schema::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use millpond_common::Result;
use millpond_plan::{Operator, PlanExpr};

use super::build::Builder;
use super::expr::as_column;
use crate::error::from_datafusion;

impl Builder<'_> {
    /// Puts a projection on a node. `schema` names its columns.
    pub(super) fn project(&mut self, input: usize, exprs: Vec<PlanExpr>, schema: SchemaRef) -> Result<usize> {
        let below = self.schema(input);
        let identity = exprs.len() == below.fields().len() && exprs.iter().enumerate().all(|(i, e)| as_column(e) == Some(i));
        if identity && below.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type()) {
            self.rename(input, schema);
            return Ok(input);
        }
        if let Some((grandchild, merged)) = self.merge(input, &exprs)? {
            self.pop(input);
            return self.project(grandchild, merged, schema);
        }
        let key = self.key(input).and_then(|key| key.iter().map(|k| exprs.iter().position(|e| as_column(e) == Some(*k))).collect());
        self.drop_unused_row_number(input, &exprs);
        let append_only = self.append_only(input);
        Ok(self.push(Operator::Project { exprs }, vec![input], schema, append_only, key))
    }

    /// If the node at `input` is the newest and a projection whose costly expressions are used at most once: its own
    /// input, and the two projections as one over that.
    fn merge(&self, input: usize, exprs: &[PlanExpr]) -> Result<Option<(usize, Vec<PlanExpr>)>> {
        let node = self.node(input);
        let (Operator::Project { exprs: inner }, [grandchild], true) = (&node.operator, node.inputs.as_slice(), self.is_newest(input))
        else {
            return Ok(None);
        };
        let mut uses: HashMap<usize, usize> = HashMap::new();
        for expr in exprs {
            for column in columns(&expr.0)? {
                *uses.entry(column).or_default() += 1;
            }
        }
        let cheap = |e: &PlanExpr| as_column(e).is_some() || matches!(e.0, Expr::Literal(_, _));
        if inner.iter().enumerate().any(|(i, e)| !cheap(e) && uses.get(&i).copied().unwrap_or(0) > 1) {
            return Ok(None);
        }
        let substitute = |e: &PlanExpr| {
            let replaced = e.0.clone().transform_up(|e| {
                let inner = match &e {
                    Expr::Column(c) => PlanExpr::column_position(&c.name).and_then(|p| inner.get(p)),
                    _ => None,
                };
                Ok(match inner {
                    Some(inner) => Transformed::new(inner.0.clone(), true, TreeNodeRecursion::Jump),
                    None => Transformed::no(e),
                })
            });
            replaced.data().map(PlanExpr).map_err(from_datafusion)
        };
        let merged = exprs.iter().map(substitute).collect::<Result<Vec<_>>>()?;
        Ok(Some((*grandchild, merged)))
    }

    /// A TopN whose row number nobody above reads does not have to write it.
    fn drop_unused_row_number(&mut self, input: usize, exprs: &[PlanExpr]) {
        let last = self.schema(input).fields().len().saturating_sub(1);
        let used = exprs.iter().any(|e| columns(&e.0).is_ok_and(|c| c.contains(&last)));
        if !used {
            self.without_row_number(input);
        }
    }
}

/// Which input columns an expression reads, once per use.
pub(super) fn columns(expr: &Expr) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    expr.apply(|e| {
        if let Expr::Column(c) = e {
            found.extend(PlanExpr::column_position(&c.name));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(found)
}
