//! Runs one stateful operator: by hand, or at random against its twin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use arrow_schema::SchemaRef;
use millpond_common::{Delta, RelationId, Result};
use millpond_plan::{Node, Operator as PlanOperator, StreamPlan};
use millpond_state::{Entries, StoredTable, Take, Walk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::table::{Row, Rows, accumulate, batch, delta, lines, rows, show};
use crate::operators::expiring::Lifetime;
use crate::operators::{Built, EpochContext, Operator, build, tells_output};

/// A plan of one operator over scans of these columns.
pub fn plan(inputs: &[&SchemaRef], append_only: bool, operator: PlanOperator, schema: &SchemaRef) -> StreamPlan {
    let scan = |(i, schema): (usize, &&SchemaRef)| Node {
        operator: PlanOperator::Scan { relation: RelationId(i as u32), projection: (0..schema.fields().len()).collect() },
        inputs: vec![],
        schema: SchemaRef::clone(schema),
        append_only,
        expires: Vec::new(),
    };
    let mut nodes = inputs.iter().enumerate().map(scan).collect::<Vec<_>>();
    nodes.push(Node {
        operator,
        inputs: (0..inputs.len()).collect(),
        schema: SchemaRef::clone(schema),
        append_only: false,
        expires: Vec::new(),
    });
    StreamPlan { nodes, key: None, append_only: false }
}

/// An operator with what a checkpoint has of its state.
pub struct Run {
    pub plan: StreamPlan,
    operator: Box<dyn Operator>,
    stored: Vec<Stored>,
    epoch: u64,
    /// Where state expires: what time it is.
    pub lifetime: Option<Lifetime>,
}

/// What the last checkpoint has of a state table.
#[derive(Clone, Default)]
struct Stored(Rc<RefCell<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl StoredTable for Stored {
    fn get(&self, keys: &[&[u8]], take: &mut Take<'_>) -> Result<()> {
        let map = self.0.borrow();
        keys.iter().filter_map(|key| map.get_key_value(*key)).try_for_each(|(key, value)| take(key, value))
    }

    fn prefixes(&self, prefixes: &[Vec<u8>], take: &mut Take<'_>) -> Result<()> {
        let map = self.0.borrow();
        prefixes.iter().flat_map(|p| map.iter().filter(|(k, _)| k.starts_with(p))).try_for_each(|(key, value)| take(key, value))
    }

    fn walk(&self, from: &[u8], walk: &mut Walk<'_>) -> Result<bool> {
        for (key, value) in self.0.borrow().range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if walk(key, value)? == ControlFlow::Break(()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn start(plan: &StreamPlan) -> Box<dyn Operator> {
    match build(plan, plan.nodes.len() - 1).unwrap() {
        Built::Stateful(operator) => operator,
        _ => panic!("a stateful operator is expected"),
    }
}

impl Run {
    pub fn new(plan: StreamPlan) -> Self {
        let operator = start(&plan);
        let stored = operator.state().iter().map(|_| Stored::default()).collect();
        let run = Run { plan, operator, stored, epoch: 0, lifetime: None };
        run.attach(false);
        run
    }

    fn attach(&self, partial: bool) {
        for ((_, table), stored) in self.operator.state().iter().zip(&self.stored) {
            table.borrow_mut().attach(Rc::new(stored.clone()), partial);
        }
    }

    pub fn input_schema(&self, port: usize) -> &SchemaRef {
        &self.plan.nodes[port].schema
    }

    pub fn try_step(&mut self, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        self.epoch += 1;
        let context = EpochContext { epoch: self.epoch, first: self.epoch == 1, worker: 0, workers: 1, lifetime: self.lifetime };
        let mut out = Vec::new();
        self.operator.step(inputs, &context, &mut out)?;
        let schema = &self.plan.nodes[self.plan.nodes.len() - 1].schema;
        for d in &out {
            assert_eq!(&d.schema(), schema);
            assert!(!d.is_empty() && d.len() <= 65_536, "batch of {} rows", d.len());
        }
        Ok(out)
    }

    /// One epoch as text; one text per port.
    pub fn step(&mut self, inputs: &[&str]) -> String {
        let inputs = inputs.iter().enumerate().map(|(port, text)| vec![delta(self.input_schema(port), text)]).collect();
        show(&self.try_step(inputs).unwrap())
    }

    /// One epoch of a single-input operator: what goes in and what must come out.
    pub fn expect(&mut self, input: &str, output: &str) {
        assert_eq!(self.step(&[input]), lines(output), "after\n{}", lines(input));
    }

    /// A checkpoint.
    pub fn freeze(&mut self) {
        for ((name, table), stored) in self.operator.state().into_iter().zip(&mut self.stored) {
            let mut entries = Entries::new();
            table.borrow_mut().freeze(&mut entries);
            for (key, value) in entries.iter() {
                match value {
                    Some(value) => drop(stored.0.borrow_mut().insert(key.to_vec(), value.to_vec())),
                    None => drop(stored.0.borrow_mut().remove(key)),
                }
            }
            if !table.borrow().is_partial() {
                assert_eq!(table.borrow().stats().rows, stored.0.borrow().len() as u64, "rows of state table {name}");
            }
        }
    }

    /// A restart from the last checkpoint.
    pub fn restart(&mut self) {
        self.freeze();
        self.operator = start(&self.plan);
        for ((_, table), stored) in self.operator.state().into_iter().zip(&self.stored) {
            stored.0.borrow().iter().try_for_each(|(key, value)| table.borrow_mut().load(key, value)).unwrap();
        }
        self.attach(false);
    }

    /// The same, reading nothing before it is needed.
    fn restart_lazily(&mut self) {
        self.freeze();
        self.operator = start(&self.plan);
        self.attach(true);
    }

    /// A checkpoint, after which some of the state leaves memory; or some of it is read again.
    fn evict_or_warm(&mut self, rng: &mut StdRng) {
        self.freeze();
        for (_, table) in self.operator.state() {
            match rng.random_range(0..3) {
                0 => drop(table.borrow_mut().warm(rng.random_range(1..20)).unwrap()),
                _ => drop(table.borrow_mut().evict(rng.random_range(1..40))),
            }
        }
    }

    /// All of its output so far, as the state of the last checkpoint tells it.
    fn told(&mut self) -> Rows {
        self.freeze();
        let operator = start(&self.plan);
        for ((_, table), stored) in operator.state().into_iter().zip(&self.stored) {
            stored.0.borrow().iter().try_for_each(|(key, value)| table.borrow_mut().load(key, value)).unwrap();
        }
        let context = EpochContext { epoch: self.epoch, first: false, worker: 0, workers: 1, lifetime: None };
        let (mut out, mut told) = (Vec::new(), Rows::new());
        operator.into_output(&context, &mut out).unwrap();
        accumulate(&mut told, out.iter().flat_map(rows));
        told
    }

    /// Bytes of values in the last checkpoint.
    pub fn stored_bytes(&self) -> usize {
        self.stored.iter().map(|stored| stored.0.borrow().values().map(Vec::len).sum::<usize>()).sum()
    }

    /// Entries in a checkpoint made now.
    pub fn state_rows(&mut self) -> u64 {
        self.freeze();
        self.stored.iter().map(|stored| stored.0.borrow().len() as u64).sum()
    }
}

/// Feeds random epochs and compares the accumulated output with what the twin computes from the accumulated input; then the same
/// with state that expires.
pub fn random(seed: u64, plan: StreamPlan, row: impl Fn(usize, &mut StdRng) -> Row, twin: impl Fn(&[Rows]) -> Rows) {
    random_epochs(seed, plan.clone(), &row, &twin, None);
    random_epochs(seed, plan.expiring(), &row, &twin, Some(Expected::default()));
}

/// What is left of the input when state expires, one map a port.
#[derive(Default)]
struct Expected {
    now: u64,
    rows: Vec<Rows>,
    /// Until the end of which step each key was touched.
    touched: Vec<BTreeMap<Row, u64>>,
}

/// How long state lives, in steps of 100.
const TTL: u64 = 1600;

impl Expected {
    fn step(&mut self, plan: &StreamPlan, deltas: &[Vec<Delta>]) {
        let key = |row: &Row| match &plan.nodes[plan.nodes.len() - 1].operator {
            PlanOperator::Aggregate { group, .. } => group.iter().map(|c| row[*c].clone()).collect(),
            _ => row.clone(),
        };
        self.rows.resize(deltas.len(), Rows::new());
        self.touched.resize(deltas.len(), BTreeMap::new());
        for ((rows_left, touched), deltas) in self.rows.iter_mut().zip(&mut self.touched).zip(deltas) {
            let mut net = Rows::new();
            accumulate(&mut net, deltas.iter().flat_map(rows));
            for (row, change) in net {
                // Of a row that has expired there is nothing to be deleted.
                let possible = change.max(-rows_left.get(&row).copied().unwrap_or_default());
                if possible != 0 {
                    touched.insert(key(&row), (self.now / 100 + 1) * 100);
                    accumulate(rows_left, [(row, possible)]);
                }
            }
            touched.retain(|_, at| *at + TTL > self.now);
            rows_left.retain(|row, _| touched.contains_key(&key(row)));
        }
    }
}

fn random_epochs(
    seed: u64,
    plan: StreamPlan,
    row: &impl Fn(usize, &mut StdRng) -> Row,
    twin: &impl Fn(&[Rows]) -> Rows,
    mut expected: Option<Expected>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let ports = plan.nodes.len() - 1;
    let append_only = plan.nodes[0].append_only;
    let mut run = Run::new(plan);
    let (mut input, mut output) = (vec![Rows::new(); ports], Rows::new());
    for epoch in 0..40 {
        let mut deltas = vec![Vec::new(); ports];
        for port in 0..ports {
            for _ in 0..rng.random_range(0..4) {
                let chunk = (0..rng.random_range(0..8)).map(|_| change(&mut input[port], &mut rng, append_only, |r| row(port, r)));
                let chunk = chunk.collect::<Vec<_>>();
                deltas[port].push(batch(run.input_schema(port), &chunk));
            }
            if rng.random_range(0..12) == 0 && !append_only {
                let all = std::mem::take(&mut input[port]).into_iter().map(|(r, w)| (r, -w)).collect::<Vec<_>>();
                deltas[port].push(batch(run.input_schema(port), &all));
            }
        }
        if let Some(expected) = &mut expected {
            // Sometimes nothing happens for a while.
            deltas.iter_mut().filter(|_| rng.random_range(0..3) == 0).for_each(Vec::clear);
            expected.now += rng.random_range(0..TTL / 2);
            expected.step(&run.plan, &deltas);
            run.lifetime = Some(Lifetime { now: expected.now, ttl: Some(TTL) });
        }
        let out = run.try_step(deltas).unwrap();
        accumulate(&mut output, out.iter().flat_map(rows));
        let left = expected.as_ref().map_or(&input, |e| &e.rows);
        assert_eq!(output, twin(left), "seed {seed}, epoch {epoch}, input {left:?}");
        if epoch % 5 == 0 && tells_output(&run.plan, ports) {
            assert_eq!(run.told(), output, "what the state tells, seed {seed}, epoch {epoch}");
        }
        match rng.random_range(0..8) {
            0 => run.freeze(),
            1 => run.restart(),
            2 => run.restart_lazily(),
            3 | 4 => run.evict_or_warm(&mut rng),
            _ => {}
        }
    }
    if !append_only || expected.is_some() {
        // When all input is gone, no state is left, save that of a global aggregate.
        let mut rest = vec![Vec::new(); ports];
        match expected {
            Some(Expected { now, .. }) => run.lifetime = Some(Lifetime { now: now + 2 * TTL, ttl: Some(TTL) }),
            None => {
                for ((port, deltas), rows) in rest.iter_mut().enumerate().zip(&input) {
                    let all = rows.iter().map(|(r, w)| (r.clone(), -w)).collect::<Vec<_>>();
                    deltas.push(batch(run.input_schema(port), &all));
                }
            }
        }
        run.try_step(rest).unwrap();
        let least = u64::from(!twin(&vec![Rows::new(); ports]).is_empty());
        assert_eq!(run.state_rows(), least, "state left, seed {seed}");
        run.restart();
        assert_eq!(run.state_rows(), least, "state left in the checkpoint, seed {seed}");
    }
}

/// One random change, already applied to `held`.
fn change(held: &mut Rows, rng: &mut StdRng, append_only: bool, row: impl Fn(&mut StdRng) -> Row) -> (Row, i64) {
    let insert = append_only || held.is_empty() || rng.random_range(0..5) < 3;
    let (row, weight) = if insert {
        (row(rng), if rng.random_range(0..6) == 0 { rng.random_range(2..4) } else { 1 })
    } else {
        let (row, weight) = held.iter().nth(rng.random_range(0..held.len())).unwrap();
        (row.clone(), -rng.random_range(1..=*weight))
    };
    accumulate(held, [(row.clone(), weight)]);
    (row, weight)
}
