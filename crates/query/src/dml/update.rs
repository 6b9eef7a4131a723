//! UPDATE: names and types. How it runs is in [`super::modify`].

use datafusion::logical_expr::Expr;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::ast;
use millpond_sql::statement::fold;

use super::bind::{Binder, has_subquery, parse_expr, without_position};
use super::modify::{Access, BoundModify};
use super::returning::Returning;
use super::source::{is_default, numbered, numbered_column};
use super::target::{Target, relation_name};

/// Resolves names and types.
pub fn bind<'a>(binder: &Binder<'a>, update: &ast::Update) -> Result<BoundModify<'a>> {
    if !update.order_by.is_empty() || update.limit.is_some() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "UPDATE takes no ORDER BY and no LIMIT"));
    }
    let target = written_table(binder, &update.table, "update")?;
    let from = match &update.from {
        None => &[][..],
        Some(ast::UpdateTableFromKind::AfterSet(from) | ast::UpdateTableFromKind::BeforeSet(from)) => from,
    };
    let sets = assignments(&target, &update.assignments)?;
    let by_query = !from.is_empty()
        || update.selection.as_ref().is_some_and(has_subquery)
        || sets.iter().any(|(_, e)| e.as_ref().is_some_and(has_subquery));
    let (access, sets) = match by_query {
        true => {
            let computed = sets.iter().filter_map(|(_, e)| e.as_ref()).collect::<Vec<_>>();
            let query = binder.query_text(&rows_query(&target, &update.table, from, update.selection.as_ref(), &computed))?;
            let schema = numbered(&query.columns);
            let mut place = target.width();
            let mut bound = Vec::with_capacity(sets.len());
            for (column, expr) in &sets {
                let expr = match expr {
                    None => default_expr(binder, &target, *column)?,
                    Some(expr) => {
                        let computed = numbered_column(place);
                        place += 1;
                        // A literal or parameter alone takes the type of its column.
                        let alone = matches!(expr, ast::Expr::Value(_));
                        target.assignment(binder, if alone { expr } else { &computed }, &schema, None, *column)?
                    }
                };
                bound.push((*column, expr));
            }
            (Access::Query(Box::new(query)), bound)
        }
        false => {
            let filter = condition(binder, &target, update.selection.as_ref())?;
            let schema = &target.spec().schema;
            let bind = |(column, expr): (usize, Option<ast::Expr>)| {
                let bound = match expr {
                    Some(expr) => target.assignment(binder, &expr, schema, Some(&target.alias), column)?,
                    None => default_expr(binder, &target, column)?,
                };
                Ok((column, bound))
            };
            (Access::Direct(filter), sets.into_iter().map(bind).collect::<Result<_>>()?)
        }
    };
    let returning = Returning::bind(binder, &target, update.returning.as_ref())?;
    Ok(BoundModify { command: "UPDATE", target, access, sets: Some(sets), returning })
}

/// A WHERE over the table's own columns.
pub fn condition(binder: &Binder<'_>, target: &Target<'_>, selection: Option<&ast::Expr>) -> Result<Option<Expr>> {
    let bind = |e| binder.expr(e, &target.spec().schema, Some(&target.alias), Some(&SqlType::Boolean));
    selection.map(bind).transpose().map_err(|e| match e.state() == SqlState::DATATYPE_MISMATCH && !e.message().contains("WHERE") {
        true => Error::new(SqlState::DATATYPE_MISMATCH, "argument of WHERE must be type boolean"),
        false => e,
    })
}

/// The table that UPDATE or DELETE names.
pub fn written_table<'a>(binder: &Binder<'a>, table: &ast::TableWithJoins, command: &str) -> Result<Target<'a>> {
    if !table.joins.is_empty() {
        return Err(
            Error::new(SqlState::SYNTAX_ERROR, format!("cannot {command} a join")).with_hint("Name the other tables in FROM or USING.")
        );
    }
    match &table.relation {
        ast::TableFactor::Table { name, alias, .. } => {
            let alias = alias.as_ref().map(|a| fold(&a.name));
            Target::find(binder, &relation_name(name)?, alias, command)
        }
        other => Err(Error::new(SqlState::SYNTAX_ERROR, format!("cannot {command} \"{other}\""))),
    }
}

/// What is assigned to which column; `None` for DEFAULT.
pub fn assignments(target: &Target<'_>, list: &[ast::Assignment]) -> Result<Vec<(usize, Option<ast::Expr>)>> {
    let value = |expr: &ast::Expr| (!is_default(expr)).then(|| expr.clone());
    let mut sets: Vec<(usize, Option<ast::Expr>)> = Vec::with_capacity(list.len());
    for assignment in list {
        match &assignment.target {
            ast::AssignmentTarget::ColumnName(name) => sets.push((target.assigned(name)?, value(&assignment.value))),
            ast::AssignmentTarget::Tuple(names) => {
                let values = match &assignment.value {
                    ast::Expr::Tuple(values) => values.clone(),
                    ast::Expr::Nested(value) => vec![value.as_ref().clone()],
                    _ => {
                        let hint = "Assign the columns one by one, each from a query of its own.";
                        return Err(Error::unsupported("assigning a query to several columns is not supported", hint));
                    }
                };
                if values.len() != names.len() {
                    return Err(Error::new(SqlState::SYNTAX_ERROR, "number of columns does not match number of values"));
                }
                for (name, expr) in names.iter().zip(&values) {
                    sets.push((target.assigned(name)?, value(expr)));
                }
            }
        }
    }
    for (i, (column, _)) in sets.iter().enumerate() {
        if sets.iter().take(i).any(|(c, _)| c == column) {
            let name = target.spec().schema.field(*column).name().clone();
            return Err(Error::new(SqlState::SYNTAX_ERROR, format!("multiple assignments to same column \"{name}\"")));
        }
    }
    Ok(sets)
}

/// A column's default as an expression over no columns.
pub fn default_expr(binder: &Binder<'_>, target: &Target<'_>, column: usize) -> Result<Expr> {
    let expr = match target.def.defaults.get(column).and_then(Option::as_ref) {
        Some(text) => parse_expr(text)?,
        None => ast::Expr::value(ast::Value::Null),
    };
    target.assignment(binder, &expr, &arrow_schema::Schema::empty(), None, column).map_err(without_position)
}

/// A query for the rows that a statement concerns: the table's columns, then what is computed beside them.
pub fn rows_query(
    target: &Target<'_>,
    table: &ast::TableWithJoins,
    from: &[ast::TableWithJoins],
    selection: Option<&ast::Expr>,
    computed: &[&ast::Expr],
) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let alias = quoted(&target.alias);
    let columns = target.spec().schema.fields().iter().map(|f| format!("{alias}.{}", quoted(f.name())));
    let computed = computed.iter().enumerate().map(|(i, e)| format!("{e} AS \"computed {i}\""));
    let select = columns.chain(computed).collect::<Vec<_>>().join(", ");
    let tables = std::iter::once(table).chain(from).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let condition = selection.map(|s| format!(" WHERE {s}")).unwrap_or_default();
    format!("SELECT {select} FROM {tables}{condition}")
}
