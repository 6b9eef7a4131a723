//! How a join's rows are stored.

use std::borrow::Cow;

use millpond_common::{Error, Result, SqlState};

/// How rows are stored. A form, once chosen, stays: it is part of the view's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowForm {
    /// Under the key and the row's number: key | number, u32 big-endian → weight | row. Stored keys are short, so sorting, comparing and indexing
    /// them does not touch the rows. Keys must be such that none begins with another one, as those of the row encoding are.
    Numbered,
    /// Under the key and the row itself, as plans of directories of format 1 and 2 have it: first byte of the key | length of its rest, u32 big-endian |
    /// its rest | row → weight.
    Itself,
}

/// A stored row, read.
pub(super) struct StoredRow<'a> {
    pub key: Cow<'a, [u8]>,
    pub row: &'a [u8],
    pub number: Option<u32>,
    pub weight: i64,
}

/// Bytes of a number.
const NUMBER: usize = size_of::<u32>();

impl RowForm {
    /// Appends what the row is stored under.
    pub(super) fn push_key(self, out: &mut Vec<u8>, key: &[u8], row: &[u8], number: u32) {
        match self {
            RowForm::Numbered => {
                out.extend_from_slice(key);
                out.extend_from_slice(&number.to_be_bytes());
            }
            RowForm::Itself => {
                push_prefix(out, key);
                out.extend_from_slice(row);
            }
        }
    }

    /// Appends the value that is stored.
    pub(super) fn push_value(self, out: &mut Vec<u8>, row: &[u8], weight: i64) {
        push_weight(out, weight);
        if self == RowForm::Numbered {
            out.extend_from_slice(row);
        }
    }

    /// What all rows of a key are stored under, and no others.
    pub(super) fn prefix(self, key: &[u8]) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(key.len() + NUMBER);
        match self {
            RowForm::Numbered => prefix.extend_from_slice(key),
            RowForm::Itself => push_prefix(&mut prefix, key),
        }
        prefix
    }

    /// The prefix with which a stored key begins.
    pub(super) fn prefix_of(self, stored: &[u8]) -> Result<&[u8]> {
        let end = match self {
            RowForm::Numbered => stored.len().checked_sub(NUMBER).filter(|end| *end > 0),
            RowForm::Itself => {
                stored.get(1..1 + NUMBER).and_then(|l| l.try_into().ok()).map(|l| 1 + NUMBER + u32::from_be_bytes(l) as usize)
            }
        };
        end.and_then(|end| stored.get(..end)).ok_or_else(unreadable)
    }

    /// The key whose prefix it is.
    pub(super) fn key(self, prefix: &[u8]) -> Cow<'_, [u8]> {
        match self {
            RowForm::Numbered => Cow::Borrowed(prefix),
            RowForm::Itself => {
                let (vnode, rest) = prefix.split_at_checked(1).unwrap_or_default();
                Cow::Owned([vnode, rest.get(NUMBER..).unwrap_or_default()].concat())
            }
        }
    }

    /// Reads an entry.
    pub(super) fn read<'a>(self, stored: &'a [u8], value: &'a [u8]) -> Result<StoredRow<'a>> {
        let prefix = self.prefix_of(stored)?;
        let rest = stored.get(prefix.len()..).unwrap_or_default();
        let (weight, value) = split_weight(value).ok_or_else(unreadable)?;
        let (row, number) = match self {
            RowForm::Numbered => (value, Some(rest.try_into().map(u32::from_be_bytes).map_err(|_| unreadable())?)),
            RowForm::Itself if value.is_empty() => (rest, None),
            RowForm::Itself => return Err(unreadable()),
        };
        Ok(StoredRow { key: self.key(prefix), row, number, weight })
    }
}

fn push_prefix(out: &mut Vec<u8>, key: &[u8]) {
    let (vnode, rest) = key.split_first().expect("a key starts with its virtual node");
    out.push(*vnode);
    out.extend_from_slice(&(rest.len() as u32).to_be_bytes());
    out.extend_from_slice(rest);
}

fn unreadable() -> Error {
    Error::new(SqlState::DATA_CORRUPTED, "stored row of a join cannot be read")
}

/// Zigzag, then seven bits a byte: weights near 0 take one byte.
fn push_weight(out: &mut Vec<u8>, weight: i64) {
    let mut rest = ((weight << 1) ^ (weight >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A weight, and what comes after it.
fn split_weight(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_stored() {
        for form in [RowForm::Numbered, RowForm::Itself] {
            for (key, row, number, weight) in
                [(&b"\x07"[..], &b""[..], 0, 1), (b"\x07key", b"row", 7, -1), (b"\xff\0", b"\0\0", u32::MAX, i64::MIN)]
            {
                let (mut stored, mut value) = (vec![], vec![]);
                form.push_key(&mut stored, key, row, number);
                form.push_value(&mut value, row, weight);
                assert_eq!(form.prefix_of(&stored).unwrap(), form.prefix(key));
                let read = form.read(&stored, &value).unwrap();
                assert_eq!((&*read.key, read.row, read.weight), (key, row, weight));
                assert!(read.number.is_none_or(|n| n == number) && read.number.is_some() == (form == RowForm::Numbered));
                assert!(form.read(&stored, &[0x80]).is_err() && form.read(&stored[..4], &value).is_err());
            }
        }
        assert!(RowForm::Itself.read(b"\x07\0\0\0\x09key", &[2]).is_err());
    }

    #[test]
    fn weights_survive_encoding() {
        for w in [0, 1, -1, 63, 64, -65, 1 << 40, i64::MAX, i64::MIN] {
            let mut out = vec![];
            push_weight(&mut out, w);
            assert_eq!(out.len() == 1, (-64..64).contains(&w));
            out.push(9);
            assert_eq!(split_weight(&out), Some((w, &[9][..])));
        }
        assert_eq!(split_weight(&[0x80]), None);
    }
}
