//! Scalar expressions outside queries: defaults, checks, SET, RETURNING, WHERE of DML.

use std::sync::Arc;

use arrow_schema::Schema;
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use millpond_common::{Result, SqlType};
use sqlparser::ast;

use super::provider::Provider;
use super::{Planner, assign, names, parameters};
use crate::error::from_datafusion;
use crate::rewrite;

pub(super) fn plan(
    planner: &Planner<'_>,
    expr: &ast::Expr,
    schema: &Schema,
    qualifier: Option<&str>,
    params: &[Option<SqlType>],
    target: Option<&SqlType>,
) -> Result<Expr> {
    let schema = match qualifier {
        Some(name) => DFSchema::try_from_qualified_schema(TableReference::bare(name), schema),
        None => DFSchema::try_from(schema.clone()),
    }
    .map_err(from_datafusion)?;
    let provider = Provider::new(planner, 0);
    let mut context = PlannerContext::new().with_prepare_param_data_types(parameters::fields(params));
    let bound = SqlToRel::new(&provider).sql_to_expr(expr.clone(), &schema, &mut context).map_err(from_datafusion)?;
    let bound = rewrite::expression(bound, &schema).map_err(from_datafusion)?;
    let simplify = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(planner.context.state().config_options()))
        .with_query_execution_start_time(Some(planner.now))
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    let mut bound = simplifier.coerce(bound, &schema).map_err(from_datafusion)?;
    if let Some(target) = target {
        let (_, field) = bound.to_field(&schema).map_err(from_datafusion)?;
        bound = assign::assign(bound, &field, target, &names::name_of(expr))?;
    }
    let bound = rewrite::zones::expression(bound, &schema).map_err(from_datafusion)?;
    // Some functions, such as coalesce, only exist in simplified form; and now() is the transaction's start.
    simplifier.simplify(bound).map_err(from_datafusion)
}
