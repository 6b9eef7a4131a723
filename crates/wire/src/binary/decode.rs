//! PostgreSQL's binary values to Arrow columns.

use arrow::datatypes::IntervalMonthDayNano;
use millpond_common::{Error, Result, SqlState, SqlType};
use uuid::Uuid;

use super::{EPOCH_DAYS, EPOCH_US, numeric};
use crate::describe::oid;
use crate::text::datetime::DAY_US;
use crate::text::decode::{Builder, ColumnBuilder, append_textual, offset};
use crate::text::{number, utf8};

/// The most dimensions that PostgreSQL's arrays have.
const DIMENSIONS_MAX: usize = 6;

/// Columns that can be built from binary values.
pub trait FromBinary {
    /// Appends a value from its binary form.
    fn append_binary(&mut self, bytes: &[u8]) -> Result<()>;
}

impl FromBinary for ColumnBuilder {
    fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.builder {
            Builder::Boolean(b) => b.append_value(fixed::<1>(bytes)?[0] != 0),
            Builder::Int16(b) => b.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Builder::Int32(b) => b.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Builder::Int64(b) if self.sql == SqlType::Oid => b.append_value(i64::from(u32::from_be_bytes(fixed(bytes)?))),
            Builder::Int64(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Builder::Float32(b) => b.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Builder::Float64(b) => b.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Builder::Decimal { values, precision, scale } => {
                values.append_value(number::parse_decimal(&numeric::to_text(bytes)?, *precision, *scale)?);
            }
            Builder::Text(b) => match self.sql {
                SqlType::Uuid => {
                    let mut buffer = Uuid::encode_buffer();
                    b.append_value(Uuid::from_bytes(fixed(bytes)?).hyphenated().encode_lower(&mut buffer));
                }
                SqlType::Jsonb => match bytes {
                    [1, text @ ..] => append_textual(b, &self.sql, utf8(text)?)?,
                    _ => return Err(Error::new(SqlState::INVALID_BINARY_REPRESENTATION, "unsupported jsonb version number")),
                },
                SqlType::Char => match fixed::<1>(bytes)? {
                    [0] => b.append_value(""),
                    byte => append_textual(b, &self.sql, utf8(&byte)?)?,
                },
                _ => append_textual(b, &self.sql, utf8(bytes)?)?,
            },
            Builder::Bytea(b) => b.append_value(bytes),
            Builder::Date(b) => {
                let days = i32::from_be_bytes(fixed(bytes)?);
                b.append_value(finite(days == i32::MAX || days == i32::MIN, days.checked_add(EPOCH_DAYS), "date")?);
            }
            Builder::Time(b) => {
                let time = i64::from_be_bytes(fixed(bytes)?);
                b.append_value(finite(false, (0..=DAY_US).contains(&time).then_some(time), "time")?);
            }
            Builder::Timestamp { values, .. } => {
                let time = i64::from_be_bytes(fixed(bytes)?);
                values.append_value(finite(time == i64::MAX || time == i64::MIN, time.checked_add(EPOCH_US), "timestamp")?);
            }
            Builder::Interval(b) => {
                let bytes: [u8; 16] = fixed(bytes)?;
                let [m0, m1, m2, m3, m4, m5, m6, m7, d0, d1, d2, d3, o0, o1, o2, o3] = bytes;
                let nanoseconds = i64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]).checked_mul(1000);
                let days = i32::from_be_bytes([d0, d1, d2, d3]);
                let months = i32::from_be_bytes([o0, o1, o2, o3]);
                b.append_value(IntervalMonthDayNano::new(months, days, finite(false, nanoseconds, "interval")?));
            }
            Builder::List { .. } => {
                let mut items = Items { rest: bytes };
                let dimensions = items.header(&self.sql)?;
                append_items(self, &dimensions, &mut items)?;
                return if items.rest.is_empty() { Ok(()) } else { Err(malformed()) };
            }
        }
        self.appended();
        Ok(())
    }
}

/// Appends one list of the outermost dimension, with the lists inside it.
fn append_items(column: &mut ColumnBuilder, dimensions: &[usize], items: &mut Items<'_>) -> Result<()> {
    let Builder::List { item, offsets, valid } = &mut column.builder else {
        return Err(malformed());
    };
    if let Some((length, inner)) = dimensions.split_first() {
        for _ in 0..*length {
            if !inner.is_empty() {
                append_items(item, inner, items)?;
                continue;
            }
            match items.item()? {
                Some(bytes) => item.append_binary(bytes)?,
                None => item.append_null(),
            }
        }
    }
    offsets.push(offset(item.len())?);
    valid.push(true);
    column.appended();
    Ok(())
}

/// What is left of a binary array.
struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    fn i32(&mut self) -> Result<i32> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        self.rest = tail;
        Ok(i32::from_be_bytes(*head))
    }

    /// Reads the header; gives the length of each dimension, none for an empty array.
    fn header(&mut self, sql: &SqlType) -> Result<Vec<usize>> {
        let count = usize::try_from(self.i32()?).map_err(|_| malformed())?;
        let _has_nulls = self.i32()?;
        let found = self.i32()? as u32;
        let (mut depth, mut leaf) = (0, sql);
        while let SqlType::Array(item) = leaf {
            (depth, leaf) = (depth + 1, item.as_ref());
        }
        if found != oid(leaf) && !(is_textual(leaf) && [25, 1042, 1043].contains(&found)) {
            let message = format!("binary data has array element type {found} instead of expected {} ({})", oid(leaf), leaf.name());
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, message));
        }
        if count > DIMENSIONS_MAX {
            return Err(Error::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("number of array dimensions ({count}) exceeds the maximum allowed (6)"),
            ));
        }
        if count != 0 && count != depth {
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, format!("array has {count} dimensions, but {} has {depth}", sql.name())));
        }
        let mut dimensions = Vec::with_capacity(count);
        let mut total = 1usize;
        for _ in 0..count {
            let length = usize::try_from(self.i32()?).map_err(|_| malformed())?;
            let _lower_bound = self.i32()?;
            total = total.checked_mul(length.max(1)).ok_or_else(malformed)?;
            dimensions.push(length);
        }
        // Each item takes at least its length word, so a small message cannot ask for a huge array.
        if dimensions.contains(&0) {
            dimensions.clear();
        } else if count != 0 && total > self.rest.len() / 4 {
            return Err(malformed());
        }
        Ok(dimensions)
    }

    fn item(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| malformed())?;
        let (item, rest) = self.rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(Some(item))
    }
}

fn is_textual(sql: &SqlType) -> bool {
    matches!(sql, SqlType::Text | SqlType::Varchar(_) | SqlType::Unknown)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| malformed())
}

fn malformed() -> Error {
    Error::new(SqlState::INVALID_BINARY_REPRESENTATION, "incorrect binary data format")
}

fn finite<T>(infinite: bool, value: Option<T>, type_name: &str) -> Result<T> {
    match value {
        Some(value) if !infinite => Ok(value),
        _ if infinite => {
            Err(Error::unsupported(format!("infinite values of type {type_name} are not supported"), "Use NULL or a far date."))
        }
        _ => Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{type_name} out of range"))),
    }
}
