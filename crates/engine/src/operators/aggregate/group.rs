//! What an aggregate keeps per group.

use millpond_common::Result;
use millpond_state::StateValue;
use serde::{Deserialize, Serialize};

use super::call::{Call, Kind};
use super::float_sum::FloatSum;

/// A group's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// How many input rows it has.
    pub rows: i64,
    /// Whether its output row is out.
    pub shown: bool,
    /// One per call.
    pub slots: Box<[Slot]>,
}

/// A call's state in one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Slot {
    /// Rows or arguments counted.
    Count(i64),
    /// Integers or decimals: the exact sum (decimals by their digits) and how many.
    Exact {
        /// Of all arguments.
        sum: i128,
        /// Arguments that are not NULL.
        count: i64,
    },
    /// Floating-point numbers: their exact sum and how many.
    Float {
        /// Of all arguments.
        sum: Box<FloatSum>,
        /// Arguments that are not NULL.
        count: i64,
    },
    /// The winning argument, encoded.
    Extreme(Option<Box<[u8]>>),
    /// The arguments are in the operator's table of values.
    Values,
}

impl Group {
    /// A group without rows.
    pub fn new(calls: &[Call]) -> Self {
        let slot = |call: &Call| match call.kind {
            Kind::Count => Slot::Count(0),
            Kind::Exact => Slot::Exact { sum: 0, count: 0 },
            Kind::Float => Slot::Float { sum: Box::default(), count: 0 },
            Kind::Extreme => Slot::Extreme(None),
            Kind::Values => Slot::Values,
        };
        Group { rows: 0, shown: false, slots: calls.iter().map(slot).collect() }
    }
}

impl StateValue for Group {
    fn encode(&self, out: &mut Vec<u8>) {
        bincode::serialize_into(out, self).expect("a group has nothing that cannot be written to memory");
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(bincode::deserialize(bytes)?)
    }

    fn bytes(&self) -> usize {
        let heap = |slot: &Slot| match slot {
            Slot::Float { sum, .. } => size_of::<FloatSum>() + sum.heap_bytes(),
            Slot::Extreme(Some(value)) => value.len(),
            _ => 0,
        };
        size_of::<Group>() + self.slots.iter().map(|s| size_of::<Slot>() + heap(s)).sum::<usize>()
    }
}
