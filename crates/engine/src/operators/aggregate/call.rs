//! One aggregate call, bound to its input: what is kept for it, and what its result looks like.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow_schema::{DataType, Field, Schema, SchemaRef, SortOptions};
use millpond_common::{Error, Result, RowCodec, SqlState, SqlType};
use millpond_plan::{AggregateCall, AggregateFunction};
use millpond_state::SortedState;

use super::group::Slot;

/// A bound call.
pub struct Call {
    /// As planned.
    pub plan: AggregateCall,
    /// What is kept per group.
    pub kind: Kind,
    /// The output column's type.
    pub output: DataType,
    /// The argument's type, if there is an argument.
    pub argument: Option<DataType>,
    /// Digits after the point of an exact argument.
    scale: i8,
    /// Encodes arguments so that the smallest bytes win (for max: descending), where values are kept.
    pub codec: Option<RowCodec>,
    /// How `codec` writes NULL.
    pub null: Vec<u8>,
}

/// What is kept for a call per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number of rows.
    Count,
    /// An exact sum and a count of integers or decimals.
    Exact,
    /// A sum and a count of floating-point numbers.
    Float,
    /// The winning value; enough while nothing is deleted.
    Extreme,
    /// All values, in a table of their own.
    Values,
}

/// The result of a call for one group.
#[derive(Clone, Debug)]
pub enum Datum {
    /// NULL.
    Null,
    /// An integer, or a decimal's digits at the output's scale.
    Exact(i128),
    /// A floating-point number.
    Float(f64),
    /// A value as the call's codec has encoded it.
    Encoded(Box<[u8]>),
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Datum::Null, Datum::Null) => true,
            (Datum::Exact(a), Datum::Exact(b)) => a == b,
            (Datum::Float(a), Datum::Float(b)) => a.to_bits() == b.to_bits(),
            (Datum::Encoded(a), Datum::Encoded(b)) => a == b,
            _ => false,
        }
    }
}

impl Call {
    /// Binds a planned call to its input's columns.
    pub fn new(plan: &AggregateCall, input: &SchemaRef, append_only: bool, output: &DataType) -> Result<Self> {
        let field = plan.argument.map(|c| Arc::clone(&input.fields()[c]));
        let argument = field.as_ref().map(|f| f.data_type().clone());
        let kind = match (plan.function, &argument) {
            (AggregateFunction::Count, _) => Kind::Count,
            (AggregateFunction::Min | AggregateFunction::Max, Some(_)) => {
                if append_only {
                    Kind::Extreme
                } else {
                    Kind::Values
                }
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(t)) if t.is_integer() || matches!(t, DataType::Decimal128(..)) => {
                Kind::Exact
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(DataType::Float32 | DataType::Float64)) => Kind::Float,
            (function, _) => {
                let name = format!("{function:?}").to_lowercase();
                let of = field.map_or("*".into(), |f| SqlType::of(&f).name());
                return Err(Error::unsupported(format!("{name}({of}) in a materialized view"), "cast the argument to a numeric type"));
            }
        };
        if !matches!(kind, Kind::Extreme | Kind::Values) && !is_number(output) {
            return Err(Error::internal(format!("aggregate with a result of type {output}")));
        }
        let scale = match &argument {
            Some(DataType::Decimal128(_, scale)) => *scale,
            _ => 0,
        };
        let mut call = Call { plan: plan.clone(), kind, output: output.clone(), argument, scale, codec: None, null: Vec::new() };
        if let Some(data_type) = call.argument.as_ref().filter(|_| matches!(kind, Kind::Extreme | Kind::Values)) {
            let schema = Arc::new(Schema::new(vec![Field::new("value", data_type.clone(), true)]));
            let options = SortOptions { descending: plan.function == AggregateFunction::Max, nulls_first: false };
            let codec = RowCodec::with_order(schema, &[options])?;
            call.null = codec.encode(&[new_null_array(data_type, 1)])?.row(0).data().to_vec();
            call.codec = Some(codec);
        }
        Ok(call)
    }

    /// Whether each argument counts once per group. (For min and max that changes nothing.)
    pub fn distinct(&self) -> bool {
        self.plan.distinct && self.plan.argument.is_some() && !matches!(self.kind, Kind::Extreme | Kind::Values)
    }

    /// Encodes arguments so that equal ones have equal bytes.
    pub fn value_codec(&self) -> Result<RowCodec> {
        let data_type = self.argument.clone().unwrap_or(DataType::Null);
        RowCodec::new(Arc::new(Schema::new(vec![Field::new("value", data_type, true)])))
    }

    /// The call's result from what is kept for it; `prefix` is the group's place in `values` for this call.
    pub fn result(&self, slot: &Slot, values: &SortedState<i64>, prefix: &[u8]) -> Result<Datum> {
        Ok(match slot {
            Slot::Count(count) => Datum::Exact(i128::from(*count)),
            Slot::Exact { count: 0, .. } | Slot::Float { count: 0, .. } => Datum::Null,
            Slot::Exact { sum, count } => match (self.plan.function, &self.output) {
                (AggregateFunction::Avg, DataType::Float32 | DataType::Float64) => Datum::Float(self.unscaled(*sum) / *count as f64),
                (_, DataType::Float32 | DataType::Float64) => Datum::Float(self.unscaled(*sum)),
                (AggregateFunction::Avg, _) => Datum::Exact(quotient(*sum, *count, self.digits())?),
                _ => Datum::Exact(rescale(*sum, self.digits())?),
            },
            Slot::Float { sum, count } if self.plan.function == AggregateFunction::Avg => Datum::Float(sum.value() / *count as f64),
            Slot::Float { sum, .. } => Datum::Float(sum.value()),
            Slot::Extreme(best) => best.as_ref().map_or(Datum::Null, |b| Datum::Encoded(b.clone())),
            Slot::Values => {
                let best = values.range(prefix).find(|(_, count)| **count > 0);
                best.map_or(Datum::Null, |(key, _)| Datum::Encoded(key[prefix.len()..].into()))
            }
        })
    }

    /// How many more digits after the point the output has than the argument.
    fn digits(&self) -> i32 {
        match self.output {
            DataType::Decimal128(_, scale) => i32::from(scale) - i32::from(self.scale),
            _ => -i32::from(self.scale),
        }
    }

    fn unscaled(&self, sum: i128) -> f64 {
        sum as f64 / 10f64.powi(i32::from(self.scale))
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..) | DataType::Float32 | DataType::Float64)
}

/// The error of a result that its type cannot hold.
pub fn out_of_range(data_type: &DataType) -> Error {
    let name = SqlType::of(&Field::new("", data_type.clone(), true)).name();
    match data_type {
        DataType::Decimal128(precision, scale) => Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
            .with_detail(format!("A result does not fit numeric({precision},{scale}).")),
        _ => Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range")),
    }
}

/// `value` with `digits` more digits after the point (if negative: fewer, rounded half away from zero).
fn rescale(value: i128, digits: i32) -> Result<i128> {
    match power(digits.unsigned_abs()) {
        Some(factor) if digits >= 0 => value.checked_mul(factor).ok_or_else(overflow),
        Some(factor) => Ok(divide(value, factor)),
        None => Err(overflow()),
    }
}

/// `sum / count` with `digits` more digits after the point, rounded half away from zero.
fn quotient(sum: i128, count: i64, digits: i32) -> Result<i128> {
    let count = i128::from(count);
    if digits < 0 {
        let factor = power(digits.unsigned_abs()).and_then(|f| f.checked_mul(count)).ok_or_else(overflow)?;
        return Ok(divide(sum, factor));
    }
    // Digit by digit: the remainder stays below the count, so nothing overflows before the result does.
    let (mut result, mut rest) = (sum / count, sum % count);
    for _ in 0..digits {
        rest *= 10;
        result = result.checked_mul(10).and_then(|r| r.checked_add(rest / count)).ok_or_else(overflow)?;
        rest %= count;
    }
    let away = if (sum < 0) == (count < 0) { 1 } else { -1 };
    Ok(if rest.abs() * 2 >= count.abs() { result + away } else { result })
}

fn divide(value: i128, by: i128) -> i128 {
    let (result, rest) = (value / by, (value % by).unsigned_abs());
    let away = if (value < 0) == (by < 0) { 1 } else { -1 };
    if rest >= by.unsigned_abs() - rest { result + away } else { result }
}

fn power(digits: u32) -> Option<i128> {
    10i128.checked_pow(digits)
}

fn overflow() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn means_round_half_away_from_zero() {
        assert_eq!(quotient(1, 3, 4).unwrap(), 3333);
        assert_eq!(quotient(2, 3, 4).unwrap(), 6667);
        assert_eq!(quotient(-2, 3, 4).unwrap(), -6667);
        assert_eq!(quotient(5, 2, 0).unwrap(), 3);
        assert_eq!(quotient(-5, 2, 0).unwrap(), -3);
        assert_eq!(quotient(-1, 3, 1).unwrap(), -3);
        assert_eq!(quotient(150, 2, -1).unwrap(), 8);
        assert!(quotient(i128::MAX, 1, 1).is_err());
        assert!(quotient(i128::MAX, i64::MAX, 10).is_ok());
    }

    #[test]
    fn rescaling() {
        assert_eq!(rescale(15, -1).unwrap(), 2);
        assert_eq!(rescale(-15, -1).unwrap(), -2);
        assert_eq!(rescale(14, -1).unwrap(), 1);
        assert_eq!(rescale(7, 2).unwrap(), 700);
    }
}
