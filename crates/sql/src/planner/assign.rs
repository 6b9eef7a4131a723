//! PostgreSQL's assignment casts.

use arrow_schema::Field;
use datafusion::logical_expr::{Expr, cast};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, Result, SqlState, SqlType};

use crate::functions;
use crate::rewrite::zones;
use crate::types::Family;

/// A value of `from`'s type for a column of type `target`.
pub(super) fn assign(value: Expr, from: &Field, target: &SqlType, column: &str) -> Result<Expr> {
    let source = SqlType::of(from);
    let untyped = is_untyped(&value) || from.data_type() == &arrow_schema::DataType::Null;
    let allowed = untyped
        || source == *target
        || Family::of(target) == Family::Text
        || (Family::of(&source) == Family::of(target) && !matches!(target, SqlType::Array(_)))
        || matches!((&source, target), (SqlType::Array(a), SqlType::Array(b)) if Family::of(a) == Family::of(b))
        || matches!((&source, target), (SqlType::Timestamp | SqlType::TimestampTz, SqlType::Time) | (SqlType::Time, SqlType::Interval));
    if !allowed {
        return Err(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("column \"{column}\" is of type {} but expression is of type {}", target.name(), source.name()),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    Ok(match (value, target) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), _), target) => functions::literal(&text, target)?,
        (value @ Expr::Literal(ScalarValue::Null, _), target) => cast(value, target.arrow()),
        (value, target) if source == *target && from.data_type() == &target.arrow() => value,
        (value, SqlType::Varchar(Some(_)) | SqlType::Json | SqlType::Jsonb | SqlType::Uuid) => {
            functions::from_text(text(zones::shown(value, from.data_type()), &source), target)
        }
        (value, target) if Family::of(target) == Family::Text => text(zones::shown(value, from.data_type()), &source),
        (value, target) if Family::of(&source) == Family::Text => functions::from_text(value, target),
        (value, SqlType::SmallInt | SqlType::Integer | SqlType::BigInt) => {
            crate::rewrite::integer_cast(value, from.data_type(), target.arrow())
        }
        (value, target) => {
            let to = target.arrow();
            zones::converted(value.clone(), from.data_type(), &to).unwrap_or_else(|| cast(value, to))
        }
    })
}

/// The value as text, if it is not text already.
fn text(value: Expr, of: &SqlType) -> Expr {
    if Family::of(of) == Family::Text { value } else { functions::to_text(value) }
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
