//! Texts that are cut, and made up.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow_schema::{DataType, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::SqlType;

use super::{Function, field, mismatch};

/// `gen_random_uuid()`
pub(super) fn gen_random_uuid() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if types.is_empty() { Ok(Vec::new()) } else { Err(mismatch("gen_random_uuid", types)) }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let all = (0..args.number_rows).map(|_| Some(uuid::Uuid::new_v4().to_string()));
        Ok(ColumnarValue::Array(Arc::new(all.collect::<StringArray>())))
    }
    Function::udf("gen_random_uuid", Volatility::Volatile, coerce, |_| Ok(field(SqlType::Uuid)), invoke)
}

/// `to_varchar(text, n)`: an explicit cast, which cuts.
pub(crate) fn to_varchar() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let n = match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))) => usize::try_from(*n).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let array = args.args.first().ok_or_else(|| mismatch("varchar", &[]))?.to_array(args.number_rows)?;
        let cut = |text: &str| text.chars().take(n).collect::<String>();
        let texts = array.as_string::<i32>().iter().map(|text| text.map(cut)).collect::<StringArray>();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
    Function::udf("to_varchar", Volatility::Immutable, text_and_length, varchar, invoke)
}

fn text_and_length(types: &[DataType]) -> DfResult<Vec<DataType>> {
    if types.len() == 2 { Ok(vec![DataType::Utf8, DataType::Int64]) } else { Err(mismatch("varchar", types)) }
}

fn varchar(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    let length = match args.scalar_arguments.get(1) {
        Some(Some(ScalarValue::Int64(Some(n)))) => u32::try_from(*n).ok(),
        _ => None,
    };
    Ok(field(SqlType::Varchar(length)))
}
