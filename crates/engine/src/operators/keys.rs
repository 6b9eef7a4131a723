//! Rows as bytes: state keys, stored rows, and small per-epoch dictionaries of keys.
//!
//! A state key is the virtual node's byte followed by the row encoding of the key columns. Values that SQL calls
//! equal have equal bytes: −0.0 is 0.0 in keys, and every NaN is one NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_row::Rows;
use arrow_schema::{DataType, Schema, SchemaRef, SortOptions, TimeUnit};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use millpond_common::{Result, RowCodec, hash};

/// How many keys are looked up ahead of their use. Such look-ups do not depend on each other, so the processor waits for
/// memory once for several of them; it halves the cost of a group whose state is not in the cache.
pub const WARM_KEYS: usize = 32;

/// Encodes some columns of a batch as state keys, and keys as columns again.
pub struct KeyCodec {
    columns: Vec<usize>,
    codec: RowCodec,
    /// Bytes of an encoded key, where every key column is an integer or a time.
    fixed_length: Option<usize>,
}

/// The keys of a batch's rows.
pub struct Keys {
    hashes: Vec<u64>,
    bytes: Vec<u8>,
    ends: Ends,
}

/// Where keys end.
enum Ends {
    Fixed(usize),
    Variable(Vec<usize>),
}

impl KeyCodec {
    /// Keys of the given columns of `schema`.
    pub fn new(schema: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let fields = columns.iter().map(|c| Arc::clone(&schema.fields()[*c])).collect::<Vec<_>>();
        let widths = fields.iter().map(|f| fixed_width(f.data_type())).collect::<Option<Vec<_>>>();
        let fixed_length = widths.map(|w| 1 + w.iter().map(|width| 1 + width).sum::<usize>());
        Ok(KeyCodec { columns: columns.to_vec(), codec: RowCodec::new(Arc::new(Schema::new(fields)))?, fixed_length })
    }

    /// One key per row.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Keys> {
        let columns = self.columns.iter().map(|c| normalize(batch.column(*c))).collect::<Vec<_>>();
        let rows = batch.num_rows();
        let hashes = hash::hash_columns(&columns, rows)?;
        if let Some(length) = self.fixed_length {
            let bytes = encode_fixed(&columns, length, &hashes);
            return Ok(Keys { hashes, bytes, ends: Ends::Fixed(length) });
        }
        let encoded = self.codec.encode(&columns)?;
        let mut bytes = Vec::with_capacity(encoded.size().min(1 << 26) + rows);
        let mut ends = Vec::with_capacity(rows);
        for (hash, row) in hashes.iter().zip(encoded.iter()) {
            bytes.push(hash::vnode(*hash));
            bytes.extend_from_slice(row.data());
            ends.push(bytes.len());
        }
        Ok(Keys { hashes, bytes, ends: Ends::Variable(ends) })
    }

    /// The key that all rows have when there are no key columns.
    pub fn empty_key(&self) -> Result<(u64, Vec<u8>)> {
        let hash = hash::hash_columns(&[], 1)?[0];
        Ok((hash, vec![hash::vnode(hash)]))
    }

    /// The key columns of keys (virtual node's byte included), one row per key.
    pub fn decode<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        Ok(self.codec.decode(keys.into_iter().map(|k| &k[1..]))?.columns().to_vec())
    }

    /// The key with which bytes begin that go on with a row of `rest`, whose columns have this order.
    pub fn prefix<'a>(&self, rest: &Schema, order: &[SortOptions], bytes: &'a [u8]) -> Result<&'a [u8]> {
        let own = self.codec.schema().fields();
        let fields = own.iter().chain(rest.fields()).map(Arc::clone).collect::<Vec<_>>();
        let options = own.iter().map(|_| SortOptions { descending: false, nulls_first: false }).chain(order.iter().copied());
        let whole = RowCodec::with_order(Arc::new(Schema::new(fields)), &options.collect::<Vec<_>>())?;
        let decoded = whole.decode([&bytes[1..]])?;
        let columns = &decoded.columns()[..own.len()];
        let length = if columns.is_empty() { 0 } else { self.codec.encode(columns)?.row(0).data().len() };
        Ok(&bytes[..1 + length])
    }

    /// Which rows have no NULL in any key column; `None`: all.
    pub fn non_null(&self, batch: &RecordBatch) -> Option<NullBuffer> {
        let nulls = self.columns.iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), batch.column(*c).logical_nulls().as_ref()));
        nulls.filter(|n| n.null_count() > 0)
    }
}

impl Keys {
    /// The key of row `i`.
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        match &self.ends {
            Ends::Fixed(length) => &self.bytes[i * length..(i + 1) * length],
            Ends::Variable(ends) => &self.bytes[if i == 0 { 0 } else { ends[i - 1] }..ends[i]],
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.hashes.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.rows()).map(|i| self.get(i))
    }

    /// The hash of row `i`'s key.
    #[inline]
    pub fn hash(&self, i: usize) -> u64 {
        self.hashes[i]
    }
}

/// Whole rows of a batch as bytes.
pub enum RowBytes {
    /// Rows of at least one column.
    Rows(Rows),
    /// Rows without columns.
    Empty,
}

impl RowBytes {
    /// Encodes `columns` with `codec`.
    pub fn new(codec: &RowCodec, columns: &[ArrayRef]) -> Result<Self> {
        Ok(if columns.is_empty() { RowBytes::Empty } else { RowBytes::Rows(codec.encode(columns)?) })
    }

    /// The bytes of row `i`.
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        match self {
            RowBytes::Rows(rows) => rows.row(i).data(),
            RowBytes::Empty => &[],
        }
    }
}

/// A dictionary that numbers the distinct keys of an epoch from 0.
#[derive(Default)]
pub struct Interner {
    table: HashTable<u32>,
    hashes: Vec<u64>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Interner {
    /// The key's number; a new key gets the next one.
    #[inline]
    pub fn intern(&mut self, hash: u64, key: &[u8]) -> usize {
        let Interner { table, hashes, bytes, ends } = self;
        let at = |i: u32| &bytes[if i == 0 { 0 } else { ends[i as usize - 1] }..ends[i as usize]];
        match table.entry(hash, |i| hashes[*i as usize] == hash && at(*i) == key, |i| hashes[*i as usize]) {
            Entry::Occupied(found) => *found.get() as usize,
            Entry::Vacant(vacant) => {
                let number = hashes.len();
                vacant.insert(number as u32);
                hashes.push(hash);
                bytes.extend_from_slice(key);
                ends.push(bytes.len());
                number
            }
        }
    }

    /// The key with this number.
    #[inline]
    pub fn get(&self, number: usize) -> &[u8] {
        &self.bytes[if number == 0 { 0 } else { self.ends[number - 1] }..self.ends[number]]
    }

    /// How many distinct keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|number| self.get(number))
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.table.clear();
        self.hashes.clear();
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The column with values that SQL calls equal made one: −0.0 as 0.0, any NaN as the one NaN.
pub fn normalize(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let array = column.as_primitive::<Float64Type>();
            if array.values().iter().any(|v| v.is_nan() || v.to_bits() == (-0.0f64).to_bits()) {
                return Arc::new(array.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }));
            }
            Arc::clone(column)
        }
        DataType::Float32 => {
            let array = column.as_primitive::<Float32Type>();
            if array.values().iter().any(|v| v.is_nan() || v.to_bits() == (-0.0f32).to_bits()) {
                return Arc::new(array.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }));
            }
            Arc::clone(column)
        }
        _ => Arc::clone(column),
    }
}

fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int16 => Some(2),
        DataType::Int32 | DataType::Date32 => Some(4),
        DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(TimeUnit::Microsecond) => Some(8),
        _ => None,
    }
}

/// The same bytes that the row encoding gives (a test holds them together), without its per-row work.
fn encode_fixed(columns: &[ArrayRef], length: usize, hashes: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; length * hashes.len()];
    for (key, hash) in bytes.chunks_exact_mut(length).zip(hashes) {
        key[0] = hash::vnode(*hash);
    }
    let mut offset = 1;
    for column in columns {
        offset += match column.data_type() {
            DataType::Int16 => put(column.as_primitive::<Int16Type>(), &mut bytes, length, offset, |v| (v ^ i16::MIN).to_be_bytes()),
            DataType::Int32 => put(column.as_primitive::<Int32Type>(), &mut bytes, length, offset, |v| (v ^ i32::MIN).to_be_bytes()),
            DataType::Date32 => put(column.as_primitive::<Date32Type>(), &mut bytes, length, offset, |v| (v ^ i32::MIN).to_be_bytes()),
            DataType::Int64 => put(column.as_primitive::<Int64Type>(), &mut bytes, length, offset, |v| (v ^ i64::MIN).to_be_bytes()),
            DataType::Time64(_) => {
                put(column.as_primitive::<Time64MicrosecondType>(), &mut bytes, length, offset, |v| (v ^ i64::MIN).to_be_bytes())
            }
            _ => put(column.as_primitive::<TimestampMicrosecondType>(), &mut bytes, length, offset, |v| (v ^ i64::MIN).to_be_bytes()),
        };
    }
    bytes
}

fn put<T: ArrowPrimitiveType, const N: usize>(
    array: &PrimitiveArray<T>,
    bytes: &mut [u8],
    length: usize,
    offset: usize,
    encode: impl Fn(T::Native) -> [u8; N],
) -> usize {
    for (i, (key, value)) in bytes.chunks_exact_mut(length).zip(array.values()).enumerate() {
        if array.is_valid(i) {
            key[offset] = 1;
            key[offset + 1..offset + 1 + N].copy_from_slice(&encode(*value));
        } else {
            key[offset] = 0xff;
        }
    }
    1 + N
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{Date32Array, Float64Array, Int16Array, Int32Array, Int64Array, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn the_fast_encoding_is_the_row_encoding() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN), Some(-1)])),
            Arc::new(Int32Array::from(vec![None, Some(7), Some(i32::MAX), Some(0)])),
            Arc::new(Int16Array::from(vec![Some(-3), Some(3), None, Some(0)])),
            Arc::new(Date32Array::from(vec![Some(20_000), None, None, Some(-1)])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1), Some(-1), None, None]).with_timezone("UTC")),
            Arc::new(Time64MicrosecondArray::from(vec![None, Some(0), Some(5), None])),
        ];
        let batch = RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(i, c)| (format!("c{i}"), c))).unwrap();
        let codec = KeyCodec::new(&batch.schema(), &[0, 1, 2, 3, 4, 5]).unwrap();
        assert!(codec.fixed_length.is_some());
        let keys = codec.encode(&batch).unwrap();
        let rows = codec.codec.encode_batch(&batch).unwrap();
        for i in 0..batch.num_rows() {
            assert_eq!(keys.get(i)[0], hash::vnode(keys.hash(i)));
            assert_eq!(&keys.get(i)[1..], rows.row(i).data(), "row {i}");
        }
    }

    #[test]
    fn equal_floats_have_equal_keys() {
        let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, odd_nan]));
        let batch = RecordBatch::try_from_iter([("f", column)]).unwrap();
        let keys = KeyCodec::new(&batch.schema(), &[0]).unwrap().encode(&batch).unwrap();
        assert_eq!(keys.get(0), keys.get(1));
        assert_eq!(keys.get(2), keys.get(3));
        assert_ne!(keys.get(0), keys.get(2));
    }

    #[test]
    fn interning_numbers_distinct_keys() {
        let mut interner = Interner::default();
        assert_eq!([interner.intern(1, b"a"), interner.intern(1, b"b"), interner.intern(1, b"a"), interner.intern(2, b"")], [0, 1, 0, 2]);
        assert_eq!((interner.get(0), interner.get(1), interner.get(2)), (&b"a"[..], &b"b"[..], &b""[..]));
    }
}
