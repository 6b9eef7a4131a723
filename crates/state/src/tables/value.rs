//! Values that operator state may hold.

use millpond_common::{Error, Result, SqlState};

/// A value of [`KeyedState`](crate::KeyedState) or [`SortedState`](crate::SortedState): knows its stored form.
pub trait StateValue: Sized {
    /// Appends its stored form to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(bytes: &[u8]) -> Result<Self>;
    /// Approximate bytes of memory it holds, itself included.
    fn bytes(&self) -> usize;
}

impl StateValue for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
    fn decode(_bytes: &[u8]) -> Result<Self> {
        Ok(())
    }
    fn bytes(&self) -> usize {
        0
    }
}

impl StateValue for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes
            .try_into()
            .map_err(|_| Error::new(SqlState::DATA_CORRUPTED, format!("stored number has {} bytes instead of 8", bytes.len())))?;
        Ok(i64::from_le_bytes(bytes))
    }
    fn bytes(&self) -> usize {
        size_of::<i64>()
    }
}

impl StateValue for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(bytes.to_vec())
    }
    fn bytes(&self) -> usize {
        size_of::<Vec<u8>>() + self.capacity()
    }
}
