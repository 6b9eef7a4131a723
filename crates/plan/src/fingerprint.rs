//! Operators are recognised across restarts and replaced queries by their structure, never by the order in
//! which a planner happened to visit them.

use millpond_common::hash::{hash_bytes, mix};

use crate::{Operator, StreamPlan};

impl StreamPlan {
    /// For each node a number that depends only on what it computes and on its inputs' numbers: two nodes with the same one hold
    /// the same state. `None`: what it computes has no stored form to compare.
    pub fn fingerprints(&self) -> Vec<Option<u64>> {
        let mut all: Vec<Option<u64>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let own = match &node.operator {
                // Output columns' names do not matter; their types follow.
                Operator::Project { exprs } => {
                    exprs.iter().try_fold(1, |h, e| Some(mix(h ^ hash_bytes(&e.to_bytes().ok()?)).rotate_left(7)))
                }
                other => bincode::serialize(other).ok().map(|bytes| hash_bytes(&bytes)),
            };
            let tag = hash_bytes(format!("{:?} {:?}", std::mem::discriminant(&node.operator), node.expires).as_bytes());
            let tag = tag ^ u64::from(node.append_only);
            let types =
                node.schema.fields().iter().fold(tag, |h, f| mix(h.rotate_left(7) ^ hash_bytes(f.data_type().to_string().as_bytes())));
            let whole = node.inputs.iter().try_fold(mix(own.unwrap_or_default() ^ types), |h, input| {
                let input = all.get(*input).copied().flatten()?;
                Some(mix(h.rotate_left(7) ^ input))
            });
            all.push(whole.filter(|_| own.is_some()));
        }
        all
    }
}
