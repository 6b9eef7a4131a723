//! `pg_sleep`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Waits so many seconds, once for each row; a cancelled query stops waiting.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Sleep {
    signature: Signature,
}

/// The function.
pub fn function() -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(Sleep { signature: Signature::exact(vec![DataType::Float64], Volatility::Volatile) })).into_scalar_udf()
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("pg_sleep cannot be used here")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let seconds = match args.args.first() {
            Some(argument) => argument.clone().into_array(rows)?,
            None => Arc::new(Float64Array::new_null(rows)),
        };
        let seconds = seconds.as_primitive::<Float64Type>();
        let mut out: Vec<Option<&str>> = Vec::with_capacity(rows);
        for i in 0..rows {
            if seconds.is_valid(i) && seconds.value(i) > 0.0 {
                // A hundred years is as good as for ever.
                tokio::time::sleep(Duration::from_secs_f64(seconds.value(i).min(3.2e9))).await;
            }
            out.push(seconds.is_valid(i).then_some(""));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(out))))
    }
}
