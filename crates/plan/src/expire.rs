//! Which state is forgotten in a view with a `state_ttl`.

use crate::{Operator, StreamPlan};

impl StreamPlan {
    /// The plan of a view whose state expires: what operators remember of each input does, unless the input is constant.
    /// As they take back what they have given, nothing behind them only ever grows.
    pub fn expiring(mut self) -> StreamPlan {
        // By node: whether it is made of constants alone, and whether its output only ever grows.
        let mut known: Vec<(bool, bool)> = Vec::with_capacity(self.nodes.len());
        for node in &mut self.nodes {
            let inputs = node.inputs.iter().map(|i| known.get(*i).copied().unwrap_or_default()).collect::<Vec<_>>();
            let is_constant = !matches!(node.operator, Operator::Scan { .. }) && inputs.iter().all(|(constant, _)| *constant);
            if node.operator.is_stateful() {
                node.expires = (0..inputs.len()).filter(|port| inputs.get(*port).is_some_and(|(constant, _)| !constant)).collect();
            }
            node.append_only &= node.expires.is_empty() && inputs.iter().all(|(_, grows)| *grows);
            known.push((is_constant, node.append_only));
        }
        self.append_only &= known.last().is_some_and(|(_, grows)| *grows);
        self
    }

    /// Whether some of its state expires.
    pub fn expires(&self) -> bool {
        self.nodes.iter().any(|n| !n.expires.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use crate::StreamPlan;
    use crate::replace::tests::plan;

    fn expires(plan: &StreamPlan) -> Vec<Vec<usize>> {
        plan.nodes.iter().map(|n| n.expires.clone()).collect()
    }

    #[test]
    fn what_remembers_something_that_changes_forgets_it() {
        let cases: [(&str, &[&[usize]]); 4] = [
            ("d(t1)", &[&[], &[0]]),
            ("j(t1,t2)", &[&[], &[], &[0, 1]]),
            // A constant does not go.
            ("j(t1,d(v))", &[&[], &[], &[], &[0]]),
            ("u(t1,d(t2))", &[&[], &[], &[0], &[]]),
        ];
        for (text, expected) in cases {
            let before = plan(text);
            assert!(!before.expires());
            assert_eq!(expires(&before.expiring()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_taken_back_is_not_append_only() {
        let mut before = plan("u(t1,d(t2))");
        before.nodes.iter_mut().for_each(|n| n.append_only = true);
        before.append_only = true;
        let after = before.expiring();
        assert_eq!(after.nodes.iter().map(|n| n.append_only).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(!after.append_only);
    }
}
