//! Names the columns of every SELECT as PostgreSQL does, and keeps them apart where it does not mind equal ones.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, SelectItem, VisitMut, VisitorMut};

use crate::statement::fold;

/// Stands between a name and a number in names that are equal for the client. It cannot be typed in SQL.
const MARK: char = '\u{1}';

/// A column's name as the client sees it.
pub(super) fn visible(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// Gives each unnamed select item its name.
pub(super) fn assign(query: &mut ast::Query) {
    struct Names;
    impl VisitorMut for Names {
        type Break = ();
        fn post_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            name_items(&mut select.projection);
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Names);
}

fn name_items(items: &mut [SelectItem]) {
    let mut used: HashSet<String> = HashSet::new();
    for (position, item) in items.iter_mut().enumerate() {
        let (expr, name, plain) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let plain = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                // A set-returning function is expanded under its own name.
                (expr.clone(), name_of(expr), plain)
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), fold(alias), false),
            _ => continue,
        };
        let fresh = used.insert(name.clone());
        let alias = match (fresh, plain) {
            (true, true) => continue,
            (true, false) => name,
            (false, _) => format!("{name}{MARK}{position}"),
        };
        *item = SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', alias) };
    }
}

/// PostgreSQL's name for an unnamed column.
pub(crate) fn name_of(expr: &Expr) -> String {
    inner_name(expr).unwrap_or_else(|| "?column?".into())
}

fn inner_name(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::Identifier(ident) => fold(ident),
        Expr::CompoundIdentifier(parts) => fold(parts.last()?),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return inner_name(inner),
        Expr::Function(function) => function.name.0.last().and_then(|p| p.as_ident()).map(fold)?,
        Expr::Cast { expr, data_type, .. } => inner_name(expr).unwrap_or_else(|| type_name(data_type)),
        Expr::TypedString(typed) => type_name(&typed.data_type),
        Expr::Interval(_) => "interval".into(),
        Expr::Case { else_result, .. } => else_result.as_ref().and_then(|e| inner_name(e)).unwrap_or_else(|| "case".into()),
        Expr::Extract { .. } => "extract".into(),
        Expr::AtTimeZone { .. } => "timezone".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::Position { .. } => "position".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Trim { trim_where, .. } => match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        },
        Expr::Overlay { .. } => "overlay".into(),
        Expr::Array(_) => "array".into(),
        Expr::Tuple(_) => "row".into(),
        Expr::Exists { .. } => "exists".into(),
        Expr::Subquery(query) => return subquery_name(&query.body),
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(field)) => return inner_name(field),
            _ => return inner_name(root),
        },
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => "bool".into(),
        _ => return None,
    })
}

fn subquery_name(body: &ast::SetExpr) -> Option<String> {
    match body {
        ast::SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(expr) => inner_name(expr),
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        },
        ast::SetExpr::Query(query) => subquery_name(&query.body),
        ast::SetExpr::SetOperation { left, .. } => subquery_name(left),
        _ => None,
    }
}

/// A type's internal name, which PostgreSQL uses for `'1'::int`.
fn type_name(data_type: &ast::DataType) -> String {
    use millpond_common::SqlType as T;
    let name = match crate::types::sql_type(data_type) {
        Ok(T::Boolean) => "bool",
        Ok(T::SmallInt) => "int2",
        Ok(T::Integer) => "int4",
        Ok(T::BigInt) => "int8",
        Ok(T::Real) => "float4",
        Ok(T::Double) => "float8",
        Ok(T::Numeric { .. }) => "numeric",
        Ok(T::Varchar(_)) => "varchar",
        Ok(T::Timestamp) => "timestamp",
        Ok(T::TimestampTz) => "timestamptz",
        Ok(T::Time) => "time",
        Ok(T::Array(_)) => "array",
        Ok(other) => return other.name(),
        Err(_) => return data_type.to_string().to_lowercase(),
    };
    name.to_string()
}
