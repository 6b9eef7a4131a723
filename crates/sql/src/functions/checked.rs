//! Integer arithmetic that fails with 22003 where DataFusion's wraps around.

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow_schema::{ArrowError, DataType, Field};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, SqlState};

use super::{Function, call, external, mismatch};

/// `left op right` for integers of one type, checked; `None` for other operators.
pub fn checked(left: Expr, op: Operator, right: Expr) -> Option<Expr> {
    let function = match op {
        Operator::Plus => checked_add(),
        Operator::Minus => checked_subtract(),
        Operator::Multiply => checked_multiply(),
        _ => return None,
    };
    Some(call(function, vec![left, right]))
}

pub(super) fn checked_add() -> Arc<ScalarUDF> {
    function("checked_add", |args| compute(args, add))
}

pub(super) fn checked_subtract() -> Arc<ScalarUDF> {
    function("checked_subtract", |args| compute(args, sub))
}

pub(super) fn checked_multiply() -> Arc<ScalarUDF> {
    function("checked_multiply", |args| compute(args, mul))
}

fn function(name: &'static str, invoke: super::Invoke) -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [a, b] if a == b && a.is_integer() => Ok(types.to_vec()),
            _ => Err(mismatch("checked arithmetic", types)),
        }
    }
    let returns = |args: &datafusion::logical_expr::ReturnFieldArgs<'_>| {
        let of = args.arg_fields.first().map_or(DataType::Int64, |f| f.data_type().clone());
        Ok(Arc::new(Field::new("value", of, true)))
    };
    Function::udf(name, Volatility::Immutable, coerce, returns, invoke)
}

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>;

fn compute(args: &ScalarFunctionArgs, kernel: Kernel) -> DfResult<ColumnarValue> {
    let run = |left: &dyn Datum, right: &dyn Datum| {
        kernel(left, right).map_err(|e| match e {
            ArrowError::ArithmeticOverflow(_) | ArrowError::ComputeError(_) => {
                let name = crate::types::postgres_name(left.get().0.data_type());
                external(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range")))
            }
            other => other.into(),
        })
    };
    match args.args.as_slice() {
        [ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)] => {
            let result = run(&left.to_scalar()?, &right.to_scalar()?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
        }
        [ColumnarValue::Array(left), ColumnarValue::Scalar(right)] => Ok(ColumnarValue::Array(run(left, &right.to_scalar()?)?)),
        [ColumnarValue::Scalar(left), ColumnarValue::Array(right)] => Ok(ColumnarValue::Array(run(&left.to_scalar()?, right)?)),
        [ColumnarValue::Array(left), ColumnarValue::Array(right)] => Ok(ColumnarValue::Array(run(left, right)?)),
        _ => Err(DataFusionError::Internal("checked arithmetic has two arguments".into())),
    }
}
