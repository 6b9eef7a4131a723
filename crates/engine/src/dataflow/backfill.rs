//! How a new job gets the rows that a table or view already holds: some in every epoch, in key order, each worker those of
//! its virtual nodes.
//!
//! Changes come to the worker that owns their key. In an epoch the operator reads the next rows from a view of the newest
//! complete epoch, which is a few epochs older than its own; so it remembers the changes of these few, and takes those of
//! the rows it has just read. Of its own epoch it takes the changes of all keys that it has passed. Changes of later keys
//! are forgotten as soon as a view shows them. So at the end of every epoch the job has had exactly what the relation holds
//! in the keys that were passed: where the reader stands is all that a checkpoint needs to know to go on from there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use millpond_common::ids::lane_of;
use millpond_common::{Delta, Epoch, RelationId, RelationSpec, Result};
use millpond_state::{KeySplitter, ReadView, Unread};
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::adapter::{ChunkStream, Failure, complete_before, puller};
use super::chunk::{ByHash, Chunk};
use super::unaligned::Traffic;
use crate::job::OperatorStats;

/// What to read in an epoch.
pub(super) struct Order {
    /// Of an epoch before it.
    pub view: ReadView,
    pub rows_max: usize,
}

/// A scan's backfill on this worker, shared by the operator and the worker's loop.
#[derive(Clone)]
pub(super) struct Backfill(Rc<Shared>);

struct Shared {
    orders: RefCell<BTreeMap<Epoch, Order>>,
    unread: RefCell<Unread>,
    rows: Cell<u64>,
    /// The epoch in which the last row was read.
    ended: Cell<Option<Epoch>>,
    /// All workers' parts of the job have ended: rows may stay where they are.
    level: Rc<Cell<bool>>,
}

impl Backfill {
    pub fn new(unread: Unread) -> Self {
        let ended = Cell::new(unread.is_empty().then_some(0));
        let (orders, unread) = (RefCell::default(), RefCell::new(unread));
        Backfill(Rc::new(Shared { orders, unread, rows: Cell::new(0), ended, level: Rc::default() }))
    }

    /// Says what to read in an epoch whose input is still to come.
    pub fn order(&self, epoch: Epoch, order: Order) {
        if !self.is_over() {
            self.0.orders.borrow_mut().insert(epoch, order);
        }
    }

    /// Rows that it has read.
    pub fn rows(&self) -> u64 {
        self.0.rows.get()
    }

    /// What it has not read.
    pub fn unread(&self) -> Unread {
        self.0.unread.borrow().clone()
    }

    /// Whether it has read all in some epoch.
    pub fn is_over(&self) -> bool {
        self.0.ended.get().is_some()
    }

    /// Whether it has read all when `epoch` is complete: a later one may be on its way already.
    pub fn has_ended(&self, epoch: Epoch) -> bool {
        self.0.ended.get().is_some_and(|e| e <= epoch)
    }

    /// All workers have ended.
    pub fn set_level(&self) {
        self.0.level.set(true);
    }
}

/// What a scan reads.
pub(super) struct Target {
    pub spec: RelationSpec,
    pub projection: Vec<usize>,
    pub schema: arrow_schema::SchemaRef,
}

impl Target {
    fn project(&self, delta: &Delta) -> Result<Delta> {
        Ok(delta.project(&self.projection)?.with_schema(Arc::clone(&self.schema))?)
    }
}

/// The operator's part.
struct Reading {
    relation: RelationId,
    splitter: KeySplitter,
    /// Changes of unread keys that no view showed when they came.
    recent: Vec<(Epoch, Delta)>,
}

impl Reading {
    /// One epoch: what of its changes the job gets, and the rows that are read now.
    fn step(&mut self, shared: &Shared, epoch: Epoch, changes: Vec<Delta>) -> Result<Vec<Delta>> {
        let mut unread = shared.unread.borrow_mut();
        let mut out = Vec::new();
        if let Some(Order { view, rows_max }) = shared.orders.borrow_mut().remove(&epoch) {
            let seen = view.epoch();
            self.recent.retain(|(of, _)| *of > seen);
            out = view.read_part(self.relation, &mut unread, rows_max)?;
            shared.rows.set(shared.rows.get() + out.iter().map(|d| d.len() as u64).sum::<u64>());
        }
        self.recent.extend(changes.into_iter().map(|delta| (epoch, delta)));
        for (of, delta) in std::mem::take(&mut self.recent) {
            let (passed, later) = self.splitter.split(delta, &unread)?;
            out.extend((!passed.is_empty()).then_some(passed));
            self.recent.extend((!later.is_empty()).then_some((of, later)));
        }
        if unread.is_empty() {
            shared.ended.set(Some(epoch));
            shared.orders.borrow_mut().clear();
        }
        Ok(out)
    }
}

/// The operator behind a scan's input, whose chunks have all columns. Where everything has been read it only projects.
pub(super) fn backfill<'scope>(
    scope: Scope<'scope, Epoch>,
    input: ChunkStream<'scope>,
    target: Target,
    handle: &Backfill,
    (from, worker, workers): (Epoch, usize, usize),
    (failure, stats, traffic): (Failure, Arc<OperatorStats>, Traffic),
) -> ChunkStream<'scope> {
    let shared = Rc::clone(&handle.0);
    let mut builder = OperatorBuilder::new(format!("backfill {}", stats.name), scope);
    let by_key = ByHash { columns: target.spec.key_columns(), stay: Some((Rc::clone(&shared.level), worker)), traffic: traffic.clone() };
    // Rows that were added to a relation that only grows were added by this worker, in its lane.
    let stay = workers == 1 || target.spec.appended;
    let mut port = match stay {
        true => puller(builder.new_input(input, timely::dataflow::channels::pact::Pipeline), &traffic, false),
        false => puller(builder.new_input(input, DistributorPact(move |_| by_key)), &traffic, true),
    };
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<Epoch, NoopBuilder<Chunk>>::from(output);
    let mut reading = None;
    failure.guard(|| {
        let splitter = KeySplitter::new(target.spec.clone(), lane_of(worker, workers))?;
        reading = Some(Reading { relation: target.spec.id, splitter, recent: vec![] });
        Ok(())
    });
    builder.build(move |mut capabilities| {
        // Held as long as there is something to read: what is read in an epoch belongs to it.
        let mut capability = capabilities.pop().map(|c| c.delayed(&from)).filter(|_| reading.is_some() && shared.ended.get().is_none());
        let mut stash: BTreeMap<Epoch, Vec<Delta>> = BTreeMap::new();
        move |frontiers: &[MutableAntichain<Epoch>]| {
            let mut session = output.activate();
            let project = |delta: &Delta| {
                let mut projected = None;
                failure.guard(|| {
                    stats.rows_out.fetch_add(delta.len() as u64, Relaxed);
                    projected = Some(target.project(delta)?);
                    Ok(())
                });
                projected
            };
            port(&mut |arrived, delta| match &capability {
                Some(_) => stash.entry(*arrived.time()).or_default().push(delta),
                None => {
                    if let Some(delta) = project(&delta) {
                        session.session_with_builder(&arrived).give_container(&mut Chunk(delta));
                    }
                }
            });
            let (Some(held), Some(reading)) = (&mut capability, &mut reading) else { return };
            let started = Instant::now();
            let complete = complete_before(frontiers);
            while shared.ended.get().is_none() {
                let ordered = shared.orders.borrow().first_key_value().map(|(e, _)| *e);
                let next = stash.first_key_value().map(|(e, _)| *e).into_iter().chain(ordered).min();
                let Some(epoch) = next.filter(|e| *e < complete) else { break };
                let changes = stash.remove(&epoch).unwrap_or_default();
                let mut rows = Vec::new();
                failure.guard(|| {
                    rows = reading.step(&shared, epoch, changes)?;
                    Ok(())
                });
                if failure.is_set() {
                    shared.orders.borrow_mut().clear();
                }
                let now = held.delayed(&epoch);
                for delta in rows.iter().filter_map(project) {
                    session.session_with_builder(&now).give_container(&mut Chunk(delta));
                }
            }
            if shared.ended.get().is_some() || complete == Epoch::MAX {
                for (epoch, deltas) in std::mem::take(&mut stash) {
                    let then = held.delayed(&epoch);
                    for delta in deltas.iter().filter_map(project) {
                        session.session_with_builder(&then).give_container(&mut Chunk(delta));
                    }
                }
                capability = None;
            } else if complete > *held.time() {
                held.downgrade(&complete);
            }
            stats.busy_ns.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
        }
    });
    stream
}

/// What of `unread` this worker reads.
pub(super) fn share(unread: Option<&Unread>, vnodes: &Range<usize>) -> Unread {
    unread.map_or_else(|| Unread::all(vnodes.clone()), |u| u.within(vnodes))
}
