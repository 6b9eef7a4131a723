//! Subqueries in expressions: `ARRAY(SELECT …)` for every statement, and what only catalog queries need.

use std::ops::ControlFlow;

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CaseWhen, DataType, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr,
    JoinOperator, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, UnaryOperator, Value, Visit, VisitMut,
    Visitor, VisitorMut, visit_expressions,
};

use super::{as_string, call, casts, function, name_parts, null_text, tables};

/// System relations that never have a row, because Millpond has no such objects.
const EMPTY: &[&str] = &[
    "pg_policy",
    "pg_policies",
    "pg_inherits",
    "pg_publication",
    "pg_publication_rel",
    "pg_publication_namespace",
    "pg_publication_tables",
    "pg_subscription",
    "pg_subscription_rel",
    "pg_statistic_ext",
    "pg_statistic_ext_data",
    "pg_event_trigger",
    "pg_partitioned_table",
    "pg_trigger",
    "pg_enum",
    "pg_user_mapping",
    "pg_user_mappings",
    "pg_auth_members",
    "pg_sequence",
    "pg_sequences",
];

/// Whether a SELECT certainly returns no row.
fn is_empty(select: &Select) -> bool {
    if !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty()) || select.projection.iter().any(has_aggregate_item) {
        return false;
    }
    let empty = |factor: &TableFactor| matches!(factor, TableFactor::Table { name, args: None, .. } if name_parts(name).pop().is_some_and(|n| EMPTY.contains(&n.as_str())));
    select.from.iter().any(|from| {
        let outer = from.joins.iter().any(|j| {
            !matches!(
                j.join_operator,
                JoinOperator::Join(_)
                    | JoinOperator::Inner(_)
                    | JoinOperator::CrossJoin(_)
                    | JoinOperator::Left(_)
                    | JoinOperator::LeftOuter(_)
            )
        });
        let inner = from
            .joins
            .iter()
            .filter(|j| matches!(j.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)));
        !outer && (empty(&from.relation) || inner.into_iter().any(|j| empty(&j.relation)))
    })
}

/// In a SELECT that returns no row, the subqueries of its outputs say nothing: they become NULL.
pub(super) fn prune_empty(select: &mut Select) {
    struct Pruner;
    impl VisitorMut for Pruner {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Subquery(_) => *expr = null_text(),
                Expr::Function(f) if matches!(f.args, FunctionArguments::Subquery(_)) => *expr = empty_list(),
                // A column of arrays with an array's text, which only its type would tell.
                Expr::BinaryOp { right, op: BinaryOperator::Eq | BinaryOperator::NotEq, .. }
                    if as_string(right).is_some_and(|t| t.starts_with('{')) =>
                {
                    *expr = Expr::value(Value::Boolean(false));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    if is_empty(select) {
        for item in &mut select.projection {
            let _ = item.visit(&mut Pruner);
        }
    }
}

fn empty_list() -> Expr {
    call("millpond_empty_list", vec![])
}

/// The value of a subquery that reads an empty system relation, or that asks for a column's own collation (there is none).
pub(super) fn constant(expr: &Expr) -> Option<Expr> {
    let empty = |q: &Query| q.body.as_select().is_some_and(is_empty);
    match expr {
        Expr::Subquery(q) if empty(q) || asks_collation(q) => Some(null_text()),
        Expr::Exists { subquery, negated } if empty(subquery) => Some(Expr::value(Value::Boolean(*negated))),
        Expr::Function(f) => match &f.args {
            FunctionArguments::Subquery(q) if empty(q) => Some(empty_list()),
            _ => None,
        },
        _ => None,
    }
}

/// psql asks for the collation of a column where it differs from its type's; here it never does.
fn asks_collation(query: &Query) -> bool {
    let Some(select) = query.body.as_select() else { return false };
    let relations: Vec<String> = tables::named_relations(select).into_iter().filter_map(|(_, name)| name_parts(&name).pop()).collect();
    relations.len() == 2 && relations.iter().any(|r| r == "pg_collation") && relations.iter().any(|r| r == "pg_type" || r == "pg_namespace")
}

const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "array_agg",
    "string_agg",
    "bool_or",
    "bool_and",
    "every",
    "first_value",
    "last_value",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
];

/// Whether an expression aggregates by itself, not within a subquery of its own.
fn has_aggregate(expr: &Expr) -> bool {
    struct Finder {
        depth: usize,
    }
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f)
                    if self.depth == 0
                        && f.over.is_none()
                        && name_parts(&f.name).pop().is_some_and(|n| AGGREGATES.contains(&n.as_str())) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder { depth: 0 }).is_break()
}

fn has_aggregate_item(item: &SelectItem) -> bool {
    match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => has_aggregate(e),
        _ => false,
    }
}

/// The only output of a SELECT that neither groups, aggregates nor deduplicates.
fn plain_output(select: &mut Select) -> Option<&mut Expr> {
    if select.distinct.is_some() || select.having.is_some() || !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty()) {
        return None;
    }
    match select.projection.as_mut_slice() {
        [SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }] if !has_aggregate(e) => Some(e),
        _ => None,
    }
}

/// Takes a query's ORDER BY, with `1` replaced by the output that it means.
fn take_order(query: &mut Query) -> Vec<OrderByExpr> {
    let Some(order) = query.order_by.take() else { return Vec::new() };
    let OrderByKind::Expressions(mut exprs) = order.kind else { return Vec::new() };
    let output = match query.body.as_select().and_then(|s| s.projection.first()) {
        Some(SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) => Some(e.clone()),
        _ => None,
    };
    for e in &mut exprs {
        if let Expr::Value(v) = &e.expr
            && matches!(v.value, Value::Number(..))
            && let Some(output) = &output
        {
            e.expr = output.clone();
        }
    }
    exprs
}

fn aggregate(name: &str, argument: Expr, order: Vec<OrderByExpr>) -> Expr {
    let mut f = function(name, vec![argument]);
    if let FunctionArguments::List(list) = &mut f.args
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    Expr::Function(f)
}

/// A correlated scalar subquery must be seen to return one row at most. In the catalog it does; an aggregate says so.
/// Conditions on the outer row alone are given back: they decide whether there is a subquery at all.
pub(super) fn at_most_one_row(query: &mut Query) -> Option<Expr> {
    if query.fetch.is_some() || query.with.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if select.from.is_empty() || plain_output(select).is_none() {
        return None;
    }
    let condition = take_outer_conditions(select);
    query.limit_clause = None;
    let order = take_order(query);
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(output) = plain_output(select)
    {
        *output = aggregate("first_value", output.clone(), order);
    }
    condition
}

/// `CASE WHEN condition THEN value END`.
pub(super) fn only_if(condition: Expr, value: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result: value }],
        else_result: None,
    }
}

/// Removes from WHERE what names no column of the SELECT's own relations.
fn take_outer_conditions(select: &mut Select) -> Option<Expr> {
    let own: Vec<String> = tables::named_relations(select).into_iter().map(|(name, _)| name).collect();
    let mut conditions = Vec::new();
    split_and(select.selection.take()?, &mut conditions);
    let (outer, inner): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|c| is_outer(c, &own));
    let and =
        |list: Vec<Expr>| list.into_iter().reduce(|a, b| Expr::BinaryOp { left: Box::new(a), op: BinaryOperator::And, right: Box::new(b) });
    select.selection = and(inner);
    and(outer)
}

fn split_and(expr: Expr, out: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split_and(*left, out);
            split_and(*right, out);
        }
        other => out.push(other),
    }
}

fn is_outer(expr: &Expr, own: &[String]) -> bool {
    let mut outer = false;
    let inner = visit_expressions(expr, |e| match e {
        Expr::CompoundIdentifier(parts) if parts.len() >= 2 && !own.contains(&parts[parts.len() - 2].value) => {
            outer = true;
            ControlFlow::Continue(())
        }
        Expr::CompoundIdentifier(_) | Expr::Identifier(_) | Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    outer && inner.is_continue()
}

/// EXISTS and IN among a SELECT's outputs, as a count and an array: they are planned in conditions only.
pub(super) fn count_exists(select: &mut Select) {
    struct Counter;
    impl VisitorMut for Counter {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::InSubquery { expr: value, subquery, negated } = expr {
                let mut array = function("array", Vec::new());
                array.args = FunctionArguments::Subquery(subquery.clone());
                let found = call("array_has", vec![Expr::Function(array), (**value).clone()]);
                *expr = if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) } } else { found };
            } else if let Expr::Exists { subquery, negated } = expr {
                let mut query = subquery.clone();
                let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
                select.projection = vec![SelectItem::UnnamedExpr(call("count", vec![Expr::value(Value::Number("1".into(), false))]))];
                let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
                let zero = Expr::value(Value::Number("0".into(), false));
                *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(Expr::Subquery(query)), op, right: Box::new(zero) }));
            }
            ControlFlow::Continue(())
        }
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = expr.visit(&mut Counter);
        }
    }
}

/// Drops the branches of a CASE that are for kinds of types that Millpond does not have (domains, composites, enums,
/// ranges); they ask with subqueries of their own.
pub(super) fn drop_foreign_types(expr: &mut Expr) {
    let Expr::Case { operand: None, conditions, else_result, .. } = expr else { return };
    let foreign = |condition: &Expr| match condition {
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let column = match left.as_ref() {
                Expr::CompoundIdentifier(parts) => parts.last().map(|p| p.value.as_str()),
                Expr::Identifier(i) => Some(i.value.as_str()),
                _ => None,
            };
            column == Some("typtype") && as_string(right).is_some_and(|t| matches!(t, "d" | "c" | "e" | "r" | "m"))
        }
        _ => false,
    };
    let Some(dropped) = conditions.iter().find(|w| foreign(&w.condition)).map(|w| typed_null(&w.result)) else { return };
    conditions.retain(|w| !foreign(&w.condition));
    if conditions.is_empty() {
        let value = else_result.take().map(|e| *e).filter(|e| !matches!(e, Expr::Value(v) if v.value == Value::Null));
        *expr = value.unwrap_or(dropped);
    }
}

/// Both arms of a recursive query must agree on their types: whole numbers that are counted up are bigint in both.
pub(super) fn wide_numbers(query: &mut Query) {
    let Some(with) = query.with.as_mut().filter(|w| w.recursive) else { return };
    for cte in &mut with.cte_tables {
        let SetExpr::SetOperation { left, .. } = cte.query.body.as_mut() else { continue };
        let SetExpr::Select(select) = left.as_mut() else { continue };
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && matches!(&*expr, Expr::Value(v) if matches!(v.value, Value::Number(..)))
            {
                *expr = casts::cast(expr.clone(), DataType::BigInt(None));
            }
        }
    }
}

/// NULL of the type that a subquery of type introspection would have.
fn typed_null(expr: &Expr) -> Expr {
    let output = match expr {
        Expr::Subquery(q) => q.body.as_select().and_then(|s| s.projection.first()),
        _ => None,
    };
    let text = match output {
        Some(SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) => e.to_string().to_lowercase(),
        _ => return null_text(),
    };
    let list = text.contains("array_agg(");
    let number = text.contains("oid") || text.contains("typid");
    let item = if number { casts::oid() } else { DataType::Text };
    let of = if list { DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(item), None)) } else { item };
    casts::cast(Expr::value(Value::Null), of)
}

/// `ARRAY(SELECT …)` as a scalar subquery with an aggregate, or as an expression over the array it reads.
pub(super) fn array(f: &mut Function) -> Option<Expr> {
    let FunctionArguments::Subquery(query) = &mut f.args else { return None };
    if name_parts(&f.name).pop()? != "array" {
        return None;
    }
    if let Some(list) = over_one_array(query) {
        return Some(list);
    }
    if query.limit_clause.is_none()
        && query.with.is_none()
        && let SetExpr::Select(select) = query.body.as_mut()
        && plain_output(select).is_some()
    {
        let order = take_order(query);
        if let SetExpr::Select(select) = query.body.as_mut()
            && let Some(output) = plain_output(select)
        {
            *output = aggregate("array_agg", output.clone(), order);
        }
        return Some(call("millpond_array_or_empty", vec![Expr::Subquery(query.clone())]));
    }
    let outer =
        tables::select_from(aggregate("array_agg", Expr::Identifier("c".into()), Vec::new()), tables::derived(query.clone(), "a", &["c"]));
    Some(call("millpond_array_or_empty", vec![Expr::Subquery(Box::new(outer))]))
}

/// `ARRAY(SELECT f(x) FROM unnest(list) x)` and psql's listing of a foreign table's options.
fn over_one_array(query: &Query) -> Option<Expr> {
    let select = query.body.as_select()?;
    let [from] = select.from.as_slice() else { return None };
    if !from.joins.is_empty() || select.selection.is_some() {
        return None;
    }
    let output = match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }] => e,
        _ => return None,
    };
    match &from.relation {
        TableFactor::Table { name, args: Some(args), .. } if name_parts(name).pop()? == "pg_options_to_table" => {
            let list = tables::only_argument(&args.args)?;
            Some(call("millpond_options", vec![list]))
        }
        TableFactor::UNNEST { array_exprs, with_ordinality: false, .. } => {
            let [list] = array_exprs.as_slice() else { return None };
            match output {
                Expr::Identifier(_) => Some(call("millpond_array_or_empty", vec![list.clone()])),
                Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } if matches!(right.as_ref(), Expr::Identifier(_)) => {
                    Some(call("millpond_array_prefix", vec![casts::cast((**left).clone(), DataType::Text), list.clone()]))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
