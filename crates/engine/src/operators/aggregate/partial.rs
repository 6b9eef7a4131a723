//! An epoch's contribution to each touched group, gathered per call in dense columns before state is touched:
//! the inner loops know the argument's native type, and state is visited once per group and epoch.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_schema::DataType;
use millpond_common::{Error, Result, SqlState};
use millpond_state::SortedState;

use super::super::keys::{RowBytes, normalize};
use super::call::{Call, Kind};
use super::float_sum::FloatSum;
use super::group::Slot;

/// Which rows of a chunk go where: row `i` to group `groups[i]` with `weights[i]` (or 1).
pub struct Routes<'a> {
    /// The group's number in this epoch.
    pub groups: &'a [u32],
    /// `None`: all +1.
    pub weights: Option<&'a [i64]>,
}

impl Routes<'_> {
    /// The weight of a row.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.map_or(1, |w| w[row])
    }

    /// Calls `f` with (row, group, weight) of every selected row.
    #[inline]
    fn each(&self, selected: Option<&BooleanBuffer>, mut f: impl FnMut(usize, usize, i64)) {
        for (row, group) in self.groups.iter().enumerate() {
            if selected.is_none_or(|s| s.value(row)) {
                f(row, *group as usize, self.weight(row));
            }
        }
    }
}

/// One call's contributions, by group number.
pub enum Partial {
    /// Rows counted.
    Count(Vec<i64>),
    /// Sums and counts.
    Exact(Vec<(i128, i64)>),
    /// Sums and counts.
    Float(Vec<(FloatSum, i64)>),
    /// The winning argument of each group, as (chunk, row).
    Extreme {
        /// Encoded arguments.
        chunks: Vec<RowBytes>,
        /// By group.
        best: Vec<Option<(u32, u32)>>,
    },
    /// Changes of the values kept, to be applied one by one.
    Values(Changes),
}

/// Encoded values with weights, by group.
#[derive(Default)]
pub struct Changes {
    chunks: Vec<RowBytes>,
    entries: Vec<Change>,
    /// How many of the sorted entries are applied.
    done: usize,
}

#[derive(Clone, Copy)]
struct Change {
    group: u32,
    chunk: u32,
    row: u32,
    weight: i64,
}

impl Changes {
    fn add(&mut self, values: RowBytes, routes: &Routes<'_>, selected: Option<&BooleanBuffer>) {
        let chunk = self.chunks.len() as u32;
        routes.each(selected, |row, group, weight| self.entries.push(Change { group: group as u32, chunk, row: row as u32, weight }));
        self.chunks.push(values);
    }

    fn value(&self, change: &Change) -> &[u8] {
        self.chunks[change.chunk as usize].get(change.row as usize)
    }

    /// Sorts by group and value, and sums the weights of equal ones.
    fn consolidate(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|a, b| a.group.cmp(&b.group).then_with(|| self.value(a).cmp(self.value(b))));
        entries.dedup_by(|later, earlier| {
            let same = later.group == earlier.group && self.value(later) == self.value(earlier);
            if same {
                earlier.weight += later.weight;
            }
            same
        });
        entries.retain(|c| c.weight != 0);
        self.entries = entries;
    }
}

impl Partial {
    /// Nothing contributed yet.
    pub fn new(call: &Call) -> Self {
        match call.kind {
            Kind::Count => Partial::Count(Vec::new()),
            Kind::Exact => Partial::Exact(Vec::new()),
            Kind::Float => Partial::Float(Vec::new()),
            Kind::Extreme => Partial::Extreme { chunks: Vec::new(), best: Vec::new() },
            Kind::Values => Partial::Values(Changes::default()),
        }
    }

    /// Makes room for `groups` groups.
    pub fn grow(&mut self, groups: usize) {
        match self {
            Partial::Count(counts) => counts.resize(groups, 0),
            Partial::Exact(sums) => sums.resize(groups, (0, 0)),
            Partial::Float(sums) => sums.resize_with(groups, Default::default),
            Partial::Extreme { best, .. } => best.resize(groups, None),
            Partial::Values(_) => {}
        }
    }

    /// Takes in the selected rows of a chunk, with its argument column.
    pub fn take_in(
        &mut self,
        call: &Call,
        routes: &Routes<'_>,
        argument: Option<&ArrayRef>,
        selected: Option<&BooleanBuffer>,
    ) -> Result<()> {
        let column = || argument.ok_or_else(|| Error::internal("an aggregate lacks its argument"));
        let encoded = |column: &ArrayRef| match &call.codec {
            Some(codec) => RowBytes::new(codec, &[normalize(column)]),
            None => Err(Error::internal("an aggregate lacks its encoding")),
        };
        match self {
            Partial::Count(counts) => routes.each(selected, |_, group, weight| counts[group] += weight),
            Partial::Exact(sums) => {
                let mut overflow = false;
                exact_values(column()?, routes, selected, |group, value, weight| {
                    let (sum, count) = &mut sums[group];
                    match times(value, weight).and_then(|v| sum.checked_add(v)) {
                        Some(next) => *sum = next,
                        None => overflow = true,
                    }
                    *count += weight;
                })?;
                if overflow {
                    return Err(exact_overflow());
                }
            }
            Partial::Float(sums) => {
                let mut result = Ok(());
                float_values(column()?, routes, selected, |group, value, weight| {
                    let (sum, count) = &mut sums[group];
                    if let Err(e) = sum.add(value, weight) {
                        result = Err(e);
                    }
                    *count += weight;
                })?;
                result?;
            }
            Partial::Extreme { chunks, best } => {
                let values = encoded(column()?)?;
                let chunk = chunks.len() as u32;
                routes.each(selected, |row, group, weight| {
                    let held =
                        best[group].map(|(c, r)| if c == chunk { values.get(r as usize) } else { chunks[c as usize].get(r as usize) });
                    if weight > 0 && held.is_none_or(|h| values.get(row) < h) {
                        best[group] = Some((chunk, row as u32));
                    }
                });
                chunks.push(values);
            }
            Partial::Values(changes) => changes.add(encoded(column()?)?, routes, selected),
        }
        Ok(())
    }

    /// All chunks are in: brings changes in order.
    pub fn close(&mut self) {
        if let Partial::Values(changes) = self {
            changes.consolidate();
        }
    }

    /// Adds the contributions of group `group` to its state; groups come in ascending order.
    pub fn apply(&mut self, group: usize, slot: &mut Slot, values: &mut SortedState<i64>, prefix: &[u8]) -> Result<()> {
        match (self, slot) {
            (Partial::Count(counts), Slot::Count(count)) => *count += counts[group],
            (Partial::Exact(sums), Slot::Exact { sum, count }) => {
                *sum = sum.checked_add(sums[group].0).ok_or_else(exact_overflow)?;
                *count += sums[group].1;
            }
            (Partial::Float(sums), Slot::Float { sum, count }) => {
                let (more, times) = &sums[group];
                if sum.is_zero() {
                    **sum = more.clone();
                } else {
                    sum.merge(more)?;
                }
                *count += times;
            }
            (Partial::Extreme { chunks, best }, Slot::Extreme(held)) => {
                if let Some((chunk, row)) = best[group] {
                    let value = chunks[chunk as usize].get(row as usize);
                    if held.as_deref().is_none_or(|h| value < h) {
                        *held = Some(value.into());
                    }
                }
            }
            (Partial::Values(changes), Slot::Values) => {
                let mut place = Vec::new();
                while let Some(change) = changes.entries.get(changes.done).filter(|c| c.group as usize == group) {
                    place.clear();
                    place.extend_from_slice(prefix);
                    place.extend_from_slice(changes.value(change));
                    super::super::top_n::add(values, &place, change.weight);
                    changes.done += 1;
                }
            }
            _ => return Err(Error::internal("an aggregate's state is of another kind")),
        }
        Ok(())
    }
}

/// The rows of a batch that a call sees: its FILTER lets them through, and its argument is not NULL. `None`: all.
pub fn selected(call: &Call, batch: &RecordBatch) -> Option<BooleanBuffer> {
    let filter = call.plan.filter.map(|c| batch.column(c).as_boolean());
    let pass = filter.map(|f| f.nulls().map_or_else(|| f.values().clone(), |n| f.values() & n.inner()));
    let valid = call.plan.argument.and_then(|c| batch.column(c).logical_nulls()).map(|n| n.into_inner());
    match (pass, valid) {
        (Some(a), Some(b)) => Some(&a & &b),
        (a, b) => a.or(b),
    }
}

/// What the places of all values of a group and a call (or a set) start with: group keys end where their last column ends,
/// so this is unambiguous.
pub fn place_prefix(place: &mut Vec<u8>, group: &[u8], number: u16) {
    place.clear();
    place.extend_from_slice(group);
    place.extend_from_slice(&number.to_be_bytes());
}

fn times(value: i128, weight: i64) -> Option<i128> {
    match weight {
        1 => Some(value),
        -1 => value.checked_neg(),
        _ => value.checked_mul(i128::from(weight)),
    }
}

fn exact_overflow() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: a sum overflows")
}

fn exact_values(column: &ArrayRef, routes: &Routes<'_>, selected: Option<&BooleanBuffer>, f: impl FnMut(usize, i128, i64)) -> Result<()> {
    match column.data_type() {
        DataType::Int64 => natives::<Int64Type, _>(column, routes, selected, i128::from, f),
        DataType::Int32 => natives::<Int32Type, _>(column, routes, selected, i128::from, f),
        DataType::Int16 => natives::<Int16Type, _>(column, routes, selected, i128::from, f),
        DataType::Int8 => natives::<Int8Type, _>(column, routes, selected, i128::from, f),
        DataType::UInt64 => natives::<UInt64Type, _>(column, routes, selected, i128::from, f),
        DataType::UInt32 => natives::<UInt32Type, _>(column, routes, selected, i128::from, f),
        DataType::UInt16 => natives::<UInt16Type, _>(column, routes, selected, i128::from, f),
        DataType::UInt8 => natives::<UInt8Type, _>(column, routes, selected, i128::from, f),
        DataType::Decimal128(..) => natives::<Decimal128Type, _>(column, routes, selected, |v| v, f),
        other => return Err(Error::internal(format!("an exact sum of {other}"))),
    }
    Ok(())
}

fn float_values(column: &ArrayRef, routes: &Routes<'_>, selected: Option<&BooleanBuffer>, f: impl FnMut(usize, f64, i64)) -> Result<()> {
    match column.data_type() {
        DataType::Float64 => natives::<Float64Type, _>(column, routes, selected, |v| v, f),
        DataType::Float32 => natives::<Float32Type, _>(column, routes, selected, f64::from, f),
        other => return Err(Error::internal(format!("a floating-point sum of {other}"))),
    }
    Ok(())
}

/// Calls `f` with (group, value, weight) of every selected row.
#[inline]
fn natives<T: ArrowPrimitiveType, V>(
    column: &ArrayRef,
    routes: &Routes<'_>,
    selected: Option<&BooleanBuffer>,
    convert: impl Fn(T::Native) -> V,
    mut f: impl FnMut(usize, V, i64),
) {
    let values = column.as_primitive::<T>().values();
    routes.each(selected, |row, group, weight| f(group, convert(values[row]), weight));
}
