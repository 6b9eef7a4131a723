//! What JSON's operators and functions do. json and jsonb are texts; jsonb is in its normal form.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use millpond_common::text::json_path;
use millpond_common::{Error, SqlState, SqlType};

use super::{Function, external, field, mismatch};

/// The functions, by name; what is an operator in SQL has the name that it is stored under.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let udf = |name, coerce, returns, invoke| Function::udf(name, Volatility::Immutable, coerce, returns, invoke);
    vec![
        json_get(),
        json_get_text(),
        json_path(),
        json_path_text(),
        json_contains(),
        json_exists(),
        udf("json_extract_path", texts, same, |args| parts(args, along_arguments, whole)),
        udf("jsonb_extract_path", texts, same, |args| parts(args, along_arguments, whole)),
        udf("json_extract_path_text", texts, text, |args| parts(args, along_arguments, json_path::as_text)),
        udf("jsonb_extract_path_text", texts, text, |args| parts(args, along_arguments, json_path::as_text)),
        udf("json_typeof", texts, text, |args| parts(args, |json, _, _| Some(json), |json| Some(json_path::kind(json).into()))),
        udf("jsonb_typeof", texts, text, |args| parts(args, |json, _, _| Some(json), |json| Some(json_path::kind(json).into()))),
        udf("json_array_length", texts, |_| Ok(field(SqlType::Integer)), array_length),
        udf("jsonb_array_length", texts, |_| Ok(field(SqlType::Integer)), array_length),
    ]
}

/// `json -> key`
pub(crate) fn json_get() -> Arc<ScalarUDF> {
    Function::udf("json_get", Volatility::Immutable, key, same, |args| parts(args, at_key, whole))
}

/// `json ->> key`
pub(crate) fn json_get_text() -> Arc<ScalarUDF> {
    Function::udf("json_get_text", Volatility::Immutable, key, text, |args| parts(args, at_key, json_path::as_text))
}

/// `json #> path`
pub(crate) fn json_path() -> Arc<ScalarUDF> {
    Function::udf("json_path", Volatility::Immutable, path, same, |args| parts(args, along_array, whole))
}

/// `json #>> path`
pub(crate) fn json_path_text() -> Arc<ScalarUDF> {
    Function::udf("json_path_text", Volatility::Immutable, path, text, |args| parts(args, along_array, json_path::as_text))
}

/// `jsonb @> jsonb`
pub(crate) fn json_contains() -> Arc<ScalarUDF> {
    let boolean = |_: &ReturnFieldArgs<'_>| Ok(field(SqlType::Boolean));
    Function::udf("json_contains", Volatility::Immutable, texts, boolean, |args| predicate(args, json_path::contains))
}

/// `jsonb ? key`
pub(crate) fn json_exists() -> Arc<ScalarUDF> {
    fn exists(json: &str, key: &str) -> bool {
        let named = |json: &str| json_path::kind(json) == "string" && json_path::as_text(json).is_some_and(|text| text == key);
        json_path::member(json, key).is_some() || json_path::elements(json).any(named) || named(json)
    }
    let boolean = |_: &ReturnFieldArgs<'_>| Ok(field(SqlType::Boolean));
    Function::udf("json_exists", Volatility::Immutable, texts, boolean, |args| predicate(args, exists))
}

fn key(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [_, key] if key.is_integer() => Ok(vec![DataType::Utf8, DataType::Int64]),
        [_, _] => Ok(vec![DataType::Utf8; 2]),
        _ => Err(mismatch("json_get", types)),
    }
}

fn path(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [_, _] => Ok(vec![DataType::Utf8, SqlType::Array(Box::new(SqlType::Text)).arrow()]),
        _ => Err(mismatch("json_path", types)),
    }
}

fn texts(types: &[DataType]) -> DfResult<Vec<DataType>> {
    if types.is_empty() { Err(mismatch("json", types)) } else { Ok(vec![DataType::Utf8; types.len()]) }
}

fn text(_: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    Ok(field(SqlType::Text))
}

/// json gives json, anything else jsonb.
fn same(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    let of = args.arg_fields.first().map_or(SqlType::Jsonb, |f: &Arc<Field>| SqlType::of(f));
    Ok(field(if of == SqlType::Json { SqlType::Json } else { SqlType::Jsonb }))
}

fn whole(json: &str) -> Option<Cow<'_, str>> {
    Some(json.into())
}

fn at_key<'a>(json: &'a str, keys: &[ArrayRef], row: usize) -> Option<&'a str> {
    let key = keys.first().filter(|k| k.is_valid(row))?;
    match key.as_primitive_opt::<Int64Type>() {
        Some(places) => json_path::element(json, places.value(row)),
        None => json_path::member(json, key.as_string::<i32>().value(row)),
    }
}

fn along_array<'a>(json: &'a str, keys: &[ArrayRef], row: usize) -> Option<&'a str> {
    let path = keys.first().filter(|k| k.is_valid(row))?.as_list::<i32>().value(row);
    path.as_string::<i32>().iter().try_fold(json, |json, key| json_path::step(json, key?))
}

fn along_arguments<'a>(json: &'a str, keys: &[ArrayRef], row: usize) -> Option<&'a str> {
    keys.iter().try_fold(json, |json, key| json_path::step(json, key.is_valid(row).then(|| key.as_string::<i32>().value(row))?))
}

/// Finds a part of each JSON and shows it.
fn parts(
    args: &ScalarFunctionArgs,
    find: for<'a> fn(&'a str, &[ArrayRef], usize) -> Option<&'a str>,
    show: for<'a> fn(&'a str) -> Option<Cow<'a, str>>,
) -> DfResult<ColumnarValue> {
    let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
    let Some((json, keys)) = arrays.split_first() else { return Err(mismatch("json", &[])) };
    let found = json.as_string::<i32>().iter().enumerate().map(|(row, json)| find(json?, keys, row).and_then(show));
    Ok(ColumnarValue::Array(Arc::new(found.collect::<StringArray>())))
}

fn predicate(args: &ScalarFunctionArgs, holds: fn(&str, &str) -> bool) -> DfResult<ColumnarValue> {
    let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
    let [left, right] = arrays.as_slice() else { return Err(mismatch("jsonb", &[])) };
    let pairs = left.as_string::<i32>().iter().zip(right.as_string::<i32>());
    let held = pairs.map(|(left, right)| Some(holds(left?, right?)));
    Ok(ColumnarValue::Array(Arc::new(held.collect::<BooleanArray>())))
}

fn array_length(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
    let array = args.args.first().ok_or_else(|| mismatch("json_array_length", &[]))?.to_array(args.number_rows)?;
    let length = |json: &str| match json_path::kind(json) {
        "array" => Ok(json_path::elements(json).count() as i32),
        "object" => Err("cannot get array length of a non-array"),
        _ => Err("cannot get array length of a scalar"),
    };
    let lengths = array.as_string::<i32>().iter().map(|json| json.map(length).transpose()).collect::<Result<Int32Array, _>>();
    let lengths = lengths.map_err(|message| external(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)))?;
    Ok(ColumnarValue::Array(Arc::new(lengths)))
}
