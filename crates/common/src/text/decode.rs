//! PostgreSQL's text to Arrow columns.

use std::sync::Arc;

use crate::{Error, Result, SqlState, SqlType};
use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, StringArray, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field};

use super::{array, datetime, interval, json, number, scalar};

/// A column under construction in the type that its values have.
#[allow(missing_docs)] // the variants are named like the types
pub enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal { values: Decimal128Builder, precision: u8, scale: i8 },
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp { values: TimestampMicrosecondBuilder, with_zone: bool },
    Interval(IntervalMonthDayNanoBuilder),
    List { item: Box<ColumnBuilder>, offsets: Vec<i32>, valid: Vec<bool> },
}

/// Builds a column of a SQL type from text or binary values. After an error it must be thrown away.
pub struct ColumnBuilder {
    /// Its type.
    pub sql: SqlType,
    /// Its values.
    pub builder: Builder,
    length: usize,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(sql: &SqlType) -> Self {
        let builder = match sql {
            SqlType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            SqlType::SmallInt => Builder::Int16(Int16Builder::new()),
            SqlType::Integer => Builder::Int32(Int32Builder::new()),
            SqlType::BigInt | SqlType::Oid => Builder::Int64(Int64Builder::new()),
            SqlType::Real => Builder::Float32(Float32Builder::new()),
            SqlType::Double => Builder::Float64(Float64Builder::new()),
            SqlType::Numeric { precision, scale } => {
                let values = Decimal128Builder::new().with_data_type(sql.arrow());
                Builder::Decimal { values, precision: *precision, scale: *scale }
            }
            SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Uuid
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Name
            | SqlType::Char
            | SqlType::Unknown => Builder::Text(StringBuilder::new()),
            SqlType::Bytea => Builder::Bytea(BinaryBuilder::new()),
            SqlType::Date => Builder::Date(Date32Builder::new()),
            SqlType::Time => Builder::Time(Time64MicrosecondBuilder::new()),
            SqlType::Timestamp => Builder::Timestamp { values: TimestampMicrosecondBuilder::new(), with_zone: false },
            SqlType::TimestampTz => {
                let values = TimestampMicrosecondBuilder::new().with_data_type(sql.arrow());
                Builder::Timestamp { values, with_zone: true }
            }
            SqlType::Interval => Builder::Interval(IntervalMonthDayNanoBuilder::new()),
            SqlType::Array(item) => Builder::List { item: Box::new(ColumnBuilder::new(item)), offsets: vec![0], valid: vec![] },
        };
        ColumnBuilder { sql: sql.clone(), builder, length: 0 }
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Counts a value that binary decoding has appended.
    pub fn appended(&mut self) {
        self.length += 1;
    }

    /// Appends NULL.
    pub fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Boolean(b) => b.append_null(),
            Builder::Int16(b) => b.append_null(),
            Builder::Int32(b) => b.append_null(),
            Builder::Int64(b) => b.append_null(),
            Builder::Float32(b) => b.append_null(),
            Builder::Float64(b) => b.append_null(),
            Builder::Decimal { values, .. } => values.append_null(),
            Builder::Text(b) => b.append_null(),
            Builder::Bytea(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Time(b) => b.append_null(),
            Builder::Timestamp { values, .. } => values.append_null(),
            Builder::Interval(b) => b.append_null(),
            Builder::List { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.push(false);
            }
        }
        self.length += 1;
    }

    /// Appends a value from its text.
    pub fn append_text(&mut self, text: &str) -> Result<()> {
        match &mut self.builder {
            Builder::Boolean(b) => b.append_value(scalar::parse_boolean(text)?),
            Builder::Int16(b) => b.append_value(number::parse_integer(text, "smallint", i16::MIN.into(), i16::MAX.into())? as i16),
            Builder::Int32(b) => b.append_value(number::parse_integer(text, "integer", i32::MIN.into(), i32::MAX.into())? as i32),
            Builder::Int64(b) if self.sql == SqlType::Oid => b.append_value(number::parse_integer(text, "oid", 0, u32::MAX.into())?),
            Builder::Int64(b) => b.append_value(number::parse_integer(text, "bigint", i64::MIN, i64::MAX)?),
            Builder::Float32(b) => b.append_value(number::parse_f32(text)?),
            Builder::Float64(b) => b.append_value(number::parse_f64(text)?),
            Builder::Decimal { values, precision, scale } => values.append_value(number::parse_decimal(text, *precision, *scale)?),
            Builder::Text(b) => append_textual(b, &self.sql, text)?,
            Builder::Bytea(b) => b.append_value(scalar::parse_bytea(text)?),
            Builder::Date(b) => b.append_value(datetime::parse_date(text)?),
            Builder::Time(b) => b.append_value(datetime::parse_time(text)?),
            Builder::Timestamp { values, with_zone } => values.append_value(datetime::parse_timestamp(text, *with_zone)?),
            Builder::Interval(b) => b.append_value(interval::parse_interval(text)?),
            Builder::List { item, offsets, valid } => {
                for element in array::split(text)? {
                    match element {
                        Some(element) => item.append_text(&element)?,
                        None => item.append_null(),
                    }
                }
                offsets.push(offset(item.length)?);
                valid.push(true);
            }
        }
        self.length += 1;
        Ok(())
    }

    /// The column.
    pub fn finish(self) -> Result<ArrayRef> {
        Ok(match self.builder {
            Builder::Boolean(mut b) => Arc::new(b.finish()),
            Builder::Int16(mut b) => Arc::new(b.finish()),
            Builder::Int32(mut b) => Arc::new(b.finish()),
            Builder::Int64(mut b) => Arc::new(b.finish()),
            Builder::Float32(mut b) => Arc::new(b.finish()),
            Builder::Float64(mut b) => Arc::new(b.finish()),
            Builder::Decimal { mut values, .. } => Arc::new(values.finish()),
            Builder::Text(mut b) => Arc::new(b.finish()),
            Builder::Bytea(mut b) => Arc::new(b.finish()),
            Builder::Date(mut b) => Arc::new(b.finish()),
            Builder::Time(mut b) => Arc::new(b.finish()),
            Builder::Timestamp { mut values, .. } => Arc::new(values.finish()),
            Builder::Interval(mut b) => Arc::new(b.finish()),
            Builder::List { item, offsets, valid } => {
                let field = match self.sql.arrow() {
                    DataType::List(field) => field,
                    _ => Arc::new(Field::new("item", DataType::Null, true)),
                };
                let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
                Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), item.finish()?, nulls)?)
            }
        })
    }
}

/// Where a list ends among the items of its column.
pub fn offset(items: usize) -> Result<i32> {
    i32::try_from(items).map_err(|_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "array size exceeds the maximum allowed"))
}

/// Appends a value of one of the types that Arrow holds as text.
pub fn append_textual(builder: &mut StringBuilder, sql: &SqlType, text: &str) -> Result<()> {
    match sql {
        SqlType::Uuid => {
            let mut buffer = uuid::Uuid::encode_buffer();
            builder.append_value(scalar::parse_uuid(text)?.hyphenated().encode_lower(&mut buffer));
        }
        SqlType::Json => {
            json::validate(text)?;
            builder.append_value(text);
        }
        SqlType::Jsonb => builder.append_value(json::canonical(text)?),
        SqlType::Varchar(Some(length)) => {
            let length = *length as usize;
            let value = match text.char_indices().nth(length) {
                None => text,
                // Spaces beyond the length are cut off silently; anything else is an error.
                Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => &text[..end],
                Some(_) => {
                    let message = format!("value too long for type character varying({length})");
                    return Err(Error::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, message));
                }
            };
            builder.append_value(value);
        }
        // The types of catalogs cut their values silently: 63 bytes of a name, one character.
        SqlType::Name => builder.append_value(&text[..text.floor_char_boundary(63)]),
        SqlType::Char => builder.append_value(text.chars().next().map_or("", |c| &text[..c.len_utf8()])),
        _ => builder.append_value(text),
    }
    Ok(())
}

/// One value from its text, as an array of one row.
pub fn parse(text: &str, sql: &SqlType) -> Result<ArrayRef> {
    let mut builder = ColumnBuilder::new(sql);
    builder.append_text(text)?;
    builder.finish()
}

/// A column of text read as another type, as a cast from `text` does.
pub fn from_text(texts: &StringArray, sql: &SqlType) -> Result<ArrayRef> {
    let mut builder = ColumnBuilder::new(sql);
    for row in 0..texts.len() {
        if texts.is_null(row) {
            builder.append_null();
        } else {
            builder.append_text(texts.value(row))?;
        }
    }
    builder.finish()
}
