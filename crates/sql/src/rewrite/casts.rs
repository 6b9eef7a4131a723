//! Explicit casts, and literals that take a type.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};
use millpond_common::{Error, SqlState, SqlType};

use crate::functions::{self, external};
use crate::types::Family;

/// `expr::type`, with text read and printed as PostgreSQL does.
pub(super) fn explicit(Cast { expr, field }: Cast, schema: &DFSchema) -> DfResult<Expr> {
    let (_, source) = expr.to_field(schema)?;
    let (from, to) = (SqlType::of(&source), SqlType::of(&field));
    let foreign = matches!(source.data_type(), DataType::Null | DataType::Struct(_) | DataType::Map(..) | DataType::Union(..));
    if matches!(*expr, Expr::Placeholder(_)) || foreign || (from == to && source.data_type() == field.data_type()) {
        return Ok(Expr::Cast(Cast { expr, field }));
    }
    if let (Some(text), false) = (quoted(&expr), Family::of(&to) == Family::Text) {
        return functions::literal(text, &to).map_err(external);
    }
    let (from_family, to_family) = (Family::of(&from), Family::of(&to));
    Ok(match (from_family, to_family) {
        (_, Family::Text) => {
            let text = if from_family == Family::Text { *expr } else { functions::to_text(*expr) };
            match to {
                SqlType::Varchar(Some(n)) => functions::call(functions::to_varchar(), vec![text, lit(i64::from(n))]),
                SqlType::Name | SqlType::Char => functions::from_text(text, &to),
                _ => plain(text, field, schema)?,
            }
        }
        (Family::Text, _) => functions::from_text(*expr, &to),
        (Family::Json, Family::Json) => functions::from_text(*expr, &to),
        _ if !castable(&from, &to) => {
            let message = format!("cannot cast type {} to {}", from.name(), to.name());
            return Err(external(Error::new(SqlState("42846"), message)));
        }
        (Family::Number, Family::Number) if field.data_type().is_integer() && !source.data_type().is_integer() => {
            integer(*expr, source.data_type(), field.data_type().clone())
        }
        _ => plain(*expr, field, schema)?,
    })
}

/// A cast that arrow does. It is NULL where its operand is; a plan that says otherwise is refused later.
fn plain(expr: Expr, field: FieldRef, schema: &DFSchema) -> DfResult<Expr> {
    if field.metadata().is_empty() {
        return Ok(cast(expr, field.data_type().clone()));
    }
    let nullable = expr.nullable(schema)?;
    Ok(Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(field.as_ref().clone().with_nullable(nullable)))))
}

/// Whether PostgreSQL has a cast between two types, neither of them text.
fn castable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as S;
    match (from, to) {
        (S::Boolean, S::Integer) | (S::Integer, S::Boolean) => true,
        (S::Timestamp | S::TimestampTz, S::Time) | (S::Time, S::Interval) | (S::Interval, S::Time) => true,
        _ => Family::of(from) == Family::of(to),
    }
}

/// A number as an integer, rounded as PostgreSQL rounds: floats to even, numerics away from zero.
pub(crate) fn integer(expr: Expr, from: &DataType, to: DataType) -> Expr {
    match from {
        DataType::Float32 | DataType::Float64 => cast(functions::call(functions::round_even(), vec![expr]), to),
        DataType::Decimal128(_, 1..) => cast(datafusion::functions::math::expr_fn::round(vec![expr]), to),
        _ => cast(expr, to),
    }
}

/// The text of a quoted literal that has no type yet.
pub(super) fn quoted(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) if metadata.as_ref().is_none_or(|m| m.is_empty()) => Some(text),
        _ => None,
    }
}

/// A quoted literal as a value of a type; text stays as it is.
pub(super) fn literal_as(expr: Expr, of: &SqlType) -> DfResult<Expr> {
    let Some(text) = quoted(&expr) else { return Ok(expr) };
    match of {
        of if Family::of(of) == Family::Text => Ok(expr),
        // Comparing must not round.
        SqlType::Numeric { .. } => functions::literal(text, &natural_numeric(text)).map_err(external),
        of => functions::literal(text, of).map_err(external),
    }
}

/// The type with just the digits that a number has.
fn natural_numeric(text: &str) -> SqlType {
    let digits = text.trim().trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (precision, scale) = match (u8::try_from(whole.len() + fraction.len()), digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
        (Ok(precision @ 1..=38), true) => (precision, fraction.len() as i8),
        _ => millpond_common::types::NUMERIC_DEFAULT,
    };
    SqlType::Numeric { precision, scale }
}
