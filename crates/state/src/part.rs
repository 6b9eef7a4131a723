//! Reading a relation in parts: some rows from one view, the following ones from a later view, and so on. What such a
//! reader has of the relation is exact at every step if it also takes the changes of the keys that it has passed.

use std::ops::Range;

use arrow::array::{BooleanArray, Int64Array};
use millpond_common::{Delta, RelationId, RelationSpec, Result, VNODE_COUNT, Vnode};
use serde::{Deserialize, Serialize};

use crate::appended::Cursor;
use crate::read_view::{ReadView, Scan};
use crate::relation::RelationMeta;
use crate::scan::ScanStream;

/// Bytes of stored rows that one part has, about, at most.
const PART_BYTES_MAX: usize = 8 << 20;

/// Stored keys (virtual node first) from one on, up to the end of a virtual node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from: Vec<u8>,
    /// The first virtual node after it.
    until: u16,
}

impl Span {
    fn of(vnodes: &Range<usize>) -> Option<Span> {
        let from = u8::try_from(vnodes.start).ok().filter(|_| !vnodes.is_empty())?;
        Some(Span { from: vec![from], until: vnodes.end.min(VNODE_COUNT) as u16 })
    }

    /// The virtual nodes that it touches.
    fn vnodes(&self) -> Range<usize> {
        self.from.first().map_or(0, |v| usize::from(*v))..usize::from(self.until)
    }

    fn contains(&self, vnode: u8, key: &[u8]) -> bool {
        u16::from(vnode) < self.until && std::iter::once(&vnode).chain(key).ge(&self.from)
    }

    fn within(&self, vnodes: &Range<usize>) -> Option<Span> {
        let whole = Span::of(vnodes)?;
        let part = Span { from: self.from.clone().max(whole.from), until: self.until.min(whole.until) };
        (!part.vnodes().is_empty()).then_some(part)
    }
}

/// The keys of a relation that a reader has not come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread(Vec<Span>);

impl Unread {
    /// All keys of some virtual nodes.
    pub fn all(vnodes: Range<usize>) -> Unread {
        Unread(Span::of(&vnodes).into_iter().collect())
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of it is in these virtual nodes.
    pub fn within(&self, vnodes: &Range<usize>) -> Unread {
        Unread(self.0.iter().filter_map(|s| s.within(vnodes)).collect())
    }

    /// Adds what another reader of the same relation, of other virtual nodes, has not come to.
    pub fn append(&mut self, other: Unread) {
        self.0.extend(other.0);
    }

    fn contains(&self, vnode: u8, key: &[u8]) -> bool {
        self.0.iter().any(|s| s.contains(vnode, key))
    }
}

/// Tells changes of keys that a reader has passed from those of keys that it has not.
pub struct KeySplitter {
    meta: RelationMeta,
    lane: Vnode,
}

impl KeySplitter {
    /// For changes of this relation, with all its columns. If it only grows, they were published under `lane`.
    pub fn new(spec: RelationSpec, lane: Vnode) -> Result<Self> {
        Ok(KeySplitter { meta: RelationMeta::new(spec)?, lane })
    }

    /// Changes of passed keys, and those of unread ones.
    pub fn split(&self, delta: Delta, unread: &Unread) -> Result<(Delta, Delta)> {
        let none = || Delta::empty(delta.schema());
        if unread.is_empty() {
            let none = none();
            return Ok((delta, none));
        }
        if self.meta.spec.appended {
            let is_unread = Cursor::end(self.lane).key().split_first().is_some_and(|(lane, place)| unread.contains(*lane, place));
            let none = none();
            return Ok(if is_unread { (none, delta) } else { (delta, none) });
        }
        let (vnodes, keys) = self.meta.encode_keys(&delta.batch)?;
        let is_unread = vnodes.iter().enumerate().map(|(row, vnode)| unread.contains(*vnode, keys.get(row))).collect::<Vec<_>>();
        if is_unread.iter().all(|u| *u) {
            return Ok((none(), delta));
        }
        let passed = delta.filter(&BooleanArray::from_iter(is_unread.iter().map(|u| Some(!u))))?;
        Ok((passed, delta.filter(&BooleanArray::from(is_unread))?))
    }
}

impl ReadView {
    /// The next rows by ascending virtual node and key, about so many, all columns; they leave `unread`.
    pub fn read_part(&self, relation: RelationId, unread: &mut Unread, rows_max: usize) -> Result<Vec<Delta>> {
        if self.is_appended(relation)? {
            return self.read_appended(relation, unread, rows_max);
        }
        let mut parts = Vec::new();
        let mut room = rows_max;
        while room > 0 && !unread.0.is_empty() {
            let span = unread.0.remove(0);
            let mut rows = self.scan_from(relation, Scan { vnodes: span.vnodes(), ..Scan::default() }, &span.from)?;
            let Part { delta, bytes, last } = rows.next_part(room, PART_BYTES_MAX)?;
            room = if bytes < PART_BYTES_MAX { room.saturating_sub(delta.len()) } else { 0 };
            parts.extend((!delta.is_empty()).then_some(delta));
            if let Some(mut from) = last {
                from.push(0); // the least key after it
                unread.0.insert(0, Span { from, until: span.until });
            }
        }
        Ok(parts)
    }

    /// The same of a relation that only grows, by lane, and in each from the last row to the first.
    fn read_appended(&self, relation: RelationId, unread: &mut Unread, rows_max: usize) -> Result<Vec<Delta>> {
        let mut parts = Vec::new();
        let (mut rows, mut bytes) = (rows_max, PART_BYTES_MAX);
        while rows > 0 && bytes > 0 && !unread.0.is_empty() {
            let span = unread.0.remove(0);
            let Some(from) = Cursor::of(&span.from) else { continue };
            let part = self.appended_part(relation, (from, usize::from(span.until)), (rows, bytes))?;
            (rows, bytes) = (rows.saturating_sub(part.rows), bytes.saturating_sub(part.bytes));
            parts.extend(part.batches.into_iter().map(Delta::insert));
            if let Some(next) = part.next {
                unread.0.insert(0, Span { from: next.key().to_vec(), until: span.until });
            }
        }
        Ok(parts)
    }
}

/// Some rows of a scan.
struct Part {
    delta: Delta,
    bytes: usize,
    /// The key (virtual node first) of the last one; `None`: there are no more.
    last: Option<Vec<u8>>,
}

impl ScanStream {
    /// Rows in key order, each once, with its weight.
    fn next_part(&mut self, rows_max: usize, bytes_max: usize) -> Result<Part> {
        let (mut bytes, mut weights, mut last) = (0, Vec::new(), Vec::new());
        let keyed = self.meta.keyed();
        let ended = self.walk(|buffer, key, value, weight| {
            if weight != 0 {
                buffer.push(key, value);
                weights.push(weight);
            }
            bytes += key.len() + value.len();
            last.clear();
            last.extend_from_slice(key);
            weights.len() < rows_max && bytes < bytes_max
        })?;
        let batch = self.buffer.take(&self.meta)?;
        let repeated = !keyed && weights.iter().any(|w| *w != 1);
        let delta = Delta::new(batch, repeated.then(|| Int64Array::from(weights)));
        Ok(Part { delta, bytes, last: (!ended).then_some(last) })
    }
}
