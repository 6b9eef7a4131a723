//! Types that are text with a rule: uuid and varchar(n).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow_schema::{DataType, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, Result, SqlState, SqlType};

use super::{Function, external, field, mismatch};

/// `to_uuid(text)`: the canonical form, or 22P02.
pub fn to_uuid() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        map_text(args, |text| {
            uuid::Uuid::parse_str(text.trim())
                .map(|u| u.to_string())
                .map_err(|_| Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type uuid: \"{text}\"")))
        })
    }
    Function::udf("to_uuid", Volatility::Immutable, one_text, |_| Ok(field(SqlType::Uuid)), invoke)
}

/// `to_bytea(text)`: `\x` and hexadecimal digits, or bytes with `\\` and `\ooo` for those that cannot stand as they are.
pub fn to_bytea() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let value = args.args.first().ok_or_else(|| mismatch("bytea", &[]))?;
        let array = value.to_array(args.number_rows)?;
        let decoded = array.as_string::<i32>().iter().map(|t| t.map(decode_bytea).transpose()).collect::<Result<Vec<_>>>();
        let decoded = decoded.map_err(external)?;
        let array = arrow::array::BinaryArray::from_iter(decoded.iter().map(|v| v.as_deref()));
        Ok(ColumnarValue::Array(Arc::new(array)))
    }
    Function::udf("to_bytea", Volatility::Immutable, one_text, |_| Ok(field(SqlType::Bytea)), invoke)
}

fn decode_bytea(text: &str) -> Result<Vec<u8>> {
    let invalid = || Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea");
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>();
        return digits
            .chunks(2)
            .map(|pair| {
                std::str::from_utf8(pair).ok().filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(invalid)
            })
            .collect();
    }
    let mut bytes = text.bytes().peekable();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
        } else if bytes.next_if_eq(&b'\\').is_some() {
            out.push(b'\\');
        } else {
            let mut value: u32 = 0;
            for _ in 0..3 {
                let digit = bytes.next().filter(|d| (b'0'..=b'7').contains(d)).ok_or_else(invalid)?;
                value = value * 8 + u32::from(digit - b'0');
            }
            out.push(u8::try_from(value).map_err(|_| invalid())?);
        }
    }
    Ok(out)
}

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
pub fn to_varchar() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let n = length(args);
        map_text(args, |text| Ok(text.chars().take(n).collect()))
    }
    Function::udf("to_varchar", Volatility::Immutable, text_and_length, varchar, invoke)
}

/// `assign_varchar(text, n)`: an assignment, which fails with 22001 unless only blanks are too many.
pub fn assign_varchar() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let n = length(args);
        map_text(args, |text| {
            if text.chars().skip(n).all(|c| c == ' ') {
                return Ok(text.chars().take(n).collect());
            }
            Err(Error::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, format!("value too long for type character varying({n})")))
        })
    }
    Function::udf("assign_varchar", Volatility::Immutable, text_and_length, varchar, invoke)
}

pub(super) fn one_text(types: &[DataType]) -> DfResult<Vec<DataType>> {
    if types.len() == 1 { Ok(vec![DataType::Utf8]) } else { Err(mismatch("cast", types)) }
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

fn length(args: &ScalarFunctionArgs) -> usize {
    match args.args.get(1) {
        Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    }
}

/// Applies a function to every text that is not NULL.
pub(super) fn map_text(args: &ScalarFunctionArgs, f: impl Fn(&str) -> Result<String>) -> DfResult<ColumnarValue> {
    match args.args.first() {
        Some(ColumnarValue::Scalar(scalar)) => {
            let text = match scalar {
                ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                    Some(f(text).map_err(external)?)
                }
                _ => None,
            };
            Ok(ColumnarValue::Scalar(ScalarValue::Utf8(text)))
        }
        Some(ColumnarValue::Array(array)) => {
            let array = arrow::compute::cast(array, &DataType::Utf8)?;
            let mapped = array.as_string::<i32>().iter().map(|t| t.map(&f).transpose()).collect::<Result<StringArray>>();
            Ok(ColumnarValue::Array(Arc::new(mapped.map_err(external)?) as ArrayRef))
        }
        None => Err(mismatch("cast", &[])),
    }
}
