//! Arrow columns to PostgreSQL's binary values.

use bytes::{BufMut, BytesMut};
use millpond_common::{Error, Result, SqlState};
use uuid::Uuid;

use super::{EPOCH_DAYS, EPOCH_US, numeric};
use crate::column::{Column, Values};
use crate::describe::oid;
use crate::text::number;

/// The longest text of a decimal: 39 digits, as many zeros as a negative scale has, sign and point.
const DECIMAL_BYTES_MAX: usize = 39 + 128 + 2;

/// Columns that can be written in binary form.
pub trait ToBinary {
    /// Appends the binary form of a row that is not NULL, without its length. Fails on what PostgreSQL's form cannot hold.
    fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<()>;
}

impl ToBinary for Column {
    fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match &self.values {
            Values::Boolean(v) => out.put_u8(u8::from(v.value(row))),
            Values::Int16(v) => out.put_i16(v.value(row)),
            Values::Int32(v) => out.put_i32(v.value(row)),
            Values::Int64(v) => out.put_i64(v.value(row)),
            Values::Oid(v) => out.put_u32(v.value(row) as u32),
            Values::Float32(v) => out.put_f32(v.value(row)),
            Values::Float64(v) => out.put_f64(v.value(row)),
            Values::Decimal { values, scale, trim } => {
                // Written as text at the place of the result, then moved aside and put into base 10000.
                let start = out.len();
                number::put_decimal(out, values.value(row), *scale, *trim);
                let mut text = [0; DECIMAL_BYTES_MAX];
                let text = text.get_mut(..out.len() - start).ok_or_else(|| Error::internal("a decimal is too long"))?;
                text.copy_from_slice(&out[start..]);
                out.truncate(start);
                numeric::put(out, text);
            }
            Values::WideDecimal(v) => numeric::put(out, v.value(row).as_bytes()),
            Values::Text(v) => out.put_slice(v.value(row).as_bytes()),
            Values::Jsonb(v) => {
                out.put_u8(1); // the version of jsonb's binary form
                out.put_slice(v.value(row).as_bytes());
            }
            Values::Uuid(v) => {
                let uuid = Uuid::try_parse(v.value(row)).map_err(|_| Error::internal("a stored uuid is no uuid"))?;
                out.put_slice(uuid.as_bytes());
            }
            Values::Char(v) => out.put_u8(v.value(row).bytes().next().unwrap_or(0)),
            Values::Bytea(v) => out.put_slice(v.value(row)),
            Values::Date(v) => out.put_i32(v.value(row).checked_sub(EPOCH_DAYS).ok_or_else(|| out_of_range("date"))?),
            Values::Time(v) => out.put_i64(v.value(row)),
            Values::Timestamp { values, .. } => {
                out.put_i64(values.value(row).checked_sub(EPOCH_US).ok_or_else(|| out_of_range("timestamp"))?);
            }
            Values::Interval(v) => {
                let value = v.value(row);
                out.put_i64(value.nanoseconds / 1000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Values::List { .. } => put_array(self, row, out)?,
        }
        Ok(())
    }
}

/// Appends an array: dimensions, whether it has NULLs, its item type, then the items of all dimensions in order.
fn put_array(column: &Column, row: usize, out: &mut BytesMut) -> Result<()> {
    let mut dimensions = Vec::new();
    let mut leaves = Vec::new();
    let leaf = collect(column, row, 0, &mut dimensions, &mut leaves)?;
    let empty = leaves.is_empty();
    out.put_i32(if empty { 0 } else { dimensions.len() as i32 });
    out.put_i32(i32::from(leaves.iter().any(|i| leaf.is_null(*i))));
    out.put_u32(oid(&leaf.sql));
    if empty {
        return Ok(());
    }
    for length in &dimensions {
        out.put_i32(*length as i32);
        out.put_i32(1);
    }
    for i in leaves {
        put_value(leaf, i, true, out)?;
    }
    Ok(())
}

/// Collects the innermost items of a nested list and checks that it is rectangular. Gives the innermost column.
fn collect<'a>(column: &'a Column, row: usize, depth: usize, dimensions: &mut Vec<usize>, leaves: &mut Vec<usize>) -> Result<&'a Column> {
    let Values::List { values, item } = &column.values else {
        return Err(Error::internal("an array column without items"));
    };
    let offsets = values.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    match dimensions.get(depth) {
        Some(length) if *length != range.len() => return Err(ragged()),
        Some(_) => {}
        None => dimensions.push(range.len()),
    }
    if !matches!(item.values, Values::List { .. }) {
        leaves.extend(range);
        return Ok(item);
    }
    let mut leaf = innermost(item);
    for i in range {
        if item.is_null(i) {
            return Err(ragged());
        }
        leaf = collect(item, i, depth + 1, dimensions, leaves)?;
    }
    Ok(leaf)
}

fn innermost(column: &Column) -> &Column {
    match &column.values {
        Values::List { item, .. } => innermost(item),
        _ => column,
    }
}

fn ragged() -> Error {
    Error::new(SqlState("2202E"), "multidimensional arrays must have array expressions with matching dimensions")
        .with_hint("Read it in text format, or flatten it with unnest.")
}

fn out_of_range(type_name: &str) -> Error {
    Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{type_name} out of range"))
}

/// Appends a value of a row with its length before it, as DataRow and array items have it.
pub(crate) fn put_value(column: &Column, row: usize, binary: bool, out: &mut BytesMut) -> Result<()> {
    if column.is_null(row) {
        out.put_i32(-1);
        return Ok(());
    }
    let start = out.len();
    out.put_i32(0);
    if binary {
        column.put_binary(row, out)?;
    } else {
        column.put_text(row, out);
    }
    let length = i32::try_from(out.len() - start - 4)
        .map_err(|_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a value is too large for the protocol"))?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;
    use arrow_schema::Field;
    use millpond_common::SqlType;
    use std::sync::Arc;

    #[test]
    fn what_is_not_rectangular_has_no_binary_form() {
        let inner = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![Some(3)])]);
        let field = Arc::new(Field::new("item", arrow::array::Array::data_type(&inner).clone(), true));
        let ragged: ArrayRef = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(inner), None));
        let column = Column::new(&ragged, &SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Integer))))).unwrap();
        assert_eq!(column.put_binary(0, &mut BytesMut::new()).unwrap_err().state().0, "2202E");
    }
}
