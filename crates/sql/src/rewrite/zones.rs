//! The session's time zone: what is made of moments (timestamptz) here is what its clocks show. Runs on an analyzed plan, whose
//! implicit casts are there; nothing happens in UTC. Applied twice it does the same.
//!
//! A cast between moments and local times goes through `timezone(zone, …)`. Functions that look at a moment's fields get it as a column
//! of the zone, whose Arrow type tells where it is shown; what they return is a moment of UTC again.

use arrow_schema::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::functions::datetime::expr_fn;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, cast, lit};
use millpond_common::text::zone::Zone;

use crate::functions;

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A plan with the current zone's meaning.
pub(crate) fn plan(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if Zone::current().is_utc() {
        return Ok(plan);
    }
    let node = |node: LogicalPlan| {
        if let LogicalPlan::Limit(_) | LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Unnest(_) = node {
            return Ok(Transformed::no(node));
        }
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let preserver = NamePreserver::new(&node);
        let sort = matches!(node, LogicalPlan::Sort(_));
        let changed = node.map_expressions(|e| {
            let name = preserver.save(&e);
            let new = expression(e, &schema)?;
            Ok(Transformed::yes(if sort { new } else { name.restore(new) }))
        })?;
        changed.map_data(|p| p.recompute_schema())
    };
    Ok(plan.transform_up_with_subqueries(node)?.data)
}

/// An expression with the current zone's meaning.
pub(crate) fn expression(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    if Zone::current().is_utc() {
        return Ok(expr);
    }
    Ok(expr.transform_up(|e| Ok(Transformed::yes(rewrite(e, schema)?)))?.data)
}

/// A cast from one type to another, if it is one between moments and local times.
pub(crate) fn converted(value: Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    let zone = Zone::current();
    if zone.is_utc() {
        return None;
    }
    let through = |value| functions::call(functions::timezone(), vec![lit(zone.name()), value]);
    match (from, to) {
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time32(_) | DataType::Time64(_)) => {
            Some(cast(through(as_type(value, from, &moment())), to.clone()))
        }
        (DataType::Timestamp(_, None) | DataType::Date32, DataType::Timestamp(_, Some(_))) => {
            Some(as_type(through(as_type(value, from, &LOCAL)), &moment(), to))
        }
        _ => None,
    }
}

/// The same moment, shown in the current zone.
pub(crate) fn shown(value: Expr, of: &DataType) -> Expr {
    let to = Zone::current().shown(of);
    as_type(value, of, &to)
}

fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn as_type(value: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to { value } else { cast(value, to.clone()) }
}

fn is_moment(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(_, Some(_)))
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            Ok(match converted(expr.as_ref().clone(), &from, field.data_type()) {
                Some(Expr::Cast(inner)) => Expr::Cast(Cast { expr: inner.expr, field }),
                Some(other) => Expr::Cast(Cast { expr: Box::new(other), field }),
                None => Expr::Cast(Cast { expr, field }),
            })
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (l, r) = (left.get_type(schema)?, right.get_type(schema)?);
            // Days and months are those of the zone's calendar.
            Ok(match (is_moment(&l), is_moment(&r), &l, &r) {
                (true, _, _, DataType::Interval(_)) => cast(binary_expr(shown(*left, &l), op, *right), l),
                (_, true, DataType::Interval(_), _) => cast(binary_expr(*left, op, shown(*right, &r)), r),
                _ => binary_expr(*left, op, *right),
            })
        }
        Expr::ScalarFunction(call) => function(call, schema),
        other => Ok(other),
    }
}

fn function(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let types = call.args.iter().map(|a| a.get_type(schema)).collect::<DfResult<Vec<_>>>()?;
    let returned = |call: &ScalarFunction| Expr::ScalarFunction(call.clone()).get_type(schema);
    match (call.func.name(), types.as_slice()) {
        ("to_text", [of]) | ("to_char", [of, _]) => {
            let shown = shown(std::mem::take(&mut call.args[0]), of);
            call.args[0] = shown;
        }
        ("extract" | "date_part", [_, of]) if is_moment(of) => {
            let shown = shown(std::mem::take(&mut call.args[1]), of);
            call.args[1] = shown;
        }
        ("date_trunc", [_, of]) if is_moment(of) => {
            let returns = returned(&call)?;
            let shown = shown(std::mem::take(&mut call.args[1]), of);
            call.args[1] = shown;
            return Ok(cast(Expr::ScalarFunction(call), returns));
        }
        ("timestamp_subtract", [a, b]) if is_moment(a) != is_moment(b) => {
            let at = usize::from(is_moment(a));
            let to = if is_moment(a) { a } else { b };
            if let Some(converted) = converted(std::mem::take(&mut call.args[at]), &types[at], to) {
                call.args[at] = converted;
            }
        }
        ("current_date", []) => {
            // This now() has no zone in its type: it is UTC's clock.
            let now = expr_fn::now();
            let now = as_type(now.clone(), &now.get_type(schema)?, &moment());
            return Ok(converted(now, &moment(), &DataType::Date32).unwrap_or(Expr::ScalarFunction(call)));
        }
        _ => {}
    }
    Ok(Expr::ScalarFunction(call))
}
