//! What a view's new plan takes over from its old one.

use millpond_common::RelationId;

use crate::{Node, Operator, StreamPlan};

/// For each node of a new plan, the node of the old plan whose state it goes on with.
pub type Kept = Vec<Option<usize>>;

/// The part of a new plan that has to be computed anew.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Its nodes alone. Where it reads what a kept operator gives, it scans a relation that stands for that operator.
    pub plan: StreamPlan,
    /// Where each of its nodes is in the new plan.
    pub places: Vec<usize>,
    /// The relations that stand for kept operators, each with the operator's node in the old plan.
    pub taps: Vec<(RelationId, usize)>,
}

impl StreamPlan {
    /// Has joins store rows in the form in which those of `old` do, so that they can go on with them.
    pub fn store_as(&mut self, old: &StreamPlan) {
        let numbers = |n: &Node| matches!(n.operator, Operator::Join { numbered: true, .. });
        let joins = |plan: &StreamPlan| plan.nodes.iter().any(|n| matches!(n.operator, Operator::Join { .. }));
        let old_form = joins(old) && !old.nodes.iter().any(numbers);
        for node in self.nodes.iter_mut().filter(|_| old_form) {
            if let Operator::Join { numbered, .. } = &mut node.operator {
                *numbered = false;
            }
        }
    }

    /// Which operators of this plan can go on with the state of an operator of `old`: those that compute the same from the same.
    /// A node whose output is needed anew must be one that `tells` what its state amounts to.
    pub fn keep_from(&self, old: &StreamPlan, tells: &dyn Fn(usize) -> bool) -> Kept {
        let mut search = Search {
            new: self,
            old,
            fingerprints: [self.fingerprints(), old.fingerprints()],
            kept: vec![None; self.nodes.len()],
            taken: vec![false; old.nodes.len()],
        };
        if let Some(root) = self.nodes.len().checked_sub(1) {
            search.visit(root, tells);
        }
        let kept = search.kept;
        // A node may have several readers; if one of them is computed anew, the node's output is needed anew.
        let tapped = self.tapped(&kept);
        if tapped.iter().all(|at| tells(*at)) { kept } else { vec![None; self.nodes.len()] }
    }

    /// Kept stateful nodes with a reader that is computed anew.
    fn tapped(&self, kept: &Kept) -> Vec<usize> {
        let is_kept = |at: usize| kept.get(at).is_some_and(Option::is_some);
        let is_tapped = |at: &usize| {
            let stateful = self.nodes.get(*at).is_some_and(|n| n.operator.is_stateful());
            let is_root = *at + 1 == self.nodes.len();
            let read = self.nodes.iter().enumerate().any(|(reader, n)| n.inputs.contains(at) && !is_kept(reader));
            stateful && is_kept(*at) && (is_root || read)
        };
        (0..self.nodes.len()).filter(is_tapped).collect()
    }

    /// What is left to compute. The view's rows are always computed anew, if only from a kept operator's.
    pub fn rest(&self, kept: &Kept) -> Rest {
        let is_kept = |at: usize| kept.get(at).copied().flatten().filter(|_| self.nodes.get(at).is_some_and(|n| n.operator.is_stateful()));
        let mut needed = vec![false; self.nodes.len()];
        if let Some(root) = needed.last_mut() {
            *root = true;
        }
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if needed.get(at).copied().unwrap_or_default() && is_kept(at).is_none() {
                node.inputs.iter().for_each(|i| needed.get_mut(*i).into_iter().for_each(|n| *n = true));
            }
        }
        let (mut nodes, mut places, mut taps): (Vec<Node>, Vec<usize>, Vec<_>) = (Vec::new(), Vec::new(), Vec::new());
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| needed.get(*at).copied().unwrap_or_default()) {
            let mut node = node.clone();
            match is_kept(at) {
                Some(old) => {
                    // No relation of the catalog has such a number.
                    let relation = RelationId(u32::MAX - taps.len() as u32);
                    taps.push((relation, old));
                    let projection = (0..node.schema.fields().len()).collect();
                    (node.operator, node.inputs, node.expires) = (Operator::Scan { relation, projection }, Vec::new(), Vec::new());
                }
                None => node.inputs = node.inputs.iter().filter_map(|i| places.iter().position(|p| p == i)).collect(),
            }
            nodes.push(node);
            places.push(at);
        }
        Rest { plan: StreamPlan { nodes, key: self.key.clone(), append_only: self.append_only }, places, taps }
    }
}

struct Search<'a> {
    new: &'a StreamPlan,
    old: &'a StreamPlan,
    fingerprints: [Vec<Option<u64>>; 2],
    kept: Kept,
    /// Nodes of the old plan that somebody goes on with.
    taken: Vec<bool>,
}

impl Search<'_> {
    fn same(&self, new: usize, old: usize) -> bool {
        let [of_new, of_old] = &self.fingerprints;
        let found = of_new.get(new).copied().flatten();
        found.is_some() && found == of_old.get(old).copied().flatten()
    }

    /// From the root down: the highest operators that can be kept, each with all that is below it.
    fn visit(&mut self, at: usize, tells: &dyn Fn(usize) -> bool) {
        let Some(node) = self.new.nodes.get(at).filter(|_| self.kept.get(at).is_some_and(Option::is_none)) else { return };
        if node.operator.is_stateful() && tells(at) {
            let same = (0..self.old.nodes.len()).filter(|old| self.same(at, *old)).collect::<Vec<_>>();
            for old in same {
                let (kept, taken) = (self.kept.clone(), self.taken.clone());
                if self.take(at, old) {
                    return;
                }
                (self.kept, self.taken) = (kept, taken);
            }
        }
        for input in node.inputs.clone() {
            self.visit(input, tells);
        }
    }

    /// Takes an old node with all that is below it; fails if some of that is taken already.
    fn take(&mut self, new: usize, old: usize) -> bool {
        let (Some(here), Some(there)) = (self.new.nodes.get(new), self.old.nodes.get(old)) else { return false };
        match (self.kept.get_mut(new), self.taken.get_mut(old)) {
            (Some(Some(known)), _) => return *known == old,
            (Some(slot), Some(taken)) if !*taken => (*slot, *taken) = (Some(old), true),
            _ => return false,
        }
        let pairs = here.inputs.iter().copied().zip(there.inputs.iter().copied()).collect::<Vec<_>>();
        here.inputs.len() == there.inputs.len() && pairs.into_iter().all(|(new, old)| self.same(new, old) && self.take(new, old))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow_schema::{DataType, Field, Schema};

    use super::*;
    use crate::{AggregateCall, AggregateFunction, JoinKind};

    /// Trees in few letters: `t1` a scan of relation 1, `v` constants, `d(…)` distinct, `c(…)` a count, `j(…,…)` a join,
    /// `u(…,…)` a union.
    pub(crate) fn plan(text: &str) -> StreamPlan {
        let mut nodes = Vec::new();
        let mut rest = text.as_bytes();
        parse(&mut rest, &mut nodes);
        assert!(rest.is_empty(), "{text}");
        StreamPlan { nodes, key: None, append_only: false }
    }

    fn parse(text: &mut &[u8], nodes: &mut Vec<Node>) -> usize {
        let word = text[0];
        *text = &text[1..];
        let mut inputs = Vec::new();
        let operator = match word {
            b't' => {
                let relation = RelationId(u32::from(text[0] - b'0'));
                *text = &text[1..];
                Operator::Scan { relation, projection: vec![0] }
            }
            b'v' => Operator::Values { ipc: Vec::new() },
            b'd' => Operator::Distinct,
            b'c' => {
                let call = AggregateCall { function: AggregateFunction::Count, argument: None, distinct: false, filter: None };
                Operator::Aggregate { group: vec![], calls: vec![call] }
            }
            b'j' => Operator::Join { kind: JoinKind::Inner, on: vec![(0, 0)], null_equals_null: false, filter: None, numbered: true },
            _ => Operator::Union,
        };
        if text.first() == Some(&b'(') {
            while text[0] != b')' {
                *text = &text[1..];
                inputs.push(parse(text, nodes));
            }
            *text = &text[1..];
        }
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        nodes.push(Node { operator, inputs, schema, append_only: false, expires: Vec::new() });
        nodes.len() - 1
    }

    #[test]
    fn what_computes_the_same_is_kept() {
        // New plan; old plan; for each of its nodes (inputs first) the old node that is kept; scans of what is left.
        let cases = [
            ("d(t1)", "d(t1)", "01", "T"),
            ("c(d(t1))", "d(t1)", "01.", "T"),
            ("d(t2)", "d(t1)", "..", "2"),
            ("c(d(t1))", "d(d(t1))", "01.", "T"),
            ("j(d(t1),t2)", "d(t1)", "01..", "T2"),
            ("j(t1,t2)", "j(t1,t2)", "012", "T"),
            ("j(t2,t1)", "j(t1,t2)", "...", "21"),
            // One state cannot go on as two.
            ("u(d(t1),d(t1))", "d(t1)", "01...", "T1"),
            ("u(d(t1),d(t1))", "u(d(t1),d(t1))", "0123.", "TT"),
            ("u(c(d(t1)),d(t1))", "c(d(t1))", "012...", "T1"),
        ];
        for (new, old, expected, scans) in cases {
            let (new_plan, old_plan) = (plan(new), plan(old));
            let kept = new_plan.keep_from(&old_plan, &|_| true);
            let shown = kept.iter().map(|k| k.map_or('.', |at| char::from(b'0' + at as u8))).collect::<String>();
            assert_eq!(shown, expected, "{new} after {old}");
            let rest = new_plan.rest(&kept);
            let scan = |n: &Node| match n.operator {
                Operator::Scan { relation, .. } if relation.0 < 10 => Some(char::from(b'0' + relation.0 as u8)),
                Operator::Scan { .. } => Some('T'),
                _ => None,
            };
            assert_eq!(rest.plan.nodes.iter().filter_map(scan).collect::<String>(), scans, "{new} after {old}");
            assert_eq!(rest.places.last(), Some(&(new_plan.nodes.len() - 1)));
        }
    }

    #[test]
    fn joins_go_on_with_rows_that_have_no_numbers() {
        let json = serde_json::to_string(&plan("j(t1,t2)")).unwrap();
        let old: StreamPlan = serde_json::from_str(&json.replace(",\"numbered\":true", "")).unwrap();
        let mut new = plan("c(j(t1,t2))");
        assert_eq!(new.keep_from(&old, &|_| true), [None; 4]);
        new.store_as(&old);
        assert_eq!(new.keep_from(&old, &|_| true), [Some(0), Some(1), Some(2), None]);
        assert!(!serde_json::to_string(&new).unwrap().contains("numbered"));
        let mut new = plan("j(t1,t2)");
        for text in ["d(t1)", "j(t1,t2)"] {
            new.store_as(&plan(text));
            assert_eq!(serde_json::to_string(&new).unwrap(), json);
        }
    }

    #[test]
    fn what_cannot_tell_its_output_is_kept_only_below_one_that_can() {
        let kept = |new: &str, silent: usize| plan(new).keep_from(&plan("c(d(t1))"), &|at| at != silent);
        assert_eq!(kept("c(d(t1))", 1), vec![Some(0), Some(1), Some(2)]);
        assert_eq!(kept("d(d(t1))", 1), vec![None, None, None]);
        assert_eq!(kept("c(d(t1))", 2), vec![Some(0), Some(1), None]);
    }
}
