//! When keys were touched last, and which of them have not been for too long.

use std::cell::RefCell;
use std::ops::{Bound, Range};
use std::rc::Rc;

use millpond_common::{Error, Result, SqlState};
use millpond_state::{KeyedState, SortedState, StateTable, StateValue};

use super::super::StateHandle;

/// Milliseconds since 1970.
pub type Time = u64;

/// An index of keys by the time of their last touch. A touch writes only what is kept for its key; the list by time still has
/// the key under an earlier time then, and is put right when that time comes.
#[derive(Default)]
pub struct Touched {
    keys: Rc<RefCell<KeyedState<Touch>>>,
    /// Virtual node, time, key without its virtual node: each key once, not later than it was touched.
    times: Rc<RefCell<SortedState<()>>>,
}

/// What is kept for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touch {
    /// When it was touched.
    at: Time,
    /// Under which time it is listed.
    listed: Time,
    /// How many rows it has.
    rows: i64,
}

impl StateValue for Touch {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.at.to_le_bytes(), self.listed.to_le_bytes(), self.rows.to_le_bytes()] {
            out.extend_from_slice(&number);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.as_chunks::<8>() {
            ([at, listed, rows], []) => {
                Ok(Touch { at: Time::from_le_bytes(*at), listed: Time::from_le_bytes(*listed), rows: i64::from_le_bytes(*rows) })
            }
            _ => Err(Error::new(SqlState::DATA_CORRUPTED, format!("a stored time has {} bytes instead of 24", bytes.len()))),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Touch>()
    }
}

/// Where a key is listed.
fn place(key: &[u8], time: Time) -> Vec<u8> {
    let (vnode, rest) = key.split_at(key.len().min(1));
    [vnode, &time.to_be_bytes(), rest].concat()
}

impl Touched {
    /// Its tables.
    pub fn state(&self) -> [(&'static str, StateHandle); 2] {
        [("touched", Rc::clone(&self.keys) as StateHandle), ("times", Rc::clone(&self.times) as StateHandle)]
    }

    /// Whether there may be keys.
    pub fn has_keys(&self) -> bool {
        let keys = self.keys.borrow();
        !keys.is_empty() || keys.is_partial()
    }

    /// Has what is known of these keys in memory.
    pub fn fetch<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<()> {
        self.keys.borrow_mut().fetch(keys)
    }

    /// How many rows a key has, which has been fetched.
    pub fn rows(&self, key: &[u8]) -> i64 {
        self.keys.borrow().get(key).map_or(0, |touch| touch.rows)
    }

    /// A key that has been fetched is touched, and has so many more rows; without rows it is forgotten.
    pub fn touch(&self, key: &[u8], more: i64, at: Time) -> Result<()> {
        let (mut keys, mut times) = (self.keys.borrow_mut(), self.times.borrow_mut());
        match keys.get(key).copied() {
            Some(touch) if touch.rows + more == 0 => {
                let place = place(key, touch.listed);
                times.fetch([place.as_slice()])?;
                times.remove(&place);
                keys.remove(key);
            }
            Some(touch) if touch.at == at && more == 0 => {}
            Some(touch) => drop(keys.insert(key, Touch { at: at.max(touch.at), rows: touch.rows + more, ..touch })),
            None => {
                let place = place(key, at);
                times.fetch([place.as_slice()])?;
                times.insert(&place, ());
                keys.insert(key, Touch { at, listed: at, rows: more });
            }
        }
        Ok(())
    }

    /// Takes out the keys that have not been touched after `last`, each with its number of rows.
    pub fn take(&self, last: Time, vnodes: Range<usize>) -> Result<Vec<(Vec<u8>, i64)>> {
        let (mut keys, mut times) = (self.keys.borrow_mut(), self.times.borrow_mut());
        let mut taken = Vec::new();
        for vnode in vnodes {
            let (from, to) = ([vnode as u8], place(&[vnode as u8], last + 1));
            times.fetch_between(&from, Some(to.as_slice()))?;
            let listed = times.between(Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
            let listed = listed.map(|(place, ())| (place.to_vec(), [&place[..1], &place[9..]].concat())).collect::<Vec<_>>();
            keys.fetch(listed.iter().map(|(_, key)| key.as_slice()))?;
            for (old, key) in listed {
                times.remove(&old);
                match keys.get(&key).copied() {
                    Some(touch) if touch.at > last => {
                        let place = place(&key, touch.at);
                        times.fetch([place.as_slice()])?;
                        times.insert(&place, ());
                        keys.insert(&key, Touch { listed: touch.at, ..touch });
                    }
                    Some(touch) => {
                        keys.remove(&key);
                        taken.push((key, touch.rows));
                    }
                    None => {}
                }
            }
        }
        Ok(taken)
    }
}
