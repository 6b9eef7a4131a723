//! Arrow columns to PostgreSQL's text.

use crate::{Error, Result, SqlType};
use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use bytes::{BufMut, BytesMut};

use super::{array, datetime, interval, number, scalar};
use crate::column::{Column, Values};

impl Column {
    /// Appends the text of a row that is not NULL.
    pub fn put_text(&self, row: usize, out: &mut BytesMut) {
        match &self.values {
            Values::Boolean(v) => out.put_u8(if v.value(row) { b't' } else { b'f' }),
            Values::Int16(v) => number::put_integer(out, i64::from(v.value(row))),
            Values::Int32(v) => number::put_integer(out, i64::from(v.value(row))),
            Values::Int64(v) | Values::Oid(v) => number::put_integer(out, v.value(row)),
            Values::Float32(v) => number::put_f32(out, v.value(row)),
            Values::Float64(v) => number::put_f64(out, v.value(row)),
            Values::Decimal { values, scale, trim } => number::put_decimal(out, values.value(row), *scale, *trim),
            Values::WideDecimal(v) | Values::Text(v) | Values::Jsonb(v) | Values::Uuid(v) | Values::Char(v) => {
                out.put_slice(v.value(row).as_bytes());
            }
            Values::Bytea(v) => scalar::put_bytea(out, v.value(row)),
            Values::Date(v) => datetime::put_date(out, v.value(row)),
            Values::Time(v) => datetime::put_time(out, v.value(row)),
            Values::Timestamp { values, zone } => datetime::put_timestamp(out, values.value(row), *zone),
            Values::Interval(v) => interval::put_interval(out, v.value(row)),
            Values::List { values, item } => {
                let offsets = values.value_offsets();
                put_list(out, item, offsets[row] as usize..offsets[row + 1] as usize);
            }
        }
    }
}

impl Column {
    /// The text of a row; `None` is NULL.
    pub fn text(&self, row: usize) -> Option<String> {
        let mut out = BytesMut::new();
        (!self.is_null(row)).then(|| self.put_text(row, &mut out))?;
        Some(String::from_utf8_lossy(&out).into_owned())
    }
}

fn put_list(out: &mut BytesMut, item: &Column, range: std::ops::Range<usize>) {
    let nested = matches!(item.values, Values::List { .. });
    out.put_u8(b'{');
    let first = range.start;
    for i in range {
        if i > first {
            out.put_u8(b',');
        }
        if item.is_null(i) {
            out.put_slice(b"NULL");
            continue;
        }
        let start = out.len();
        item.put_text(i, out);
        if !nested {
            array::quote_from(out, start);
        }
    }
    out.put_u8(b'}');
}

/// A column of any type as text, as a cast to `text` prints it.
pub fn to_text(values: &ArrayRef, sql: &SqlType) -> Result<StringArray> {
    let column = Column::new(values, sql)?;
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 8);
    let mut buffer = BytesMut::new();
    for row in 0..values.len() {
        if column.is_null(row) {
            builder.append_null();
            continue;
        }
        buffer.clear();
        // A cast of boolean to text gives whole words, unlike its output form.
        if let Values::Boolean(v) = &column.values {
            builder.append_value(if v.value(row) { "true" } else { "false" });
            continue;
        }
        column.put_text(row, &mut buffer);
        builder.append_value(std::str::from_utf8(&buffer).map_err(|e| Error::internal(e.to_string()))?);
    }
    Ok(builder.finish())
}
