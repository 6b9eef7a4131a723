//! Scans: stored rows and sorted changes, merged by key, decoded batch by batch.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use millpond_common::{Error, Result, RowCodec};

use crate::encode::Change;
use crate::format;
use crate::key_range::{KeyRange, Skip, Spans};
use crate::read_view::{Scan, stored_weight};
use crate::relation::{Place, Relation, RelationMeta};
use crate::rocks::{Base, BaseIterator, storage_error};
use crate::run::{Overlay, SortedRun};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// Which columns a reader wants, and so which parts of a stored row it needs.
pub(crate) struct Wanted {
    columns: Vec<usize>,
    schema: SchemaRef,
    key: bool,
    value: bool,
}

impl Wanted {
    pub(crate) fn new(meta: &RelationMeta, projection: Option<Vec<usize>>) -> Self {
        let columns = projection.unwrap_or_else(|| (0..meta.places.len()).collect());
        let places = || columns.iter().filter_map(|c| meta.places.get(*c));
        let key = places().any(|p| matches!(p, Place::Key(_)));
        let value = places().any(|p| matches!(p, Place::Value(_)));
        let fields = columns.iter().filter_map(|c| meta.spec.schema.fields().get(*c).cloned()).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new_with_metadata(fields, meta.spec.schema.metadata().clone()));
        Wanted { columns, schema, key, value }
    }
}

/// Byte strings end to end.
#[derive(Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn get(&self, at: usize) -> Option<&[u8]> {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(at)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Of ascending strings from `from` on, the first one that is not below `string`. It looks near `from` first.
    pub(crate) fn seek(&self, from: usize, string: &[u8]) -> usize {
        let below = |at: usize| self.get(at).is_some_and(|s| s < string);
        let (mut low, mut step) = (from, 1);
        while below(low + step - 1) {
            low += step;
            step *= 2;
        }
        let mut high = (low + step - 1).min(self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match below(middle) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// Decodes all and empties itself, keeping its memory.
    fn decode(&mut self, codec: &RowCodec) -> Result<RecordBatch> {
        let mut start = 0;
        let strings = self.ends.iter().map(|end| {
            let string = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            string
        });
        let batch = codec.decode(strings);
        self.bytes.clear();
        self.ends.clear();
        batch
    }
}

/// Encoded rows on their way into a batch.
pub(crate) struct RowBuffer {
    wanted: Wanted,
    keys: Strings,
    values: Strings,
    /// Of all rows with their virtual nodes, if somebody wants to know.
    stored_keys: Option<Strings>,
    rows: usize,
}

impl RowBuffer {
    pub(crate) fn new(wanted: Wanted) -> Self {
        RowBuffer { wanted, keys: Strings::default(), values: Strings::default(), stored_keys: None, rows: 0 }
    }

    /// The columns of its batches.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.wanted.schema)
    }

    /// Adds a row. The key comes with its virtual node.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        if let Some(keys) = &mut self.stored_keys {
            keys.push(key);
        }
        if self.wanted.key {
            self.keys.push(key.get(1..).unwrap_or_default());
        }
        if self.wanted.value {
            self.values.push(value);
        }
        self.rows += 1;
    }

    /// Adds a row without value columns `weight` times, as far as there is room in a batch; returns how many are left.
    pub(crate) fn push_copies(&mut self, key: &[u8], weight: i64) -> i64 {
        let copies = weight.min(BATCH_ROWS.saturating_sub(self.rows) as i64);
        for _ in 0..copies {
            self.push(key, &[]);
        }
        weight - copies.max(0)
    }

    /// Whether it should become a batch.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows so far as a batch of the wanted columns.
    pub(crate) fn take(&mut self, meta: &RelationMeta) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let keys = if self.wanted.key { Some(self.keys.decode(&meta.key)?) } else { None };
        let values = if self.wanted.value { Some(self.values.decode(&meta.value)?) } else { None };
        let mut columns = Vec::with_capacity(self.wanted.columns.len());
        for column in &self.wanted.columns {
            let found = match meta.places.get(*column) {
                Some(Place::Key(i)) => keys.as_ref().map(|b| b.column(*i)),
                Some(Place::Value(i)) => values.as_ref().map(|b| b.column(*i)),
                None => None,
            };
            columns.push(Arc::clone(found.ok_or_else(|| Error::internal(format!("there is no column {column}")))?));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wanted.schema), columns, &options)?)
    }
}

/// The rows of a scan, in batches. Holds what its view holds.
pub struct ScanStream {
    pub(crate) meta: Arc<RelationMeta>,
    base: BaseIterator,
    overlay: Overlay,
    /// Which keys, if not all.
    spans: Option<Spans>,
    pub(crate) buffer: RowBuffer,
    /// Copies of a row that did not fit into the batch before (its key, how many).
    repeat: Option<(Vec<u8>, i64)>,
    done: bool,
}

/// A batch, and the keys of its rows with their virtual nodes, if they were wanted.
pub(crate) type Keyed = (RecordBatch, Option<Arc<Strings>>);

impl ScanStream {
    /// `from`: the first key (virtual node first) that it gives; empty: the first of the scan's virtual nodes.
    pub(crate) fn new(base: &Arc<Base>, relation: &Relation, layers: Vec<Arc<SortedRun>>, scan: Scan, from: &[u8]) -> Result<Self> {
        let Scan { projection, vnodes, .. } = scan;
        let meta = &relation.meta;
        let id = meta.spec.id.0;
        let end = if relation.stored_is_void { vnodes.start } else { vnodes.end.max(vnodes.start) };
        let lower = format::vnode_bound(id, vnodes.start).max([&format::id_prefix(id)[..], from].concat());
        let upper = format::vnode_bound(id, end).max(lower.clone());
        let base = BaseIterator::new(base, lower, upper, true)?;
        let mut overlay = Overlay::new(layers, vnodes);
        overlay.skip_to(from);
        let buffer = RowBuffer::new(Wanted::new(meta, Some(meta.columns(projection)?)));
        Ok(ScanStream { meta: Arc::clone(meta), base, overlay, spans: None, buffer, repeat: None, done: false })
    }

    /// Only keys of a range.
    pub(crate) fn within(mut self, range: &KeyRange, vnodes: &Range<usize>) -> Result<Self> {
        self.spans = Some(Spans::new(&self.meta, range, vnodes.end)?);
        Ok(self)
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.buffer.schema()
    }

    /// The keys of the rows are wanted, too, or no more.
    pub(crate) fn want_keys(&mut self, wanted: bool) {
        self.buffer.stored_keys = wanted.then(Strings::default);
    }

    /// The next batch with the keys of its rows.
    pub(crate) fn next_keyed(&mut self) -> Option<Result<Keyed>> {
        let batch = match self.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let keys = self.buffer.stored_keys.as_mut().map(|k| {
            let next = Strings { bytes: Vec::with_capacity(k.bytes.len()), ends: Vec::with_capacity(k.ends.len()) };
            Arc::new(std::mem::replace(k, next))
        });
        Some(Ok((batch, keys)))
    }

    /// Calls `each` with the buffer and the stored key (virtual node first), value and weight of every row, until it says that
    /// this is enough. Returns whether that was all.
    pub(crate) fn walk(&mut self, mut each: impl FnMut(&mut RowBuffer, &[u8], &[u8], i64) -> bool) -> Result<bool> {
        let ScanStream { meta, base, overlay, spans, buffer, .. } = self;
        let (keyed, id) = (meta.keyed(), format::id_prefix(meta.spec.id.0));
        base.with(|stored| {
            let mut more = true;
            while more {
                let (base_key, base_value) = stored.item().map_or((None, &[][..]), |(k, v)| (k.get(4..), v));
                let (change_key, change) = overlay.current().map_or((None, None), |(k, c)| (Some(k), Some(c)));
                let order = match (base_key, change_key) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(b), Some(c)) => b.cmp(c),
                };
                let key = if order == Ordering::Greater { change_key } else { base_key };
                let key = key.unwrap_or_default();
                match spans.as_ref().and_then(|s| s.skip(key)) {
                    None => {}
                    Some(Skip::To(start)) => {
                        stored.seek([&id[..], &start].concat());
                        overlay.skip_to(&start);
                        continue;
                    }
                    Some(Skip::End) => break,
                }
                if keyed {
                    match change.filter(|_| order != Ordering::Less) {
                        None => more = each(buffer, key, base_value, 1),
                        Some(Change::Put(value)) => more = each(buffer, key, value, 1),
                        Some(Change::Delete | Change::Add(_)) => {}
                    }
                } else {
                    let before = if order == Ordering::Greater { 0 } else { stored_weight(base_value)? };
                    let added = match change {
                        Some(Change::Add(weight)) if order != Ordering::Less => weight,
                        _ => 0,
                    };
                    more = each(buffer, key, &[], before + added);
                }
                if order != Ordering::Greater {
                    stored.next();
                }
                if order != Ordering::Less {
                    overlay.advance();
                }
            }
            stored.status().map_err(storage_error)?;
            Ok(more)
        })
    }

    fn fill(&mut self) -> Result<()> {
        let copies = |buffer: &mut RowBuffer, key: &[u8], weight: i64| {
            let left = buffer.push_copies(key, weight);
            (left > 0).then(|| (key.to_vec(), left))
        };
        let mut repeat = self.repeat.take();
        if let Some((key, weight)) = repeat.take() {
            repeat = copies(&mut self.buffer, &key, weight);
        }
        if !self.buffer.is_full() {
            let keyed = self.meta.keyed();
            let ended = self.walk(|buffer, key, value, weight| {
                match keyed {
                    true => buffer.push(key, value),
                    false => repeat = copies(buffer, key, weight),
                }
                !buffer.is_full()
            })?;
            self.done = ended && repeat.is_none();
        }
        self.repeat = repeat;
        Ok(())
    }
}

impl Iterator for ScanStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if let Err(error) = self.fill() {
            self.done = true;
            return Some(Err(error));
        }
        if self.buffer.is_empty() {
            self.done = true;
            return None;
        }
        Some(self.buffer.take(&self.meta).inspect_err(|_| self.done = true))
    }
}
