//! Changes of a state table on their way to a checkpoint.

/// So many bytes may be got before there is anything to put into them.
const RESERVED_MAX: usize = 4 << 20;

/// Changes of a state table: stored keys (first byte: virtual node), each with its value or deleted. Their bytes lie end to
/// end, so that gathering them costs no allocation each.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    bytes: Vec<u8>,
    list: Vec<Entry>,
}

/// Where an entry's value ends, and its key before it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key_end: usize,
    value_end: usize,
    deleted: bool,
}

impl Entries {
    /// No changes.
    pub fn new() -> Self {
        Entries::default()
    }

    /// Has room for so many more entries without growing, if they take as many bytes each as those of another piece.
    pub(super) fn reserve(&mut self, entries: usize, bytes_each: usize) {
        self.bytes.reserve(entries.saturating_mul(bytes_each).min(RESERVED_MAX));
        self.list.reserve(entries.min(RESERVED_MAX / size_of::<Entry>()));
    }

    /// What an entry takes, on average.
    pub(super) fn bytes_each(&self) -> usize {
        self.bytes.len().div_ceil(self.list.len().max(1))
    }

    /// Adds a key and its value; both are appended to what they are given.
    #[inline]
    pub fn put(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        key(&mut self.bytes);
        let key_end = self.bytes.len();
        value(&mut self.bytes);
        self.list.push(Entry { key_end, value_end: self.bytes.len(), deleted: false });
    }

    /// Adds a deleted key.
    #[inline]
    pub fn delete(&mut self, key: impl FnOnce(&mut Vec<u8>)) {
        key(&mut self.bytes);
        let end = self.bytes.len();
        self.list.push(Entry { key_end: end, value_end: end, deleted: true });
    }

    /// Adds what others hold, after its own.
    pub fn append(&mut self, mut other: Entries) {
        if self.list.is_empty() {
            *self = other;
            return;
        }
        let before = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        let moved = |e: Entry| Entry { key_end: before + e.key_end, value_end: before + e.value_end, ..e };
        self.list.extend(other.list.into_iter().map(moved));
    }

    /// Keys and values in the order in which they were added; `None` = deleted.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        (0..self.list.len()).map(|number| self.entry(number))
    }

    /// One of them, by its number; nothing where there is none.
    pub(crate) fn entry(&self, number: usize) -> (&[u8], Option<&[u8]>) {
        let Some(e) = self.list.get(number) else { return (&[], None) };
        let start = number.checked_sub(1).and_then(|before| self.list.get(before)).map_or(0, |before| before.value_end);
        let key = self.bytes.get(start..e.key_end).unwrap_or_default();
        let value = self.bytes.get(e.key_end..e.value_end).unwrap_or_default();
        (key, (!e.deleted).then_some(value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromIterator<(Vec<u8>, Option<Vec<u8>>)> for Entries {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>>(list: I) -> Self {
        let mut entries = Entries::new();
        for (key, value) in list {
            match value {
                Some(value) => entries.put(|out| out.extend(key), |out| out.extend(value)),
                None => entries.delete(|out| out.extend(key)),
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in() {
        let list = [(b"a".to_vec(), Some(b"one".to_vec())), (b"".to_vec(), None), (b"bb".to_vec(), Some(vec![]))];
        let mut entries = list.iter().cloned().collect::<Entries>();
        entries.append(Entries::new());
        entries.append(list.iter().cloned().collect());
        let out = entries.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect::<Vec<_>>();
        assert_eq!(out, [&list[..], &list[..]].concat());
        assert_eq!(entries.len(), 6);
    }
}
