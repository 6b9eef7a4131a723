//! `$1`, `$2`, …: how many, and of which types.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_schema::FieldRef;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use millpond_common::types::NUMERIC_DEFAULT;
use millpond_common::{Error, Result, SqlState, SqlType};
use sqlparser::ast::{self, Visit, Visitor};

use crate::error::from_datafusion;

/// How many parameters PostgreSQL's protocol can carry.
const PARAMETERS_MAX: usize = 65_535;

/// Declared types as DataFusion's planner wants them.
pub(super) fn fields(params: &[Option<SqlType>]) -> Vec<Option<FieldRef>> {
    params.iter().map(|t| t.as_ref().map(|t| Arc::new(t.field("parameter", true)))).collect()
}

/// Adds what the text says and the plan does not: parameters in LIMIT and OFFSET are bigint, and `$1::type` is of its type.
pub(super) fn in_limits(query: &ast::Query, params: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
    #[derive(Default)]
    struct Written(Vec<(usize, SqlType)>);
    impl Visitor for Written {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let exprs = limit.iter().chain(offset.as_ref().map(|o| &o.value));
                self.0.extend(exprs.filter_map(placeholder).map(|at| (at, SqlType::BigInt)));
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Cast { expr, data_type, .. } = expr
                && let Some(at) = placeholder(expr)
                && let Ok(of) = crate::types::sql_type(data_type)
            {
                self.0.push((at, of));
            }
            ControlFlow::Continue(())
        }
    }
    let mut written = Written::default();
    let _ = query.visit(&mut written);
    let mut params = params.to_vec();
    for (at, of) in written.0.into_iter().filter(|(n, _)| (1..=PARAMETERS_MAX).contains(n)) {
        if params.len() < at {
            params.resize(at, None);
        }
        if let Some(slot @ None) = params.get_mut(at - 1) {
            *slot = Some(of);
        }
    }
    params
}

fn placeholder(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::Placeholder(id) => number(id),
            _ => None,
        },
        _ => None,
    }
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok()
}

/// The type of every parameter of a bound plan: as declared, as inferred, or text.
pub(super) fn types(plan: &LogicalPlan, declared: &[Option<SqlType>]) -> Result<Vec<SqlType>> {
    let found = plan.get_parameter_fields().map_err(from_datafusion)?;
    let lists = lists(plan).map_err(from_datafusion)?;
    let mut types = declared.to_vec();
    for (id, field) in &found {
        let at = number(id).filter(|n| (1..=PARAMETERS_MAX).contains(n));
        let Some(at) = at else {
            return Err(Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {id}")));
        };
        if types.len() < at {
            types.resize(at, None);
        }
        if let (Some(slot @ None), Some(field)) = (types.get_mut(at - 1), field) {
            *slot = Some(unlimited(SqlType::of(field)));
        }
    }
    for (at, of) in lists {
        if let Some(slot @ None) = types.get_mut(at - 1) {
            *slot = Some(of);
        }
    }
    Ok(types.into_iter().map(|t| t.unwrap_or(SqlType::Text)).collect())
}

/// The type without the limits of the column that it was inferred from, which are none of the parameter's values.
fn unlimited(of: SqlType) -> SqlType {
    match of {
        SqlType::Numeric { scale, .. } => SqlType::Numeric { precision: NUMERIC_DEFAULT.0, scale: scale.max(NUMERIC_DEFAULT.1) },
        SqlType::Varchar(_) => SqlType::Text,
        SqlType::Array(item) => SqlType::Array(Box::new(unlimited(*item))),
        other => other,
    }
}

/// Parameters that a value is looked up in: `x = ANY ($1)`.
fn lists(plan: &LogicalPlan) -> datafusion::error::Result<Vec<(usize, SqlType)>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && call.func.name() == "array_has"
                    && let [Expr::Placeholder(Placeholder { id, field: None }), value] = call.args.as_slice()
                    && let (Some(at @ 1..), Ok((_, field))) = (number(id), value.to_field(&schema))
                {
                    found.push((at, SqlType::Array(Box::new(unlimited(SqlType::of(&field))))));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}
