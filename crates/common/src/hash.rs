//! The fixed hash of distribution keys. It decides where a row is stored, so it never changes within a
//! data format: equal values hash alike on every machine and in every version.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_schema::{DataType, TimeUnit};

use crate::{Result, RowCodec, Vnode};

const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;

/// Mixes 64 bits so that every input bit reaches every output bit (the finalizer of SplitMix64,
/// Steele, Lea and Flood 2014).
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[inline]
fn combine(hash: u64, value: u64) -> u64 {
    mix(hash.rotate_left(23) ^ value.wrapping_mul(0x2545_f491_4f6c_dd1d))
}

/// Hashes bytes, eight at a time.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut h = SEED ^ bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for c in chunks {
        h = combine(h, u64::from_le_bytes(*c));
    }
    let mut tail = [0u8; 8];
    for (t, b) in tail.iter_mut().zip(rest) {
        *t = *b;
    }
    combine(h, u64::from_le_bytes(tail))
}

/// One hash per row over the given columns; with no columns, every row has the same hash.
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        match column.data_type() {
            DataType::Int64 => primitive::<Int64Type>(column, &mut hashes, |v| v as u64),
            DataType::Int32 => primitive::<Int32Type>(column, &mut hashes, |v| i64::from(v) as u64),
            DataType::Int16 => primitive::<Int16Type>(column, &mut hashes, |v| i64::from(v) as u64),
            DataType::Date32 => primitive::<Date32Type>(column, &mut hashes, |v| i64::from(v) as u64),
            DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(column, &mut hashes, |v| v as u64),
            DataType::Timestamp(TimeUnit::Microsecond, _) => primitive::<TimestampMicrosecondType>(column, &mut hashes, |v| v as u64),
            DataType::Decimal128(_, _) => primitive::<Decimal128Type>(column, &mut hashes, |v| mix(v as u64) ^ ((v >> 64) as u64)),
            // -0.0 = 0.0 in SQL, and all NaN are one value.
            DataType::Float64 => primitive::<Float64Type>(column, &mut hashes, canonical),
            DataType::Float32 => primitive::<Float32Type>(column, &mut hashes, |v| canonical(f64::from(v))),
            DataType::Utf8 => {
                let array = column.as_string::<i32>();
                for (i, h) in hashes.iter_mut().enumerate() {
                    *h = combine(*h, if array.is_null(i) { NULL } else { hash_bytes(array.value(i).as_bytes()) });
                }
            }
            DataType::Boolean => {
                let array = column.as_boolean();
                for (i, h) in hashes.iter_mut().enumerate() {
                    *h = combine(*h, if array.is_null(i) { NULL } else { u64::from(array.value(i)) });
                }
            }
            other => {
                let field = arrow_schema::Field::new("c", other.clone(), true);
                let codec = RowCodec::new(std::sync::Arc::new(arrow_schema::Schema::new(vec![field])))?;
                let encoded = codec.encode(std::slice::from_ref(column))?;
                for (h, row) in hashes.iter_mut().zip(encoded.iter()) {
                    *h = combine(*h, hash_bytes(row.as_ref()));
                }
            }
        }
    }
    Ok(hashes)
}

/// The virtual node of a hash.
#[inline]
pub fn vnode(hash: u64) -> Vnode {
    (hash >> 56) as Vnode
}

fn canonical(v: f64) -> u64 {
    if v.is_nan() {
        f64::NAN.to_bits()
    } else if v == 0.0 {
        0
    } else {
        v.to_bits()
    }
}

fn primitive<T: ArrowPrimitiveType>(column: &ArrayRef, hashes: &mut [u64], bits: impl Fn(T::Native) -> u64) {
    let array = column.as_primitive::<T>();
    if array.null_count() == 0 {
        for (h, v) in hashes.iter_mut().zip(array.values()) {
            *h = combine(*h, bits(*v));
        }
    } else {
        for (i, h) in hashes.iter_mut().enumerate() {
            *h = combine(*h, if array.is_null(i) { NULL } else { bits(array.value(i)) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    /// These values are part of the data format: a change here makes stored rows unfindable.
    #[test]
    fn the_hash_never_changes() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-7)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["", "millpond", "a longer text than eight bytes"]));
        let found: Vec<u8> = hash_columns(&[ints, texts], 3).unwrap_or_default().into_iter().map(vnode).collect();
        assert_eq!(found, GOLDEN);
    }
    const GOLDEN: [u8; 3] = [223, 204, 88];
}
