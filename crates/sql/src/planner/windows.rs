//! TUMBLE and HOP: table functions that become derived tables before planning.

use std::ops::ControlFlow;

use crate::parse::Dialect;
use millpond_common::{Error, Result, SqlState};
use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, TableFactor, VisitMut, VisitorMut};
use sqlparser::parser::Parser;

/// Replaces every call of TUMBLE and HOP in FROM.
pub(super) fn rewrite(query: &mut ast::Query) -> Result<()> {
    struct Windows;
    impl VisitorMut for Windows {
        type Break = Error;
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
            match derived(factor) {
                Ok(Some(new)) => {
                    *factor = new;
                    ControlFlow::Continue(())
                }
                Ok(None) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(e),
            }
        }
    }
    match query.visit(&mut Windows) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn derived(factor: &TableFactor) -> Result<Option<TableFactor>> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => match &function.args {
            ast::FunctionArguments::List(list) => (&function.name, &list.args, alias),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let function = name.to_string().to_lowercase();
    let usage = match function.as_str() {
        "tumble" => "TUMBLE(relation, time column, INTERVAL size)",
        "hop" => "HOP(relation, time column, INTERVAL slide, INTERVAL size)",
        "session" => {
            return Err(Error::unsupported(
                "SESSION windows are not supported yet",
                "Use TUMBLE or HOP, or group by a column of your own.",
            ));
        }
        _ => return Ok(None),
    };
    let invalid = || {
        Error::new(SqlState::UNDEFINED_FUNCTION, format!("{} takes other arguments", function.to_uppercase()))
            .with_hint(format!("Write {usage}."))
    };
    let arguments = args.iter().map(argument).collect::<Option<Vec<_>>>().ok_or_else(invalid)?;
    let [relation, column, intervals @ ..] = arguments.as_slice() else { return Err(invalid()) };
    let default_alias = match relation {
        Expr::Identifier(ident) => ident.clone(),
        Expr::CompoundIdentifier(parts) => parts.last().cloned().ok_or_else(invalid)?,
        _ => return Err(invalid()),
    };
    let column = descriptor(column);
    if !matches!(column, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return Err(invalid());
    }
    let (sql, slide, size) = match (function.as_str(), intervals) {
        ("tumble", [size]) => (TUMBLE, size, size),
        ("hop", [slide, size]) => (HOP, slide, size),
        _ => return Err(invalid()),
    };
    let mut subquery = Parser::new(&Dialect)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_query())
        .map_err(|e| Error::internal(format!("{function}: {e}")))?;
    fill(&mut subquery, relation, &column, slide, size);
    let mut alias = alias.clone();
    if alias.is_none() {
        alias = Some(ast::TableAlias { explicit: true, name: default_alias, columns: Vec::new(), at: None });
    }
    Ok(Some(TableFactor::Derived { lateral: false, subquery, alias, sample: None }))
}

/// What a call stands for; the names with a dollar sign are the call's arguments.
const TUMBLE: &str = "SELECT *, tumble_start(_$column, _$size) AS window_start, tumble_start(_$column, _$size) + _$size AS window_end \
                      FROM _$relation WHERE _$column IS NOT NULL";
const HOP: &str = "SELECT *, window_start + _$size AS window_end \
                   FROM (SELECT *, unnest(hop_starts(_$column, _$slide, _$size)) AS window_start FROM _$relation)";

/// Puts the arguments in their places, with the positions that they have in the client's text.
fn fill(query: &mut ast::Query, relation: &Expr, column: &Expr, slide: &Expr, size: &Expr) {
    struct Fill<'a> {
        relation: &'a Expr,
        others: [(&'a str, &'a Expr); 3],
    }
    impl VisitorMut for Fill<'_> {
        type Break = ();
        fn post_visit_relation(&mut self, name: &mut ast::ObjectName) -> ControlFlow<()> {
            if name.to_string() == "_$relation" {
                match self.relation {
                    Expr::Identifier(ident) => *name = ast::ObjectName::from(vec![ident.clone()]),
                    Expr::CompoundIdentifier(parts) => *name = ast::ObjectName::from(parts.clone()),
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Identifier(ident) = expr
                && let Some((_, argument)) = self.others.iter().find(|(name, _)| *name == ident.value)
            {
                *expr = (*argument).clone();
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Fill { relation, others: [("_$column", column), ("_$slide", slide), ("_$size", size)] });
}

fn argument(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr.clone()),
        _ => None,
    }
}

/// `DESCRIPTOR(column)` is the standard's way to name a column.
fn descriptor(expr: &Expr) -> Expr {
    if let Expr::Function(function) = expr
        && function.name.to_string().eq_ignore_ascii_case("descriptor")
        && let ast::FunctionArguments::List(list) = &function.args
        && let [only] = list.args.as_slice()
        && let Some(column) = argument(only)
    {
        return column;
    }
    expr.clone()
}
