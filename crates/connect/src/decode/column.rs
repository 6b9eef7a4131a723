//! A growing column. Arrow's builders cannot take a value back; a row whose last field is bad needs that.

use std::sync::Arc;

use arrow::array::types::IntervalMonthDayNano;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::Field;
use millpond_common::{Result, SqlType};

use super::{Bad, interval, json, number, text, time};

/// Values of one SQL type, of which the last can be removed again.
pub struct Column {
    sql_type: SqlType,
    rows: usize,
    /// Which of them are NULL, ascending.
    nulls: Vec<usize>,
    values: Values,
}

enum Values {
    Boolean(Vec<bool>),
    Small(Vec<i16>),
    Int(Vec<i32>),
    Big(Vec<i64>),
    Real(Vec<f32>),
    Double(Vec<f64>),
    Numeric(Vec<i128>),
    Interval(Vec<IntervalMonthDayNano>),
    Bytes { offsets: Vec<i32>, data: Vec<u8> },
    List { offsets: Vec<i32>, items: Box<Column> },
}

impl Column {
    /// An empty column of the field's type.
    pub fn new(field: &Field) -> Column {
        Column::of(SqlType::of(field))
    }

    fn of(sql_type: SqlType) -> Column {
        let values = match &sql_type {
            SqlType::Boolean => Values::Boolean(vec![]),
            SqlType::SmallInt => Values::Small(vec![]),
            SqlType::Integer | SqlType::Date => Values::Int(vec![]),
            SqlType::BigInt | SqlType::Oid | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => Values::Big(vec![]),
            SqlType::Real => Values::Real(vec![]),
            SqlType::Double => Values::Double(vec![]),
            SqlType::Numeric { .. } => Values::Numeric(vec![]),
            SqlType::Interval => Values::Interval(vec![]),
            SqlType::Array(item) => Values::List { offsets: vec![0], items: Box::new(Column::of(item.as_ref().clone())) },
            SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Bytea
            | SqlType::Uuid
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Name
            | SqlType::Char
            | SqlType::Unknown => Values::Bytes { offsets: vec![0], data: vec![] },
        };
        Column { sql_type, rows: 0, nulls: vec![], values }
    }

    /// The type of its values.
    pub fn sql_type(&self) -> &SqlType {
        &self.sql_type
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(v) => v.push(false),
            Values::Small(v) => v.push(0),
            Values::Int(v) => v.push(0),
            Values::Big(v) => v.push(0),
            Values::Real(v) => v.push(0.0),
            Values::Double(v) => v.push(0.0),
            Values::Numeric(v) => v.push(0),
            Values::Interval(v) => v.push(IntervalMonthDayNano::default()),
            Values::Bytes { offsets, data } => offsets.push(data.len() as i32),
            Values::List { offsets, items } => offsets.push(items.len() as i32),
        }
        self.nulls.push(self.rows);
        self.rows += 1;
    }

    /// Appends the value that the text means. When it means none, the column stays as it was.
    pub fn push_text(&mut self, text: &[u8]) -> Result<(), Bad> {
        match &mut self.values {
            Values::Boolean(v) => v.push(number::boolean(text)?),
            Values::Small(v) => v.push(number::integer(text, "smallint", i64::from(i16::MIN), i64::from(i16::MAX))? as i16),
            Values::Int(v) if self.sql_type == SqlType::Date => v.push(time::date(text)?),
            Values::Int(v) => v.push(number::integer(text, "integer", i64::from(i32::MIN), i64::from(i32::MAX))? as i32),
            Values::Big(v) => v.push(match &self.sql_type {
                SqlType::Timestamp => time::timestamp(text)?,
                SqlType::TimestampTz => time::timestamptz(text)?,
                SqlType::Time => time::time(text)?,
                SqlType::Oid => number::integer(text, "oid", 0, i64::from(u32::MAX))?,
                _ => number::integer(text, "bigint", i64::MIN, i64::MAX)?,
            }),
            Values::Real(v) => v.push(number::real(text)?),
            Values::Double(v) => v.push(number::double(text)?),
            Values::Numeric(v) => {
                let SqlType::Numeric { precision, scale } = &self.sql_type else { return Err(Bad::syntax("numeric", text)) };
                v.push(number::numeric(text, *precision, *scale)?);
            }
            Values::Interval(v) => v.push(interval::interval(text)?),
            Values::Bytes { offsets, data } => {
                match &self.sql_type {
                    SqlType::Varchar(Some(limit)) => data.extend_from_slice(text::varchar(text, *limit)?.as_bytes()),
                    SqlType::Uuid => data.extend_from_slice(&text::uuid(text)?),
                    SqlType::Json | SqlType::Jsonb => data.extend_from_slice(json::document(text, &self.sql_type)?),
                    SqlType::Bytea => text::bytea(text, data)?,
                    _ => data.extend_from_slice(text::utf8(text)?.as_bytes()),
                }
                offsets.push(data.len() as i32);
            }
            Values::List { offsets, items } => {
                let before = items.len();
                if let Err(bad) = array(text, items) {
                    items.truncate(before);
                    return Err(bad);
                }
                offsets.push(items.len() as i32);
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends an array of what `fill` pushes into the column of items. When it fails, the column stays as it was.
    pub fn push_list(&mut self, fill: impl FnOnce(&mut Column) -> Result<(), Bad>) -> Result<(), Bad> {
        let Values::List { offsets, items } = &mut self.values else {
            return Err(Bad::syntax(&self.sql_type.name(), b"an array"));
        };
        let before = items.len();
        if let Err(bad) = fill(items) {
            items.truncate(before);
            return Err(bad);
        }
        offsets.push(items.len() as i32);
        self.rows += 1;
        Ok(())
    }

    /// Removes the values from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        self.rows = len;
        self.nulls.truncate(self.nulls.partition_point(|null| *null < len));
        match &mut self.values {
            Values::Boolean(v) => v.truncate(len),
            Values::Small(v) => v.truncate(len),
            Values::Int(v) => v.truncate(len),
            Values::Big(v) => v.truncate(len),
            Values::Real(v) => v.truncate(len),
            Values::Double(v) => v.truncate(len),
            Values::Numeric(v) => v.truncate(len),
            Values::Interval(v) => v.truncate(len),
            Values::Bytes { offsets, data } => {
                data.truncate(offsets[len] as usize);
                offsets.truncate(len + 1);
            }
            Values::List { offsets, items } => {
                items.truncate(offsets[len] as usize);
                offsets.truncate(len + 1);
            }
        }
    }

    /// The values as an array; the column is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let rows = std::mem::take(&mut self.rows);
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = BooleanBufferBuilder::new(rows);
            valid.append_n(rows, true);
            self.nulls.drain(..).for_each(|null| valid.set_bit(null, false));
            NullBuffer::new(valid.finish())
        });
        Ok(match &mut self.values {
            Values::Boolean(v) => Arc::new(BooleanArray::new(fresh(v).into(), nulls)),
            Values::Small(v) => Arc::new(Int16Array::new(fresh(v).into(), nulls)),
            Values::Int(v) if self.sql_type == SqlType::Date => Arc::new(Date32Array::new(fresh(v).into(), nulls)),
            Values::Int(v) => Arc::new(Int32Array::new(fresh(v).into(), nulls)),
            Values::Big(v) => {
                let values: ScalarBuffer<i64> = fresh(v).into();
                match &self.sql_type {
                    SqlType::Timestamp => Arc::new(TimestampMicrosecondArray::new(values, nulls)),
                    SqlType::TimestampTz => Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC")),
                    SqlType::Time => Arc::new(Time64MicrosecondArray::new(values, nulls)),
                    _ => Arc::new(Int64Array::new(values, nulls)),
                }
            }
            Values::Real(v) => Arc::new(Float32Array::new(fresh(v).into(), nulls)),
            Values::Double(v) => Arc::new(Float64Array::new(fresh(v).into(), nulls)),
            Values::Numeric(v) => {
                let values = Decimal128Array::new(fresh(v).into(), nulls);
                match &self.sql_type {
                    SqlType::Numeric { precision, scale } => Arc::new(values.with_precision_and_scale(*precision, *scale)?),
                    _ => Arc::new(values),
                }
            }
            Values::Interval(v) => Arc::new(IntervalMonthDayNanoArray::new(fresh(v).into(), nulls)),
            Values::Bytes { offsets, data } => {
                let offsets = OffsetBuffer::new(fresh_offsets(offsets).into());
                let data = Buffer::from_vec(fresh(data));
                match self.sql_type {
                    SqlType::Bytea => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
                    _ => Arc::new(StringArray::try_new(offsets, data, nulls)?),
                }
            }
            Values::List { offsets, items } => {
                let field = Arc::new(items.sql_type.field("item", true));
                let offsets = OffsetBuffer::new(fresh_offsets(offsets).into());
                Arc::new(ListArray::try_new(field, offsets, items.finish()?, nulls)?)
            }
        })
    }
}

/// The values, leaving an empty vector that will not have to grow again.
fn fresh<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

fn fresh_offsets(offsets: &mut Vec<i32>) -> Vec<i32> {
    let full = fresh(offsets);
    offsets.push(0);
    full
}

/// PostgreSQL's text form of an array: `{1,NULL,"a \"b\""}`.
fn array(text: &[u8], items: &mut Column) -> Result<(), Bad> {
    let bad =
        || Bad::new(millpond_common::SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{}\"", super::shown(text)));
    let inner = text.trim_ascii().strip_prefix(b"{").and_then(|t| t.strip_suffix(b"}")).ok_or_else(bad)?;
    if inner.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut at = 0;
    loop {
        at += inner[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        let start = at;
        match inner.get(at) {
            Some(b'"') => {
                let mut value = vec![];
                at += 1;
                loop {
                    match inner.get(at) {
                        None => return Err(bad()),
                        Some(b'"') => break,
                        Some(b'\\') => {
                            value.push(*inner.get(at + 1).ok_or_else(bad)?);
                            at += 2;
                        }
                        Some(byte) => {
                            value.push(*byte);
                            at += 1;
                        }
                    }
                }
                at += 1;
                items.push_text(&value)?;
                at += inner[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
            }
            Some(b'{') => {
                at = nested_end(inner, at).ok_or_else(bad)?;
                items.push_text(&inner[start..at])?;
            }
            _ => {
                at += inner[at..].iter().take_while(|b| **b != b',').count();
                let value = inner[start..at].trim_ascii();
                if value.is_empty() || value.iter().any(|b| matches!(b, b'"' | b'{' | b'}' | b'\\')) {
                    return Err(bad());
                }
                if value.eq_ignore_ascii_case(b"null") { items.push_null() } else { items.push_text(value)? }
            }
        }
        match inner.get(at) {
            None => return Ok(()),
            Some(b',') => at += 1,
            Some(_) => return Err(bad()),
        }
    }
}

/// The end of the braces that begin at `at`.
fn nested_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    let mut quoted = false;
    loop {
        match text.get(at)? {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}
