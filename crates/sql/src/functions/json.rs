//! json and jsonb: text that is checked, and for jsonb brought into PostgreSQL's normal form.

use std::sync::Arc;

use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, Volatility};
use millpond_common::{Error, Result, SqlState, SqlType};
use serde_json::Value;

use super::text::{map_text, one_text};
use super::{Function, field};

/// `to_json_text(text)`: as written, or 22P02.
pub fn to_json() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        map_text(args, |text| parse(text, "json").map(|_| text.to_string()))
    }
    Function::udf("to_json_text", Volatility::Immutable, one_text, |_| Ok(field(SqlType::Json)), invoke)
}

/// `to_jsonb_text(text)`: in normal form, or 22P02.
pub fn to_jsonb() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        map_text(args, |text| {
            let mut out = String::with_capacity(text.len());
            write(&parse(text, "jsonb")?, &mut out);
            Ok(out)
        })
    }
    Function::udf("to_jsonb_text", Volatility::Immutable, one_text, |_| Ok(field(SqlType::Jsonb)), invoke)
}

fn parse(text: &str, name: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| {
        // PostgreSQL says "json" for both types.
        let _ = name;
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json").with_detail(e.to_string())
    })
}

/// Shorter keys first, equally long ones by their bytes; a blank after each colon and comma.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys = map.iter().collect::<Vec<_>>();
            keys.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
            out.push('{');
            for (i, (key, value)) in keys.into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
