//! Scans: stored rows and sorted changes, merged by key, decoded batch by batch.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use millpond_common::{Error, Result, RowCodec, SqlState};

use crate::encode::Change;
use crate::format;
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
struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
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
    rows: usize,
}

impl RowBuffer {
    pub(crate) fn new(wanted: Wanted) -> Self {
        RowBuffer { wanted, keys: Strings::default(), values: Strings::default(), rows: 0 }
    }

    /// Adds a row. The key comes without its virtual node.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.wanted.key {
            self.keys.push(key);
        }
        if self.wanted.value {
            self.values.push(value);
        }
        self.rows += 1;
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
    pub(crate) buffer: RowBuffer,
    /// Copies of a row that did not fit into the batch before (its key, how many).
    repeat: Option<(Vec<u8>, i64)>,
    done: bool,
}

impl ScanStream {
    /// `from`: the first key (virtual node first) that it gives; empty: the first of the scan's virtual nodes.
    pub(crate) fn new(base: &Arc<Base>, relation: &Relation, layers: Vec<Arc<SortedRun>>, scan: Scan, from: &[u8]) -> Result<Self> {
        let Scan { projection, vnodes } = scan;
        let meta = &relation.meta;
        if let Some(column) = projection.iter().flatten().find(|c| **c >= meta.places.len()) {
            return Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("relation number {} has no column {column}", meta.spec.id.0)));
        }
        let id = meta.spec.id.0;
        let end = if relation.stored_is_void { vnodes.start } else { vnodes.end.max(vnodes.start) };
        let lower = format::vnode_bound(id, vnodes.start).max([&format::id_prefix(id)[..], from].concat());
        let upper = format::vnode_bound(id, end).max(lower.clone());
        let base = BaseIterator::new(base, lower, upper, true)?;
        let mut overlay = Overlay::new(layers, vnodes);
        overlay.skip_to(from);
        let buffer = RowBuffer::new(Wanted::new(meta, projection));
        Ok(ScanStream { meta: Arc::clone(meta), base, overlay, buffer, repeat: None, done: false })
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.buffer.wanted.schema)
    }

    /// Calls `each` with the buffer and the stored key (virtual node first), value and weight of every row, until it says that
    /// this is enough. Returns whether that was all.
    pub(crate) fn walk(&mut self, mut each: impl FnMut(&mut RowBuffer, &[u8], &[u8], i64) -> bool) -> Result<bool> {
        let ScanStream { meta, base, overlay, buffer, .. } = self;
        let keyed = meta.keyed();
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
        let mut repeat = self.repeat.take();
        if let Some((key, weight)) = repeat.take() {
            repeat = push_copies(&mut self.buffer, &key, weight);
        }
        if self.buffer.rows < BATCH_ROWS {
            let keyed = self.meta.keyed();
            let ended = self.walk(|buffer, key, value, weight| {
                let key = key.get(1..).unwrap_or_default();
                match keyed {
                    true => buffer.push(key, value),
                    false => repeat = push_copies(buffer, key, weight),
                }
                buffer.rows < BATCH_ROWS
            })?;
            self.done = ended && repeat.is_none();
        }
        self.repeat = repeat;
        Ok(())
    }
}

/// Adds a row `weight` times, as far as there is room; returns the rest.
fn push_copies(buffer: &mut RowBuffer, key: &[u8], weight: i64) -> Option<(Vec<u8>, i64)> {
    if weight == 1 {
        buffer.push(key, &[]);
        return None;
    }
    let room = BATCH_ROWS.saturating_sub(buffer.rows) as i64;
    let copies = weight.min(room);
    for _ in 0..copies {
        buffer.push(key, &[]);
    }
    (weight > copies).then(|| (key.to_vec(), weight - copies))
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
        if self.buffer.rows == 0 {
            self.done = true;
            return None;
        }
        Some(self.buffer.take(&self.meta).inspect_err(|_| self.done = true))
    }
}
