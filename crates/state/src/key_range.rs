//! Ranges of keys. Keys lie in order within a virtual node, and those of any range in all nodes: reading one is a search in each.

use arrow::array::ArrayRef;
use millpond_common::{Result, RowCodec};

use crate::relation::RelationMeta;

/// Keys by their first columns: what these are compared with, from below and from above. A hint: who reads by it may get other rows, too.
#[derive(Clone, Debug, Default)]
pub struct KeyRange {
    /// Not below this.
    pub from: Option<KeyBound>,
    /// Not above this.
    pub until: Option<KeyBound>,
}

/// The first columns of a key, one row each.
#[derive(Clone, Debug)]
pub struct KeyBound {
    /// Their values.
    pub columns: Vec<ArrayRef>,
    /// Whether keys with exactly these are within.
    pub inclusive: bool,
}

/// A range in the bytes of stored keys, of each of some virtual nodes.
pub(crate) struct Spans {
    from: Vec<u8>,
    /// The least key that is too great, where there is one.
    until: Option<Vec<u8>>,
    /// The first virtual node that is not read.
    end: usize,
}

/// Where to go on.
pub(crate) enum Skip {
    To(Vec<u8>),
    End,
}

impl Spans {
    pub(crate) fn new(meta: &RelationMeta, range: &KeyRange, end: usize) -> Result<Self> {
        let bytes = |bound: &KeyBound| -> Result<Vec<u8>> {
            let columns = meta.spec.key_columns().into_iter().take(bound.columns.len()).collect::<Vec<_>>();
            let rows = RowCodec::new(meta.spec.project(&columns))?.encode(&bound.columns)?;
            Ok(rows.iter().next().map(|row| row.data().to_vec()).unwrap_or_default())
        };
        // All keys that begin with some columns begin with their bytes.
        let from = match &range.from {
            Some(bound) if bound.inclusive => Some(bytes(bound)?),
            Some(bound) => after(bytes(bound)?),
            None => Some(vec![]),
        };
        let until = match &range.until {
            Some(bound) if bound.inclusive => after(bytes(bound)?),
            Some(bound) => Some(bytes(bound)?),
            None => None,
        };
        Ok(match from {
            Some(from) => Spans { from, until, end },
            None => Spans { from: vec![], until: Some(vec![]), end }, // nothing is greater
        })
    }

    /// The first key (virtual node first) of a node.
    pub(crate) fn start(&self, vnode: usize) -> Vec<u8> {
        u8::try_from(vnode).map_or_else(|_| vec![], |vnode| [&[vnode], self.from.as_slice()].concat())
    }

    /// Where to go on from a key (virtual node first) that is not in the range; `None`: it is.
    pub(crate) fn skip(&self, key: &[u8]) -> Option<Skip> {
        let (vnode, rest) = key.split_first()?;
        if rest < self.from.as_slice() {
            return Some(Skip::To(self.start(usize::from(*vnode))));
        }
        self.until.as_ref().filter(|until| rest >= until.as_slice())?;
        let next = usize::from(*vnode) + 1;
        Some(if next < self.end { Skip::To(self.start(next)) } else { Skip::End })
    }
}

/// The least bytes greater than all that begin with these, if there are any.
fn after(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_prefix() {
        assert_eq!(after(vec![1, 2]), Some(vec![1, 3]));
        assert_eq!(after(vec![1, 255, 255]), Some(vec![2]));
        assert_eq!(after(vec![255]), None);
        assert_eq!(after(vec![]), None);
    }
}
