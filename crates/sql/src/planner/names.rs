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
    inner_name(expr).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// How much a name says: a cast around it, or a CASE, replaces a weak one.
#[derive(PartialEq, Eq)]
enum Strength {
    Weak,
    Strong,
}

fn inner_name(expr: &Expr) -> Option<(String, Strength)> {
    let strong = |name: String| Some((name, Strength::Strong));
    let weak = |name: String| Some((name, Strength::Weak));
    let kept = |inner: &Expr| inner_name(inner).filter(|(_, strength)| *strength == Strength::Strong);
    match expr {
        Expr::Identifier(ident) => strong(fold(ident)),
        Expr::CompoundIdentifier(parts) => strong(fold(parts.last()?)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => inner_name(inner),
        Expr::Function(function) => strong(function.name.0.last().and_then(|p| p.as_ident()).map(fold)?),
        Expr::Cast { expr, data_type, .. } => kept(expr).or_else(|| weak(type_name(data_type))),
        Expr::TypedString(typed) => weak(type_name(&typed.data_type)),
        Expr::Interval(_) => weak("interval".into()),
        Expr::Case { else_result, .. } => else_result.as_ref().and_then(|e| kept(e)).or_else(|| weak("case".into())),
        Expr::Extract { .. } => strong("extract".into()),
        Expr::AtTimeZone { .. } => strong("timezone".into()),
        Expr::Ceil { .. } => strong("ceil".into()),
        Expr::Floor { .. } => strong("floor".into()),
        Expr::Position { .. } => strong("position".into()),
        Expr::Substring { .. } => strong("substring".into()),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        }),
        Expr::Overlay { .. } => strong("overlay".into()),
        Expr::Array(_) => strong("array".into()),
        Expr::Tuple(_) => strong("row".into()),
        Expr::Exists { .. } => strong("exists".into()),
        Expr::Subquery(query) => subquery_name(&query.body),
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(field)) => inner_name(field),
            _ => inner_name(root),
        },
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => weak("bool".into()),
        _ => None,
    }
}

fn subquery_name(body: &ast::SetExpr) -> Option<(String, Strength)> {
    match body {
        ast::SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(expr) => inner_name(expr),
            SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias), Strength::Strong)),
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
