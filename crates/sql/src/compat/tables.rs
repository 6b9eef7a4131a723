//! What stands in FROM: qualified table functions, `unnest … WITH ORDINALITY`, and functions that return sets.

use crate::parse::Dialect;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, TableWithJoins,
};
use sqlparser::parser::Parser;

use super::{as_call, call, name_parts, strip_schema};

/// The relations of a SELECT's FROM by the name that qualifies their columns.
pub(super) fn named_relations(select: &Select) -> Vec<(String, ObjectName)> {
    let factors = select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation)));
    factors
        .filter_map(|factor| match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let qualifier = alias.as_ref().map(|a| a.name.value.clone()).or_else(|| name_parts(name).pop())?;
                Some((qualifier, name.clone()))
            }
            _ => None,
        })
        .collect()
}

pub(super) fn only_argument(args: &[FunctionArg]) -> Option<Expr> {
    match args {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(e))] => Some(e.clone()),
        _ => None,
    }
}

/// `SELECT output FROM factor`.
pub(super) fn select_from(output: Expr, factor: TableFactor) -> Query {
    // Built from text: the syntax tree has many more fields than this needs.
    let mut query = template("SELECT x FROM t");
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(output)];
        select.from = vec![TableWithJoins { relation: factor, joins: Vec::new() }];
    }
    query
}

fn template(sql: &str) -> Query {
    let mut statements = Parser::parse_sql(&Dialect, sql).expect("a constant statement parses");
    match statements.pop() {
        Some(Statement::Query(query)) => *query,
        _ => unreachable!("a constant SELECT is a query"),
    }
}

pub(super) fn derived(query: Box<Query>, alias: &str, columns: &[&str]) -> TableFactor {
    let columns = columns.iter().map(|c| TableAliasColumnDef::from_name(*c)).collect();
    TableFactor::Derived {
        lateral: false,
        subquery: query,
        alias: Some(TableAlias { explicit: true, name: Ident::new(alias), columns, at: None }),
        sample: None,
    }
}

/// Rewrites one item of FROM before its parts are visited.
pub(super) fn rewrite_factor(factor: &mut TableFactor) {
    if let TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } = factor {
        strip_schema(name, true);
        if name_parts(name).pop().as_deref() == Some("unnest") {
            let array_exprs: Vec<Expr> = args
                .args
                .iter()
                .filter_map(|a| if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = a { Some(e.clone()) } else { None })
                .collect();
            *factor = TableFactor::UNNEST {
                alias: alias.take(),
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: *with_ordinality,
            };
        }
    }
    scalar_function(factor);
    if let TableFactor::UNNEST { alias, array_exprs, with_ordinality: true, .. } = factor
        && let [list] = array_exprs.as_slice()
    {
        let mut query = template("SELECT a, b");
        if let SetExpr::Select(select) = query.body.as_mut() {
            let columns: Vec<Ident> = alias.as_ref().map(|a| a.columns.iter().map(|c| c.name.clone()).collect()).unwrap_or_default();
            let name = |i: usize, default: &str| columns.get(i).cloned().unwrap_or_else(|| Ident::new(default));
            let unnest = |list: Expr| call("unnest", vec![list]);
            select.projection = vec![
                SelectItem::ExprWithAlias { expr: unnest(list.clone()), alias: name(0, "unnest") },
                SelectItem::ExprWithAlias { expr: unnest(call("millpond_subscripts", vec![list.clone()])), alias: name(1, "ordinality") },
            ];
        }
        let alias = alias.clone().map(|a| TableAlias { columns: Vec::new(), ..a });
        *factor = TableFactor::Derived { lateral: true, subquery: Box::new(query), alias, sample: None };
    }
}

/// Functions of one value that catalog queries put into FROM; there they are a relation of one row and column, which
/// has the alias's name. So has the column of `generate_series`.
fn scalar_function(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: Some(args), alias: Some(alias), .. } = factor else { return };
    if !alias.columns.is_empty() {
        return;
    }
    match name_parts(name).pop().as_deref() {
        Some("generate_series") => alias.columns = vec![TableAliasColumnDef::from_name(alias.name.value.clone())],
        Some(function @ ("string_to_array" | "current_schemas" | "regexp_split_to_array")) => {
            let arguments = args
                .args
                .iter()
                .filter_map(|a| if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = a { Some(e.clone()) } else { None })
                .collect();
            let mut query = template("SELECT a");
            if let SetExpr::Select(select) = query.body.as_mut() {
                select.projection = vec![SelectItem::ExprWithAlias { expr: call(function, arguments), alias: alias.name.clone() }];
            }
            *factor = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias.clone()), sample: None };
        }
        _ => {}
    }
}

/// Functions that return a set, in the outputs of a SELECT: unnested lists.
pub(super) fn set_returning(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        unnested(expr);
    }
}

fn unnested(expr: &mut Expr) {
    let replacement = match as_call(expr) {
        Some((name, args)) if name == "_pg_expandarray" => {
            Some(call("unnest", vec![call("_pg_expandarray", args.into_iter().cloned().collect())]))
        }
        Some((name, args)) if name == "generate_series" => {
            Some(call("unnest", vec![call("generate_series", args.into_iter().cloned().collect())]))
        }
        Some((name, args)) if name == "generate_subscripts" => {
            args.first().map(|list| call("unnest", vec![call("millpond_subscripts", vec![(*list).clone()])]))
        }
        // A field of each element.
        Some((name, args)) if name == "get_field" => {
            let mut args: Vec<Expr> = args.into_iter().cloned().collect();
            if let Some(of) = args.first_mut() {
                while let Expr::Nested(inner) = of {
                    *of = (**inner).clone();
                }
                unnested(of);
            }
            Some(call("get_field", args))
        }
        _ => None,
    };
    if let Some(replacement) = replacement {
        *expr = replacement;
    }
}
