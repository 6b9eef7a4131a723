//! Adds up the weights of equal rows.

use arrow::array::{Int64Array, UInt32Array};
use hashbrown::HashMap;
use millpond_common::{Delta, Result, RowCodec};

/// The same change with each row at most once and no weight 0. Append-only deltas are returned as they are.
pub fn consolidate(deltas: &[Delta]) -> Result<Option<Delta>> {
    let Some(first) = deltas.first() else { return Ok(None) };
    let schema = first.schema();
    let all = Delta::concat(&schema, deltas)?;
    if all.is_append_only() {
        return Ok((!all.is_empty()).then_some(all));
    }
    let rows = RowCodec::new(schema)?.encode_batch(&all.batch)?;
    let mut weights: HashMap<&[u8], (u32, i64), ahash::RandomState> = HashMap::default();
    for (i, row) in rows.iter().enumerate() {
        weights.entry(row.data()).or_insert((i as u32, 0)).1 += all.weight(i);
    }
    let mut kept = weights.into_values().filter(|(_, w)| *w != 0).collect::<Vec<_>>();
    kept.sort_unstable();
    if kept.is_empty() {
        return Ok(None);
    }
    let indices = UInt32Array::from_iter_values(kept.iter().map(|(i, _)| *i));
    let batch = Delta::insert(all.batch.clone()).take(&indices)?.batch;
    Ok(Some(Delta::new(batch, Some(Int64Array::from_iter_values(kept.iter().map(|(_, w)| *w))))))
}
