//! numeric arithmetic where DataFusion's result types would lose or overflow digits.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::datatypes::{Decimal128Type, i256};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use millpond_common::{Error, Result, SqlState};

use super::{Function, external, mismatch};

/// How many digits after the point a quotient has at least.
const QUOTIENT_SCALE: i8 = 16;

/// `numeric_divide(a, b)`: the quotient with 16 digits after the point or as many as the operands have,
/// rounded half away from zero.
pub fn numeric_divide() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        let decimal = |t: &DataType| match t {
            DataType::Decimal128(p, s) => Ok(DataType::Decimal128(*p, *s)),
            DataType::Null => Ok(DataType::Decimal128(38, 0)),
            t if t.is_integer() => Ok(DataType::Decimal128(20, 0)),
            _ => Err(mismatch("numeric_divide", types)),
        };
        match types {
            [a, b] => Ok(vec![decimal(a)?, decimal(b)?]),
            _ => Err(mismatch("numeric_divide", types)),
        }
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let scale = args.arg_fields.iter().map(|f| scale_of(f.data_type())).fold(QUOTIENT_SCALE, i8::max);
        Ok(Arc::new(Field::new("quotient", DataType::Decimal128(38, scale), true)))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b] = arrays.as_slice() else { return Err(mismatch("numeric_divide", &[])) };
        let scale = scale_of(args.return_field.data_type());
        let shift = i32::from(scale) + i32::from(scale_of(b.data_type())) - i32::from(scale_of(a.data_type()));
        let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
        let quotients = (0..a.len()).map(|i| match a.is_null(i) || b.is_null(i) {
            true => Ok(None),
            false => divide(a.value(i), b.value(i), shift).map(Some),
        });
        let values = quotients.collect::<Result<Vec<_>>>().map_err(external)?;
        let array = Decimal128Array::from(values).with_precision_and_scale(38, scale)?;
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) && array.len() == 1;
        Ok(match scalar {
            true => ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?),
            false => ColumnarValue::Array(Arc::new(array)),
        })
    }
    Function::udf("numeric_divide", Volatility::Immutable, coerce, returns, invoke)
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

fn divide(a: i128, b: i128, shift: i32) -> Result<i128> {
    if b == 0 {
        return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
    }
    let overflow =
        || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range").with_detail("A quotient has more than 38 digits.");
    let power = |n: i32| i256::from_i128(10).checked_pow(n as u32).ok_or_else(overflow);
    let (mut dividend, mut divisor) = (i256::from_i128(a), i256::from_i128(b));
    if shift >= 0 {
        dividend = dividend.checked_mul(power(shift)?).ok_or_else(overflow)?;
    } else {
        divisor = divisor.checked_mul(power(-shift)?).ok_or_else(overflow)?;
    }
    let quotient = dividend.checked_div(divisor).ok_or_else(overflow)?;
    let rest = dividend.checked_rem(divisor).ok_or_else(overflow)?;
    let twice = rest.checked_mul(i256::from_i128(2)).ok_or_else(overflow)?.checked_abs().ok_or_else(overflow)?;
    let away = twice >= divisor.checked_abs().ok_or_else(overflow)?;
    let step = if (a < 0) != (b < 0) { -1 } else { 1 };
    let rounded = if away { quotient.checked_add(i256::from_i128(step)).ok_or_else(overflow)? } else { quotient };
    rounded.to_i128().filter(|q| q.unsigned_abs() < 10u128.pow(38)).ok_or_else(overflow)
}

/// `mod(a, b)`: stands for the operator `%`, which replaces it before execution.
pub(super) fn modulo() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [a, b] if a.is_numeric() && b.is_numeric() => Ok(types.to_vec()),
            _ => Err(mismatch("mod", types)),
        }
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let first = args.arg_fields.first().map_or(DataType::Null, |f| f.data_type().clone());
        Ok(Arc::new(Field::new("mod", first, true)))
    }
    fn invoke(_: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(external(Error::internal("mod was not replaced by its operator")))
    }
    Function::udf("mod", Volatility::Immutable, coerce, returns, invoke)
}
