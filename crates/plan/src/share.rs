//! What a query says twice is computed once.

use std::collections::HashMap;

use crate::StreamPlan;

impl StreamPlan {
    /// Nodes that compute the same from the same become one, which has several readers.
    pub fn shared(mut self) -> StreamPlan {
        let fingerprints = self.fingerprints();
        let mut known = HashMap::new();
        let mut places: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut kept = Vec::with_capacity(self.nodes.len());
        for (mut node, fingerprint) in self.nodes.into_iter().zip(fingerprints) {
            node.inputs = node.inputs.iter().filter_map(|i| places.get(*i).copied()).collect();
            let own = kept.len();
            let place = fingerprint.map_or(own, |f| *known.entry(f).or_insert(own));
            if place == own {
                kept.push(node);
            }
            places.push(place);
        }
        self.nodes = kept;
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::replace::tests::plan;

    #[test]
    fn the_same_is_there_once() {
        // A plan; the inputs of each of its nodes afterwards.
        let cases: [(&str, &[&[usize]]); 6] = [
            ("d(t1)", &[&[], &[0]]),
            ("j(t1,t2)", &[&[], &[], &[0, 1]]),
            ("j(t1,t1)", &[&[], &[0, 0]]),
            ("j(d(t1),c(d(t1)))", &[&[], &[0], &[1], &[1, 2]]),
            ("u(d(t1),d(t2))", &[&[], &[0], &[], &[2], &[1, 3]]),
            ("d(d(t1))", &[&[], &[0], &[1]]),
        ];
        for (text, expected) in cases {
            let inputs = plan(text).shared().nodes.into_iter().map(|n| n.inputs).collect::<Vec<_>>();
            assert_eq!(inputs, expected, "{text}");
        }
    }
}
