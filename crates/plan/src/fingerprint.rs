//! Operators are recognised across restarts and replaced queries by their structure, never by the order in
//! which a planner happened to visit them.

use millpond_common::hash::{hash_bytes, mix};

use crate::{Operator, StreamPlan};

impl StreamPlan {
    /// A number for the node at `at` that depends only on what it computes and on its inputs' numbers.
    /// Two nodes with the same fingerprint over the same relations hold the same state.
    pub fn fingerprint(&self, at: usize) -> u64 {
        let Some(node) = self.nodes.get(at) else { return 0 };
        let own = match &node.operator {
            // The schema carries names; only types matter for state.
            Operator::Project { exprs } => exprs.iter().fold(1, |h, e| mix(h ^ hash_bytes(&e.to_bytes().unwrap_or_default()))),
            other => hash_bytes(&bincode::serialize(other).unwrap_or_default()),
        };
        let kind = std::mem::discriminant(&node.operator);
        let types = node.schema.fields().iter().fold(0, |h, f| mix(h ^ hash_bytes(f.data_type().to_string().as_bytes())));
        let tag = hash_bytes(format!("{kind:?}").as_bytes());
        node.inputs.iter().fold(mix(own ^ types ^ tag), |h, input| mix(h.rotate_left(7) ^ self.fingerprint(*input)))
    }
}
