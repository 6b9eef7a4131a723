//! Casts to types that exist in the catalog only: `oid`, `name`, and the `reg…` types that stand for an object's
//! number and print as its name.

use crate::parse::Dialect;
use sqlparser::ast::{
    Array, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArguments, Ident, Interval, ObjectName, ObjectNamePart, Select,
    SelectItem, TimezoneInfo, TypedString, Value,
};
use sqlparser::parser::Parser;

use super::{as_call, as_string, call, name_parts, quantified};

/// The types that are numbers and look like names.
const REG: &[&str] = &[
    "regclass",
    "regtype",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regnamespace",
    "regrole",
    "regcollation",
    "regconfig",
    "regdictionary",
];

pub(super) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// `localtimestamp` and `localtime`.
pub(super) fn local_time(function: &Function) -> Option<Expr> {
    if !matches!(function.args, FunctionArguments::None) {
        return None;
    }
    let of = match name_parts(&function.name).as_slice() {
        [name] if name == "localtimestamp" => DataType::Timestamp(None, TimezoneInfo::None),
        [name] if name == "localtime" => DataType::Time(None, TimezoneInfo::None),
        _ => return None,
    };
    Some(cast(call("now", vec![]), of))
}

/// The name of a type that is written as a plain or `pg_catalog`-qualified name.
fn custom_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".into()),
        DataType::Custom(name, _) => {
            let parts = name_parts(name);
            match parts.as_slice() {
                [name] => Some(name.clone()),
                [schema, name] if schema == "pg_catalog" || schema == "information_schema" => Some(name.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The same type without PostgreSQL's schema in front, where the parser knows the rest.
fn unqualified(data_type: &DataType) -> DataType {
    use sqlparser::ast::ArrayElemTypeDef as Elem;
    match data_type {
        DataType::Array(Elem::SquareBracket(item, n)) => DataType::Array(Elem::SquareBracket(Box::new(unqualified(item)), *n)),
        DataType::Custom(_, modifiers) => match custom_name(data_type).as_deref() {
            Some(
                "name" | "char" | "bpchar" | "sql_identifier" | "character_data" | "yes_or_no" | "xid" | "cid" | "tid" | "inet" | "cstring"
                | "aclitem" | "pg_node_tree",
            ) => DataType::Text,
            Some("cardinal_number") => DataType::Integer(None),
            Some("oid") => DataType::BigInt(None),
            Some(name) => {
                let text = if modifiers.is_empty() { name.to_string() } else { format!("{name}({})", modifiers.join(",")) };
                let parsed = Parser::new(&Dialect).try_with_sql(&text).and_then(|mut p| p.parse_data_type());
                parsed
                    .unwrap_or_else(|_| DataType::Custom(ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]), modifiers.clone()))
            }
            None => data_type.clone(),
        },
        other => other.clone(),
    }
}

/// The text of an interval literal: `INTERVAL '1 day 02:03'`, or `INTERVAL '90' DAY`.
pub(super) fn interval_text(interval: &Interval) -> Option<String> {
    let Interval { value, leading_field, leading_precision: None, last_field: None, fractional_seconds_precision: None } = interval else {
        return None;
    };
    let text = as_string(value)?;
    match leading_field {
        None => Some(text.to_string()),
        Some(unit) => text.trim().parse::<f64>().is_ok().then(|| format!("{text} {unit}")),
    }
}

/// The type oid.
pub(super) fn oid() -> DataType {
    DataType::Custom(ObjectName(vec![ObjectNamePart::Identifier(Ident::new("oid"))]), Vec::new())
}

/// The same, but with oid as itself.
fn with_oids(data_type: &DataType) -> DataType {
    use sqlparser::ast::ArrayElemTypeDef as Elem;
    match data_type {
        DataType::Array(Elem::SquareBracket(item, n)) => DataType::Array(Elem::SquareBracket(Box::new(with_oids(item)), *n)),
        other => match custom_name(other).as_deref() {
            Some(name @ ("oid" | "name" | "char")) => {
                DataType::Custom(ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]), Vec::new())
            }
            _ => unqualified(other),
        },
    }
}

fn is_placeholder(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(v) if matches!(v.value, Value::Placeholder(_)))
}

/// The `reg…` type and argument of a call that an inner cast was turned into.
fn as_reg(expr: &Expr) -> Option<(&'static str, Expr)> {
    if let Expr::Nested(inner) = expr {
        return as_reg(inner);
    }
    let (name, args) = as_call(expr)?;
    let kind = name.strip_prefix("millpond_")?;
    let kind = kind.strip_suffix("_oid").unwrap_or(kind);
    let kind = REG.iter().find(|r| **r == kind)?;
    Some((kind, (*args.first()?).clone()))
}

/// The `reg…` type of a `to_reg…` function, which gives a number or NULL.
fn as_lookup(expr: &Expr) -> Option<&'static str> {
    let (name, _) = as_call(expr)?;
    let kind = name.strip_prefix("to_")?;
    REG.iter().find(|r| **r == kind).copied()
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Text | DataType::Varchar(_) | DataType::CharacterVarying(_))
}

/// A parameter has no type of its own; what is cast to an object's name is text.
fn typed(expr: Expr) -> Expr {
    if is_placeholder(&expr) { cast(expr, DataType::Text) } else { expr }
}

/// Rewrites one cast whose operand is already rewritten.
pub(super) fn rewrite(expr: &mut Expr) {
    let replacement = match expr {
        Expr::TypedString(TypedString { data_type, value, .. }) => match custom_name(data_type) {
            Some(name) if REG.contains(&name.as_str()) || name == "oid" => {
                let mut inner = cast(Expr::Value(value.clone()), data_type.clone());
                rewrite(&mut inner);
                Some(inner)
            }
            _ => None,
        },
        Expr::Cast { expr: inner, data_type, .. } => {
            if is_placeholder(inner) && !custom_name(data_type).is_some_and(|n| REG.contains(&n.as_str())) {
                // The type of a parameter is the one that it is cast to: oid stays oid.
                *data_type = with_oids(data_type);
                return;
            }
            if let DataType::Array(_) = data_type
                && let Some(elem) = as_string(inner).and_then(quantified::parsed_elements)
            {
                let list = Expr::Array(Array { elem, named: true });
                *expr = cast(list, unqualified(data_type));
                return;
            }
            let name = custom_name(data_type);
            let reg = as_reg(inner);
            match (name.as_deref(), reg) {
                (Some("oid"), Some((kind, argument))) => Some(call(&format!("millpond_{kind}_oid"), vec![argument])),
                (Some("oid"), None) => Some(call("millpond_oid", vec![typed((**inner).clone())])),
                // One object type by way of another, as in 'x'::regproc::regprocedure: the first says it all.
                (Some(name), Some(_)) if REG.contains(&name) => Some((**inner).clone()),
                (Some(name), None) if REG.contains(&name) => {
                    let literal = as_string(inner).is_some() || is_placeholder(inner);
                    let function = if literal { format!("millpond_{name}_oid") } else { format!("millpond_{name}") };
                    Some(call(&function, vec![typed((**inner).clone())]))
                }
                (Some("int2vector" | "oidvector"), _) => Some((**inner).clone()),
                (_, None) if is_text(&unqualified(data_type)) && as_lookup(inner).is_some() => {
                    as_lookup(inner).map(|kind| call(&format!("millpond_{kind}_text"), vec![(**inner).clone()]))
                }
                (_, Some((kind, argument))) => match unqualified(data_type) {
                    plain if is_text(&plain) => Some(call(&format!("millpond_{kind}_text"), vec![argument])),
                    other => Some(cast(call(&format!("millpond_{kind}_oid"), vec![argument]), other)),
                },
                (Some(_), None) => Some(cast((**inner).clone(), unqualified(data_type))),
                (None, None) => {
                    let plain = unqualified(data_type);
                    (plain != *data_type).then(|| cast((**inner).clone(), plain))
                }
            }
        }
        _ => None,
    };
    if let Some(replacement) = replacement {
        *expr = replacement;
    }
}

/// Objects are compared by number, whatever they print as.
pub(super) fn compare_as_oids(left: &mut Expr, op: &BinaryOperator, right: &mut Expr) {
    use BinaryOperator as B;
    if !matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq) {
        return;
    }
    let (l, r) = (as_reg(left), as_reg(right));
    let kind = match (&l, &r) {
        (Some((kind, _)), _) | (_, Some((kind, _))) => *kind,
        _ => return,
    };
    for (side, reg) in [(left, l), (right, r)] {
        match reg {
            Some((_, argument)) => *side = call(&format!("millpond_{kind}_oid"), vec![argument]),
            None if as_string(side).is_some() => *side = call(&format!("millpond_{kind}_oid"), vec![side.clone()]),
            None => {}
        }
    }
}

/// Stands behind the name of an output that is equal to another name; the planner cuts it off for the client.
const MARK: char = '\u{1}';

/// Gives an output column that a rewrite would rename the name that PostgreSQL gives it.
pub(super) fn name_outputs(select: &mut Select) {
    let names: Vec<Option<String>> =
        select.projection.iter().map(|item| if let SelectItem::UnnamedExpr(e) = item { output_name(e) } else { None }).collect();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let Some(name) = names[i].as_ref().filter(|_| is_rewritten(expr)) else { continue };
        let repeated = names.iter().filter(|n| n.as_ref() == Some(name)).count() > 1;
        // An output that hides the column it is made of would make ORDER BY ambiguous.
        let marked = repeated || column_inside(expr) == Some(name);
        let alias = if marked { format!("{name}{MARK}{i}") } else { name.clone() };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
    }
}

/// `SELECT t.a, t.*`: DataFusion wants two names for the two columns.
pub(super) fn name_beside_wildcard(select: &mut Select) {
    if !select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))) {
        return;
    }
    for (i, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) = item
            && let Some(last) = parts.last()
        {
            let alias = format!("{}{MARK}{i}", crate::statement::fold(last));
            *item = SelectItem::ExprWithAlias { expr: Expr::CompoundIdentifier(parts.clone()), alias: Ident::with_quote('"', alias) };
        }
    }
}

/// The qualified column that a cast is of.
fn column_inside(expr: &Expr) -> Option<&String> {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => column_inside(expr),
        Expr::CompoundIdentifier(parts) => parts.last().map(|p| &p.value),
        _ => None,
    }
}

fn is_rewritten(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { expr, data_type, .. } => custom_name(data_type).is_some() || is_rewritten(expr),
        Expr::TypedString(t) => custom_name(&t.data_type).is_some(),
        Expr::Subquery(_) => true,
        Expr::Function(f) => name_parts(&f.name).len() > 1 || matches!(f.args, FunctionArguments::Subquery(_)) || local_time(f).is_some(),
        Expr::Collate { .. } => true,
        _ => false,
    }
}

/// The name that PostgreSQL gives to an output column.
fn output_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(i) => Some(i.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|i| i.value.clone()),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => output_name(inner),
        Expr::Cast { expr, data_type, .. } => output_name(expr).or_else(|| custom_name(data_type)),
        Expr::TypedString(t) => custom_name(&t.data_type),
        Expr::Function(f) => name_parts(&f.name).pop(),
        Expr::Subquery(q) => match q.body.as_select()?.projection.first()? {
            SelectItem::UnnamedExpr(e) => output_name(e),
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
            _ => None,
        },
        _ => None,
    }
}
