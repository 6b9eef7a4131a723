//! Groups' rows on their way out: results of one group at a time in, columns out.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, Decimal128Array, Float32Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_schema::{DataType, SchemaRef};
use millpond_common::{Delta, Error, Result};

use super::super::keys::KeyCodec;
use super::super::output::{BATCH_ROWS_MAX, diffs, record_batch};
use super::call::{Call, Datum, out_of_range};

/// Collects output rows and makes batches of them.
pub struct Results<'a> {
    codec: &'a KeyCodec,
    calls: &'a [Call],
    schema: &'a SchemaRef,
    keys: Vec<u8>,
    ends: Vec<usize>,
    /// By call.
    columns: Vec<Vec<Datum>>,
    weights: Vec<i64>,
}

impl<'a> Results<'a> {
    /// Nothing collected yet.
    pub fn new(codec: &'a KeyCodec, calls: &'a [Call], schema: &'a SchemaRef) -> Self {
        let columns = calls.iter().map(|_| Vec::new()).collect();
        Results { codec, calls, schema, keys: Vec::new(), ends: Vec::new(), columns, weights: Vec::new() }
    }

    /// Takes a group's row; `row` is empty afterwards.
    pub fn push(&mut self, key: &[u8], row: &mut Vec<Datum>, weight: i64) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.weights.push(weight);
        self.columns.iter_mut().zip(row.drain(..)).for_each(|(column, datum)| column.push(datum));
    }

    /// Emits a batch if there is enough for one.
    pub fn flush_if_full(&mut self, out: &mut Vec<Delta>) -> Result<()> {
        if self.weights.len() >= BATCH_ROWS_MAX { self.flush(out) } else { Ok(()) }
    }

    /// Emits what is collected.
    pub fn flush(&mut self, out: &mut Vec<Delta>) -> Result<()> {
        let rows = self.weights.len();
        if rows == 0 {
            return Ok(());
        }
        let start = |i: usize| if i == 0 { 0 } else { self.ends[i - 1] };
        let mut columns = self.codec.decode((0..rows).map(|i| &self.keys[start(i)..self.ends[i]]))?;
        for (call, data) in self.calls.iter().zip(&mut self.columns) {
            columns.push(column(call, data)?);
            data.clear();
        }
        self.keys.clear();
        self.ends.clear();
        let batch = record_batch(self.schema, columns, rows)?;
        out.push(Delta::new(batch, diffs(std::mem::take(&mut self.weights))));
        Ok(())
    }
}

fn column(call: &Call, data: &[Datum]) -> Result<ArrayRef> {
    if let (Some(codec), true) = (&call.codec, data.iter().any(|d| matches!(d, Datum::Encoded(_)))) {
        let bytes = data.iter().map(|d| match d {
            Datum::Encoded(value) => &value[..],
            _ => &call.null[..],
        });
        return Ok(ArrayRef::clone(codec.decode(bytes)?.column(0)));
    }
    match &call.output {
        DataType::Int64 => integers::<Int64Type>(call, data),
        DataType::Int32 => integers::<Int32Type>(call, data),
        DataType::Int16 => integers::<Int16Type>(call, data),
        DataType::Int8 => integers::<Int8Type>(call, data),
        DataType::UInt64 => integers::<UInt64Type>(call, data),
        DataType::UInt32 => integers::<UInt32Type>(call, data),
        DataType::UInt16 => integers::<UInt16Type>(call, data),
        DataType::UInt8 => integers::<UInt8Type>(call, data),
        DataType::Decimal128(precision, scale) => {
            let limit = 10i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
            let check = |v: i128| if v.abs() < limit { Ok(v) } else { Err(out_of_range(&call.output)) };
            let values = data.iter().map(|d| exact(d).map(check).transpose()).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?))
        }
        DataType::Float64 => Ok(Arc::new(data.iter().map(float).collect::<Float64Array>())),
        DataType::Float32 => {
            let narrow = |v: f64| {
                let narrow = v as f32;
                if narrow.is_infinite() && v.is_finite() { Err(out_of_range(&call.output)) } else { Ok(narrow) }
            };
            let values = data.iter().map(|d| float(d).map(narrow).transpose()).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(Float32Array::from(values)))
        }
        // Only NULLs, of whatever type.
        other if data.iter().all(|d| *d == Datum::Null) => Ok(arrow::array::new_null_array(other, data.len())),
        other => Err(Error::internal(format!("an aggregate's result of type {other}"))),
    }
}

fn integers<T: ArrowPrimitiveType>(call: &Call, data: &[Datum]) -> Result<ArrayRef>
where
    T::Native: TryFrom<i128>,
{
    let narrow = |v: i128| T::Native::try_from(v).map_err(|_| out_of_range(&call.output));
    let values = data.iter().map(|d| exact(d).map(narrow).transpose()).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(values.into_iter().collect::<PrimitiveArray<T>>()))
}

fn exact(datum: &Datum) -> Option<i128> {
    match datum {
        Datum::Exact(value) => Some(*value),
        _ => None,
    }
}

fn float(datum: &Datum) -> Option<f64> {
    match datum {
        Datum::Float(value) => Some(*value),
        Datum::Exact(value) => Some(*value as f64),
        _ => None,
    }
}
