//! Before the translation: what has no meaning on changing input is refused, every column gets a type that SQL
//! has, and DataFusion's rules decorrelate subqueries and push filters and projections down.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, JoinType, LogicalPlan, Projection, Sort, Volatility, cast};
use datafusion::optimizer::Optimizer;
use millpond_common::{Error, Result};

use super::{not_yet, refuse};
use crate::error::from_datafusion;
use crate::functions::{external, fault};
use crate::planner::Planner;
use crate::scalar_subquery::is_one_row;
use crate::set_operations::counts_rows;
use crate::types;

/// Rules of DataFusion that help batch execution but not ours: limits pushed apart from their order, DISTINCT as
/// aggregates, shared subexpressions as extra projections.
const UNWANTED: [&str; 8] = [
    "replace_distinct_aggregate",
    "push_down_limit",
    "single_distinct_aggregation_to_group_by",
    "common_sub_expression_eliminate",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
    "filter_null_join_keys",
    "unions_to_filter",
];

pub(super) fn prepare(planner: &Planner<'_>, plan: LogicalPlan) -> Result<LogicalPlan> {
    check(&plan)?;
    let plan = settled_order(plan).and_then(exact_types).map_err(from_datafusion)?;
    let state = planner.context.state();
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map_err(from_datafusion)?;
    let unwanted = UNWANTED.into_iter().collect::<HashSet<_>>();
    let rules = Optimizer::new().rules.into_iter().filter(|r| !unwanted.contains(r.name())).collect();
    Optimizer::with_rules(rules).optimize(plan, &state, |_, _| {}).map_err(from_datafusion)
}

/// Refuses functions whose value is not a function of their arguments, and scalar subqueries that could give
/// several rows.
fn check(plan: &LogicalPlan) -> Result<()> {
    let checked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && counts_rows(join)
        {
            let name = if join.join_type == JoinType::LeftSemi { "INTERSECT ALL" } else { "EXCEPT ALL" };
            return Err(external(not_yet(name, "Leave ALL out, or count the rows of each kind and join by them.")));
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarFunction(f) if f.func.name() == fault::NAME => fault::check().map_err(external)?,
                    Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                        return Err(external(volatile(f.func.name())));
                    }
                    Expr::ScalarSubquery(subquery) if !is_one_row(&subquery.subquery) => {
                        return Err(external(refuse(
                            "a scalar subquery that could give several rows",
                            "Make it one row with max(), min() or another aggregate, or write a join.",
                        )));
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    checked.map(|_| ()).map_err(from_datafusion)
}

fn volatile(name: &str) -> Error {
    let hint = match name {
        "now" | "current_timestamp" | "current_date" | "current_time" | "today" => {
            "A view follows its inputs, not the clock. Compare with a time column of the input, or filter with now() when you select from the view."
        }
        "random" | "uuid" | "gen_random_uuid" => "A view's rows must follow from its inputs; compute the value when the row is inserted.",
        _ => "Its value depends on the session; use it when you select from the view.",
    };
    refuse(format!("{name}()"), hint)
}

/// Columns that only ORDER BY needs come from a hash set, behind those of the select list: by name instead, as one
/// query has one plan and one fingerprint.
fn settled_order(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let settled = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Projection(shown) = &node else { return Ok(Transformed::no(node)) };
        let LogicalPlan::Sort(sort) = shown.input.as_ref() else { return Ok(Transformed::no(node)) };
        let LogicalPlan::Projection(sorted) = sort.input.as_ref() else { return Ok(Transformed::no(node)) };
        if sorted.expr.len() < shown.expr.len() + 2 {
            return Ok(Transformed::no(node));
        }
        let mut expr = sorted.expr.clone();
        expr[shown.expr.len()..].sort_by_cached_key(|e| e.to_string());
        let input = LogicalPlan::Projection(Projection::try_new(expr, sorted.input.clone())?);
        let input = LogicalPlan::Sort(Sort { expr: sort.expr.clone(), input: Arc::new(input), fetch: sort.fetch });
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown.expr.clone(), Arc::new(input))?)))
    })?;
    Ok(settled.data)
}

/// Casts expressions whose type is none of SQL's, so that no such value reaches an operator's state.
fn exact_types(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let input = match &node {
            LogicalPlan::Projection(p) => p.input.schema().clone(),
            LogicalPlan::Aggregate(a) => a.input.schema().clone(),
            _ => return node.recompute_schema().map(Transformed::yes),
        };
        let preserver = NamePreserver::new(&node);
        let aggregates = matches!(node, LogicalPlan::Aggregate(_));
        node.map_expressions(|e| {
            let (_, field) = e.to_field(&input)?;
            let call = aggregates && e.exists(|e| Ok(matches!(e, Expr::AggregateFunction(_) | Expr::GroupingSet(_))))?;
            if types::is_exact(&field) || call {
                return Ok(Transformed::no(e));
            }
            let name = preserver.save(&e);
            Ok(Transformed::yes(name.restore(cast(e.unalias(), types::exact(&field)))))
        })?
        .map_data(|n| n.recompute_schema())
    })?;
    Ok(plan.data)
}

/// A node that the translation has no operator for.
pub(super) fn unknown(plan: &LogicalPlan) -> Error {
    match plan {
        LogicalPlan::RecursiveQuery(_) => not_yet("WITH RECURSIVE", "Join the steps one by one, to a fixed depth."),
        LogicalPlan::Subquery(_) => not_yet("this correlated subquery", "Write it as a join."),
        LogicalPlan::Extension(e) => not_yet(e.node.name().to_string(), "Write the query in another way."),
        other => not_yet(
            other.display().to_string().split([':', '(']).next().unwrap_or("this construct").trim().to_string(),
            "Write the query in another way.",
        ),
    }
}
