//! PostgreSQL's assignment casts.

use arrow_schema::Field;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, Result, SqlState, SqlType};

use crate::functions;

/// How freely values of a type convert to others.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Family {
    Boolean,
    Number,
    Text,
    Date,
    Time,
    Interval,
    Other,
}

fn family(sql_type: &SqlType) -> Family {
    match sql_type {
        SqlType::Boolean => Family::Boolean,
        SqlType::SmallInt
        | SqlType::Integer
        | SqlType::BigInt
        | SqlType::Real
        | SqlType::Double
        | SqlType::Numeric { .. }
        | SqlType::Oid => Family::Number,
        SqlType::Text | SqlType::Varchar(_) | SqlType::Name | SqlType::Char | SqlType::Unknown => Family::Text,
        SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz => Family::Date,
        SqlType::Time => Family::Time,
        SqlType::Interval => Family::Interval,
        SqlType::Bytea | SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Array(_) => Family::Other,
    }
}

/// A value of `from`'s type for a column of type `target`.
pub(super) fn assign(value: Expr, from: &Field, target: &SqlType, column: &str) -> Result<Expr> {
    let source = SqlType::of(from);
    let untyped = is_untyped(&value) || from.data_type() == &arrow_schema::DataType::Null;
    let allowed = untyped
        || source == *target
        || family(target) == Family::Text
        || (family(&source) == family(target) && family(target) != Family::Other)
        || matches!((&source, target), (SqlType::Json, SqlType::Jsonb) | (SqlType::Jsonb, SqlType::Json))
        || matches!((&source, target), (SqlType::Array(a), SqlType::Array(b)) if family(a) == family(b))
        || matches!((&source, target), (SqlType::Timestamp | SqlType::TimestampTz, SqlType::Time) | (SqlType::Time, SqlType::Interval));
    if !allowed {
        return Err(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("column \"{column}\" is of type {} but expression is of type {}", target.name(), source.name()),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    let tagged = |function, value: Expr| functions::call(function, vec![text(value, from)]);
    Ok(match target {
        _ if source == *target && from.data_type() == &target.arrow() => value,
        SqlType::Uuid => tagged(functions::to_uuid(), value),
        SqlType::Json => tagged(functions::to_json(), value),
        SqlType::Jsonb => tagged(functions::to_jsonb(), value),
        SqlType::Bytea if from.data_type() == &arrow_schema::DataType::Utf8 => tagged(functions::to_bytea(), value),
        SqlType::Varchar(Some(n)) => functions::call(functions::assign_varchar(), vec![text(value, from), lit(i64::from(*n))]),
        _ if from.data_type() == &target.arrow() => value,
        SqlType::SmallInt | SqlType::Integer | SqlType::BigInt if !untyped => {
            crate::rewrite::integer_cast(value, from.data_type(), target.arrow())
        }
        other => cast(value, other.arrow()),
    })
}

/// The value as text, if it is not text already.
fn text(value: Expr, from: &Field) -> Expr {
    match from.data_type() {
        arrow_schema::DataType::Utf8 => value,
        _ => cast(value, arrow_schema::DataType::Utf8),
    }
}

/// A quoted literal has no type of its own in PostgreSQL: it becomes what is needed. A parameter too.
fn is_untyped(value: &Expr) -> bool {
    match value {
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) => true,
        Expr::Alias(alias) => is_untyped(&alias.expr),
        Expr::Placeholder(_) => true,
        _ => false,
    }
}
