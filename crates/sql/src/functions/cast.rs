//! Casts from and to text, as PostgreSQL reads and prints values.

use std::sync::Arc;

use crate::parse::Dialect;
use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow_schema::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility, lit};
use millpond_common::text::zone::Zone;
use millpond_common::text::{decode, encode};
use millpond_common::{Error, Result, SqlState, SqlType};
use sqlparser::parser::Parser;

use super::{Function, call, external, field, mismatch};

/// A text read as a type: `from_text(expr, 'type')`. Moments that name no zone are in the current one:
/// `from_text(expr, 'timestamp with time zone', 'zone')`.
pub(crate) fn from_text(expr: Expr, to: &SqlType) -> Expr {
    let zone = Some(Zone::current()).filter(|zone| !zone.is_utc() && *to == SqlType::TimestampTz);
    call(from_text_function(), [expr, lit(to.name())].into_iter().chain(zone.map(|zone| lit(zone.name()))).collect())
}

/// A value as text: `to_text(expr)`.
pub(crate) fn to_text(expr: Expr) -> Expr {
    call(to_text_function(), vec![expr])
}

/// A value whose Arrow type does not tell what it is: `typed(expr, 'type')`.
pub(crate) fn typed(expr: Expr, of: &SqlType) -> Expr {
    call(typed_function(), vec![expr, lit(of.name())])
}

/// The value that a quoted literal stands for.
pub(crate) fn literal(text: &str, of: &SqlType) -> Result<Expr> {
    let value = ScalarValue::try_from_array(&decode::parse(text, of)?, 0).map_err(crate::error::from_datafusion)?;
    let metadata = FieldMetadata::from(&of.field("literal", true));
    Ok(Expr::Literal(value, (!metadata.is_empty()).then_some(metadata)))
}

pub(super) fn from_text_function() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if matches!(types.len(), 2 | 3) { Ok(vec![DataType::Utf8; types.len()]) } else { Err(mismatch("from_text", types)) }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let to = SqlType::of(&args.return_field);
        let zone = match args.args.get(2) {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) => Zone::named(name).map_err(external)?,
            _ => Zone::UTC,
        };
        // A bare NULL may come after types were coerced.
        zone.during(|| map(args, |array| decode::from_text(arrow::compute::cast(array, &DataType::Utf8)?.as_string(), &to)))
    }
    Function::udf("from_text", Volatility::Immutable, coerce, named_type, invoke)
}

pub(super) fn to_text_function() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if types.len() == 1 { Ok(types.to_vec()) } else { Err(mismatch("to_text", types)) }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let of = args.arg_fields.first().map_or(SqlType::Text, |f| SqlType::of(f));
        map(args, |array| Ok(Arc::new(encode::to_text(array, &of)?)))
    }
    Function::udf("to_text", Volatility::Immutable, coerce, |_| Ok(field(SqlType::Text)), invoke)
}

pub(super) fn typed_function() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if types.len() == 2 { Ok(types.to_vec()) } else { Err(mismatch("typed", types)) }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let DataType::List(item) = args.return_field.data_type() else {
            return args.args.first().cloned().ok_or_else(|| mismatch("typed", &[]));
        };
        map(args, |array| {
            let list = array.as_list::<i32>();
            let list = ListArray::try_new(Arc::clone(item), list.offsets().clone(), Arc::clone(list.values()), list.nulls().cloned())?;
            Ok(Arc::new(list))
        })
    }
    Function::udf("typed", Volatility::Immutable, coerce, named_type, invoke)
}

/// The type that the second argument names.
fn named_type(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    let Some(Some(ScalarValue::Utf8(Some(name)))) = args.scalar_arguments.get(1) else {
        return Err(external(Error::internal("a cast without a type")));
    };
    let parsed = Parser::new(&Dialect).try_with_sql(name).and_then(|mut parser| parser.parse_data_type());
    let parsed = parsed.map_err(|e| external(Error::new(SqlState::DATA_CORRUPTED, format!("type {name}: {e}"))))?;
    Ok(field(crate::types::sql_type(&parsed).map_err(external)?))
}

/// Applies a function to the first argument; a constant stays one.
fn map(args: &ScalarFunctionArgs, f: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> DfResult<ColumnarValue> {
    match args.args.first() {
        Some(ColumnarValue::Scalar(value)) => {
            let result = f(&value.to_array()?).map_err(external)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
        }
        Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(f(array).map_err(external)?)),
        None => Err(mismatch("cast", &[])),
    }
}
