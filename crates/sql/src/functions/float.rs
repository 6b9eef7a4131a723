//! Floating-point arithmetic with PostgreSQL's errors and rounding.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{Float32Type, Float64Type};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, SqlState};

use super::{Function, mismatch};

fn same_type(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    let of = args.arg_fields.first().map_or(DataType::Float64, |f| f.data_type().clone());
    Ok(Arc::new(Field::new("value", of, true)))
}

/// `float_divide(a, b)`: fails with 22012 where b is zero.
pub(crate) fn float_divide() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::Float32, DataType::Float32] => Ok(types.to_vec()),
            [_, _] => Ok(vec![DataType::Float64; 2]),
            _ => Err(mismatch("float_divide", types)),
        }
    }
    fn divide<T: ArrowPrimitiveType>(a: &ArrayRef, b: &ArrayRef) -> Result<ArrayRef, ArrowError>
    where
        T::Native: Into<f64> + std::ops::Div<Output = T::Native>,
    {
        let quotients: PrimitiveArray<T> = try_binary(a.as_primitive::<T>(), b.as_primitive::<T>(), |a, b| {
            let (quotient, dividend, divisor): (f64, f64, f64) = ((a / b).into(), a.into(), b.into());
            if divisor == 0.0 && !dividend.is_nan() {
                return Err(ArrowError::DivideByZero);
            }
            if quotient.is_infinite() && dividend.is_finite() {
                return Err(out_of_range("overflow"));
            }
            if quotient == 0.0 && dividend != 0.0 && divisor.is_finite() {
                return Err(out_of_range("underflow"));
            }
            Ok(a / b)
        })?;
        Ok(Arc::new(quotients))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b] = arrays.as_slice() else { return Err(mismatch("float_divide", &[])) };
        let quotients = match a.data_type() {
            DataType::Float32 => divide::<Float32Type>(a, b)?,
            _ => divide::<Float64Type>(a, b)?,
        };
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&quotients, 0)?),
            false => ColumnarValue::Array(quotients),
        })
    }
    Function::udf("float_divide", Volatility::Immutable, coerce, same_type, invoke)
}

fn out_of_range(what: &str) -> ArrowError {
    let error = Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {what}"));
    ArrowError::ExternalError(Box::new(error))
}

/// `round_even(a)`: the nearest whole number, of two the even one.
pub(crate) fn round_even() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::Float32] => Ok(types.to_vec()),
            [_] => Ok(vec![DataType::Float64]),
            _ => Err(mismatch("round_even", types)),
        }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rounded = |array: &ArrayRef| -> ArrayRef {
            match array.data_type() {
                DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even)),
                _ => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)),
            }
        };
        match args.args.first() {
            Some(ColumnarValue::Scalar(value)) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded(&value.to_array()?), 0)?)),
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(rounded(array))),
            None => Err(mismatch("round_even", &[])),
        }
    }
    Function::udf("round_even", Volatility::Immutable, coerce, same_type, invoke)
}
