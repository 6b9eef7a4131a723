//! Floating-point arithmetic with PostgreSQL's errors and rounding.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
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

/// `float_order(a)`: an integer for each number, in the same order as PostgreSQL's: NaN is the largest.
pub fn float_order() -> Arc<ScalarUDF> {
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let single = args.arg_fields.first().is_some_and(|f| f.data_type() == &DataType::Float32);
        Ok(Arc::new(Field::new("order", if single { DataType::Int32 } else { DataType::Int64 }, true)))
    }
    fn order(array: &ArrayRef) -> ArrayRef {
        match array.data_type() {
            DataType::Float32 => {
                let order = |v: f32| total(i64::from(if v.is_nan() { f32::NAN } else { v }.to_bits() as i32), 31) as i32;
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Int32Type>(order))
            }
            _ => {
                let order = |v: f64| total(if v.is_nan() { f64::NAN } else { v }.to_bits() as i64, 63);
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Int64Type>(order))
            }
        }
    }
    Function::udf("float_order", Volatility::Immutable, |types| Ok(types.to_vec()), returns, |args| each(args, order))
}

/// `order_float(i)`: the number of which [`float_order`] made that integer.
pub fn order_float() -> Arc<ScalarUDF> {
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let single = args.arg_fields.first().is_some_and(|f| f.data_type() == &DataType::Int32);
        Ok(Arc::new(Field::new("value", if single { DataType::Float32 } else { DataType::Float64 }, true)))
    }
    fn value(array: &ArrayRef) -> ArrayRef {
        match array.data_type() {
            DataType::Int32 => {
                let value = |v: i32| f32::from_bits(total(i64::from(v), 31) as u32);
                Arc::new(array.as_primitive::<Int32Type>().unary::<_, Float32Type>(value))
            }
            _ => Arc::new(array.as_primitive::<Int64Type>().unary::<_, Float64Type>(|v| f64::from_bits(total(v, 63) as u64))),
        }
    }
    Function::udf("order_float", Volatility::Immutable, |types| Ok(types.to_vec()), returns, |args| each(args, value))
}

/// Negative numbers, whose bits grow as they get smaller, with these bits inverted, but for the sign: its own inverse.
fn total(bits: i64, sign: u32) -> i64 {
    if bits < 0 { bits ^ ((1 << sign) - 1) } else { bits }
}

fn each(args: &ScalarFunctionArgs, f: impl Fn(&ArrayRef) -> ArrayRef) -> DfResult<ColumnarValue> {
    match args.args.as_slice() {
        [ColumnarValue::Scalar(value)] => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&f(&value.to_array()?), 0)?)),
        [ColumnarValue::Array(array)] => Ok(ColumnarValue::Array(f(array))),
        _ => Err(mismatch("each", &[])),
    }
}
