//! One column of values to be written, downcast once so that each is written without dispatch on `dyn Array`.

use std::sync::Arc;

use crate::text::zone::Zone;
use crate::types::NUMERIC_DEFAULT;
use crate::{Error, Result, SqlType};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

/// A column's values in the type they are written as.
#[allow(missing_docs)] // the variants are named like the types
pub enum Values {
    Boolean(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Oid(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal {
        values: Decimal128Array,
        scale: i8,
        trim: bool,
    },
    /// A decimal wider than 38 digits, as text.
    WideDecimal(StringArray),
    Text(StringArray),
    Jsonb(StringArray),
    Uuid(StringArray),
    Char(StringArray),
    Bytea(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp {
        values: TimestampMicrosecondArray,
        /// Of moments: where they are shown.
        zone: Option<Zone>,
    },
    Interval(IntervalMonthDayNanoArray),
    List {
        values: ListArray,
        item: Box<Column>,
    },
}

/// A column that can be written value by value, in text or binary form.
pub struct Column {
    /// Its values.
    pub values: Values,
    /// Its type.
    pub sql: SqlType,
    nulls: Option<arrow::buffer::NullBuffer>,
}

impl Column {
    /// Prepares an array for writing as `sql`. Arrow types that are not the type's own form are cast first.
    pub fn new(array: &ArrayRef, sql: &SqlType) -> Result<Column> {
        let nulls = array.logical_nulls();
        if let (SqlType::Numeric { .. }, DataType::Decimal256(..)) = (sql, array.data_type()) {
            let values = Values::WideDecimal(cast(array, &DataType::Utf8)?.as_string::<i32>().clone());
            return Ok(Column { values, sql: sql.clone(), nulls });
        }
        let array = normalize(array, sql)?;
        let values = match (sql, array.data_type()) {
            (_, DataType::Boolean) => Values::Boolean(array.as_boolean().clone()),
            (_, DataType::Int16) => Values::Int16(array.as_primitive().clone()),
            (_, DataType::Int32) => Values::Int32(array.as_primitive().clone()),
            (SqlType::Oid, DataType::Int64) => Values::Oid(array.as_primitive().clone()),
            (_, DataType::Int64) => Values::Int64(array.as_primitive().clone()),
            (_, DataType::Float32) => Values::Float32(array.as_primitive().clone()),
            (_, DataType::Float64) => Values::Float64(array.as_primitive().clone()),
            (_, DataType::Decimal128(precision, scale)) => {
                Values::Decimal { values: array.as_primitive().clone(), scale: *scale, trim: (*precision, *scale) == NUMERIC_DEFAULT }
            }
            (SqlType::Jsonb, DataType::Utf8) => Values::Jsonb(array.as_string().clone()),
            (SqlType::Uuid, DataType::Utf8) => Values::Uuid(array.as_string().clone()),
            (SqlType::Char, DataType::Utf8) => Values::Char(array.as_string().clone()),
            (_, DataType::Utf8) => Values::Text(array.as_string().clone()),
            (_, DataType::Binary) => Values::Bytea(array.as_binary().clone()),
            (_, DataType::Date32) => Values::Date(array.as_primitive().clone()),
            (_, DataType::Time64(TimeUnit::Microsecond)) => Values::Time(array.as_primitive().clone()),
            (_, DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
                let zone = zone.as_ref().map(|_| Zone::of(array.data_type()));
                Values::Timestamp { values: array.as_primitive().clone(), zone }
            }
            (_, DataType::Interval(IntervalUnit::MonthDayNano)) => Values::Interval(array.as_primitive().clone()),
            (SqlType::Array(item), DataType::List(_)) => {
                let values: ListArray = array.as_list().clone();
                let item = Box::new(Column::new(values.values(), item)?);
                Values::List { values, item }
            }
            (_, other) => return Err(Error::internal(format!("a column of type {other} cannot be sent as {}", sql.name()))),
        };
        Ok(Column { values, sql: sql.clone(), nulls })
    }

    /// Whether a row is NULL.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }
}

/// Casts an array to its SQL type's own Arrow form.
fn normalize(array: &ArrayRef, sql: &SqlType) -> Result<ArrayRef> {
    let target = sql.arrow();
    if *array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    // Lists differ in their field's name or metadata only, most of the time: what counts is the items' form.
    if let (SqlType::Array(item), DataType::List(field)) = (sql, array.data_type())
        && (Zone::UTC.shown(field.data_type()) == item.arrow() || matches!(item.as_ref(), SqlType::Array(_)))
    {
        return Ok(Arc::clone(array));
    }
    match (sql, array.data_type()) {
        // Any zone: the microseconds are UTC's.
        (SqlType::TimestampTz, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => Ok(Arc::clone(array)),
        (SqlType::Numeric { .. }, DataType::Decimal128(..)) => Ok(Arc::clone(array)),
        (_, DataType::Struct(_) | DataType::Map(..) | DataType::Union(..)) if target == DataType::Utf8 => display(array),
        _ => cast(array, &target),
    }
}

fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The text of types that SQL has no name for.
fn display(array: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let texts = (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()));
    Ok(Arc::new(texts.collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{
        DictionaryArray, DurationSecondArray, FixedSizeListArray, Int8Array, LargeBinaryArray, LargeStringArray, NullArray,
        StringViewArray, StructArray, Time32SecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
        UInt64Array,
    };
    use arrow::datatypes::{Decimal256Type, Int32Type, i256};
    use arrow_schema::Field;
    use bytes::BytesMut;

    /// Every row's text; `None` is NULL.
    fn texts(array: impl Array + 'static) -> Vec<Option<String>> {
        let array: ArrayRef = Arc::new(array);
        let sql = SqlType::of(&Field::new("c", array.data_type().clone(), true));
        let column = Column::new(&array, &sql).unwrap();
        let text = |row| {
            let mut text = BytesMut::new();
            column.put_text(row, &mut text);
            String::from_utf8(text.to_vec()).unwrap()
        };
        (0..array.len()).map(|row| (!column.is_null(row)).then(|| text(row))).collect()
    }

    fn some(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|t| Some((*t).to_string())).collect()
    }

    #[test]
    fn arrow_types_that_sql_does_not_name() {
        assert_eq!(
            texts(StringViewArray::from(vec!["a", "a text longer than twelve bytes"])),
            some(&["a", "a text longer than twelve bytes"])
        );
        assert_eq!(texts(LargeStringArray::from(vec![Some("a"), None])), [Some("a".to_string()), None]);
        assert_eq!(texts(LargeBinaryArray::from(vec![&b"\x01"[..]])), some(&["\\x01"]));
        assert_eq!(texts(UInt64Array::from(vec![7])), some(&["7"]));
        assert_eq!(texts(Int8Array::from(vec![-7])), some(&["-7"]));
        assert_eq!(texts(TimestampSecondArray::from(vec![0])), some(&["1970-01-01 00:00:00"]));
        assert_eq!(texts(TimestampMillisecondArray::from(vec![1]).with_timezone("Europe/Berlin")), some(&["1970-01-01 00:00:00.001+00"]));
        assert_eq!(texts(TimestampNanosecondArray::from(vec![1_000])), some(&["1970-01-01 00:00:00.000001"]));
        assert_eq!(texts(Time32SecondArray::from(vec![61])), some(&["00:01:01"]));
        assert_eq!(texts(DurationSecondArray::from(vec![61])), some(&["00:01:01"]));
        assert_eq!(texts(NullArray::new(2)), [None, None]);
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        assert_eq!(texts(dictionary), [Some("x".to_string()), None, Some("x".into())]);
        let wide = arrow::array::PrimitiveArray::<Decimal256Type>::from_iter_values([i256::from_i128(-1250)])
            .with_precision_and_scale(50, 2)
            .unwrap();
        assert_eq!(texts(wide), some(&["-12.50"]));
        let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])], 2);
        assert_eq!(texts(fixed), some(&["{1,NULL}"]));
        let of_views = ListArray::new(
            Arc::new(Field::new("element", DataType::Utf8View, true)),
            arrow::buffer::OffsetBuffer::from_lengths([2]),
            Arc::new(StringViewArray::from(vec!["a", "b c"])),
            None,
        );
        assert_eq!(texts(of_views), some(&["{a,\"b c\"}"]));
        let parts =
            StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![1])) as ArrayRef)]);
        assert_eq!(texts(parts), some(&["{a: 1}"]));
    }

    #[test]
    fn nested_and_sliced_lists() {
        let inner =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![Some(3), None]), Some(vec![])]);
        let field = Arc::new(Field::new("item", inner.data_type().clone(), true));
        let outer = ListArray::new(field, arrow::buffer::OffsetBuffer::from_lengths([0, 2]), Arc::new(inner.clone()), None);
        assert_eq!(texts(outer.clone()), some(&["{}", "{{1,2},{3,NULL}}"]));
        assert_eq!(texts(outer.slice(1, 1)), some(&["{{1,2},{3,NULL}}"]));
        assert_eq!(texts(inner.slice(1, 2)), some(&["{3,NULL}", "{}"]));
    }
}
