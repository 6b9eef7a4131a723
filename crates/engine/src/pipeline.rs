//! Jobs that are connected through a relation form one pipeline: they step together, and pipelines do not wait
//! for each other. Pure functions on the graph of jobs.

use std::collections::{BTreeMap, BTreeSet};

use millpond_common::{JobId, RelationId};

/// What a job reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Edges {
    pub reads: Vec<RelationId>,
    pub writes: RelationId,
}

/// Jobs in an order in which each comes after those that it reads from.
pub(crate) fn upstream_first(jobs: &BTreeMap<JobId, Edges>) -> Vec<JobId> {
    let producers = jobs.iter().map(|(id, e)| (e.writes, *id)).collect::<BTreeMap<_, _>>();
    let mut order = Vec::with_capacity(jobs.len());
    let mut placed = BTreeSet::new();
    // Views can only read older views, so this ends after at most one round per level.
    while order.len() < jobs.len() {
        let before = order.len();
        for (id, edges) in jobs {
            let ready = edges.reads.iter().filter_map(|r| producers.get(r)).all(|p| placed.contains(p));
            if ready && placed.insert(*id) {
                order.push(*id);
            }
        }
        if order.len() == before {
            break;
        }
    }
    order
}

/// For each job, the number of its pipeline.
pub(crate) fn components(jobs: &BTreeMap<JobId, Edges>) -> BTreeMap<JobId, usize> {
    let mut relation_of: BTreeMap<RelationId, usize> = BTreeMap::new();
    let mut parent: Vec<usize> = (0..jobs.len()).collect();
    fn root(parent: &mut [usize], mut at: usize) -> usize {
        while let Some(p) = parent.get(at).copied()
            && p != at
        {
            at = p;
        }
        at
    }
    for (index, edges) in jobs.values().enumerate() {
        for relation in edges.reads.iter().chain([&edges.writes]) {
            match relation_of.get(relation) {
                None => {
                    relation_of.insert(*relation, index);
                }
                Some(other) => {
                    let (a, b) = (root(&mut parent, index), root(&mut parent, *other));
                    if let Some(slot) = parent.get_mut(a) {
                        *slot = b;
                    }
                }
            }
        }
    }
    jobs.keys().enumerate().map(|(index, id)| (*id, root(&mut parent, index))).collect()
}

/// All jobs that read, directly or not, what `from` writes (without `from`).
pub(crate) fn downstream(jobs: &BTreeMap<JobId, Edges>, from: JobId) -> Vec<JobId> {
    let mut found = BTreeSet::from([from]);
    loop {
        let written = found.iter().filter_map(|id| jobs.get(id)).map(|e| e.writes).collect::<BTreeSet<_>>();
        let more = jobs.iter().filter(|(_, e)| e.reads.iter().any(|r| written.contains(r))).map(|(id, _)| *id);
        let before = found.len();
        found.extend(more.collect::<Vec<_>>());
        if found.len() == before {
            found.remove(&from);
            return found.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(list: &[(u32, &[u32], u32)]) -> BTreeMap<JobId, Edges> {
        let edges =
            |reads: &[u32], writes: u32| Edges { reads: reads.iter().map(|r| RelationId(*r)).collect(), writes: RelationId(writes) };
        list.iter().map(|(id, reads, writes)| (JobId(*id), edges(reads, *writes))).collect()
    }

    #[test]
    fn order_components_and_downstream() {
        // 3 reads the view of 7; 5 stands alone; 9 reads a source that 7 reads, too.
        let graph = jobs(&[(3, &[107], 103), (5, &[1], 105), (7, &[2], 107), (9, &[2], 109)]);
        let order = upstream_first(&graph);
        let place = |id| order.iter().position(|j| *j == JobId(id));
        assert_eq!(order.len(), 4);
        assert!(place(7) < place(3));
        let part = components(&graph);
        assert_eq!(part.get(&JobId(3)), part.get(&JobId(9)));
        assert_ne!(part.get(&JobId(3)), part.get(&JobId(5)));
        assert_eq!(downstream(&graph, JobId(7)), vec![JobId(3)]);
        assert!(downstream(&graph, JobId(9)).is_empty());
    }
}
