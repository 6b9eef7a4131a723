//! Turns operators into timely operators. A stateful operator's input is stashed by epoch, and the operator acts
//! when the frontier has passed the epoch: that is the aligned barrier, and the operator never sees it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Epoch, Error, Result};
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{InputHandleCore, OutputBuilder};
use timely::dataflow::operators::{Capability, InputCapability};
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use super::chunk::{ByHash, Chunk};
use super::ticks::Lifetimes;
use super::unaligned::{Stash, Traffic};
use crate::job::OperatorStats;
use crate::operators::{self, EpochContext, Operator, Stateless};

/// Rows in an operator's output chunk at most; larger deltas are cut.
const CHUNK_ROWS_MAX: usize = 65_536;

/// Characters of a failing row in an error's detail.
const ROW_TEXT_MAX: usize = 1000;

pub(super) type ChunkStream<'scope> = Stream<'scope, Epoch, Chunk>;

/// A job's first error on this worker; set once, then its operators do nothing more.
#[derive(Clone, Default)]
pub(super) struct Failure(Rc<RefCell<Option<Error>>>);

impl Failure {
    pub fn get(&self) -> Option<Error> {
        self.0.borrow().clone()
    }
    pub fn set(&self, error: Error) {
        self.0.borrow_mut().get_or_insert(error);
    }
    pub fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }
    /// Runs `f` unless the job has failed; an error or a panic fails it.
    pub fn guard(&self, f: impl FnOnce() -> Result<()>) {
        if self.is_set() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.set(error),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string())).unwrap_or_default();
                self.set(Error::internal(format!("an operator panicked: {text}")));
            }
        }
    }
}

/// Reads one port, whatever its pact.
pub(super) type Puller = Box<dyn FnMut(&mut dyn FnMut(InputCapability<Epoch>, Delta))>;

pub(super) fn puller<P>(mut handle: InputHandleCore<Epoch, Chunk, P>, traffic: &Traffic, exchanged: bool) -> Puller
where
    P: timely::communication::Pull<timely::dataflow::channels::Message<Epoch, Chunk>> + 'static,
{
    let traffic = traffic.clone();
    Box::new(move |each| {
        handle.for_each(|capability, chunk| {
            traffic.take(exchanged);
            each(capability, std::mem::take(chunk).0);
        });
    })
}

fn add_port<'scope>(
    builder: &mut OperatorBuilder<'scope, Epoch>,
    stream: ChunkStream<'scope>,
    route: Option<Vec<usize>>,
    workers: usize,
    traffic: &Traffic,
) -> Puller {
    match route {
        Some(columns) if workers > 1 => {
            let by_hash = ByHash { columns, stay: None, traffic: traffic.clone() };
            puller(builder.new_input(stream, DistributorPact(move |_| by_hash)), traffic, true)
        }
        _ => puller(builder.new_input(stream, Pipeline), traffic, false),
    }
}

/// The first epoch that is not complete on any port.
pub(super) fn complete_before(frontiers: &[MutableAntichain<Epoch>]) -> Epoch {
    frontiers.iter().map(|f| f.frontier().first().copied().unwrap_or(Epoch::MAX)).min().unwrap_or(Epoch::MAX)
}

/// Several stateless operators in one: every chunk passes through all of them at once.
pub(super) fn stateless<'scope>(
    scope: Scope<'scope, Epoch>,
    input: ChunkStream<'scope>,
    mut chain: Vec<Box<dyn Stateless>>,
    failure: Failure,
    stats: Arc<OperatorStats>,
    traffic: &Traffic,
) -> ChunkStream<'scope> {
    let mut builder = OperatorBuilder::new(stats.name.clone(), scope);
    let mut port = puller(builder.new_input(input, Pipeline), traffic, false);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<Epoch, NoopBuilder<Chunk>>::from(output);
    builder.build(move |_| {
        move |_: &[MutableAntichain<Epoch>]| {
            let mut session = output.activate();
            port(&mut |capability, delta| {
                let started = Instant::now();
                stats.rows_in.fetch_add(delta.len() as u64, Relaxed);
                let mut deltas = Vec::new();
                failure.guard(|| {
                    deltas = apply(&mut chain, delta.clone()).map_err(|error| with_row(&mut chain, &delta, error))?;
                    Ok(())
                });
                if !failure.is_set() {
                    let mut out = session.session_with_builder(&capability);
                    for delta in deltas.drain(..).filter(|d| !d.is_empty()) {
                        stats.rows_out.fetch_add(delta.len() as u64, Relaxed);
                        out.give_container(&mut Chunk(delta));
                    }
                }
                stats.busy_ns.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
            });
        }
    });
    stream
}

fn apply(chain: &mut [Box<dyn Stateless>], delta: Delta) -> Result<Vec<Delta>> {
    let mut deltas = vec![delta];
    for operator in chain {
        let mut next = Vec::with_capacity(deltas.len());
        for delta in deltas {
            operator.apply(delta, &mut next)?;
        }
        deltas = next;
    }
    Ok(deltas)
}

/// Names the row with which the data makes the operators fail.
fn with_row(chain: &mut [Box<dyn Stateless>], delta: &Delta, error: Error) -> Error {
    if error.state().class() != "22" {
        return error; // perhaps not the row's fault, and then trying again would mislead
    }
    let (mut start, mut rows) = (0, delta.len());
    while rows > 1 {
        let half = rows / 2;
        match apply(chain, delta.slice(start, half)) {
            Err(_) => rows = half,
            Ok(_) => (start, rows) = (start + half, rows - half),
        }
    }
    let value = |column: &arrow::array::ArrayRef| arrow::util::display::array_value_to_string(column, start).unwrap_or_default();
    let row = delta.batch.columns().iter().map(value).collect::<Vec<_>>().join(", ");
    let row = row.chars().take(ROW_TEXT_MAX).collect::<String>();
    let known = error.detail().map(|d| format!("{d} ")).unwrap_or_default();
    error.with_detail(format!("{known}Failing row contains ({row})."))
}

/// All inputs' chunks, under one schema.
pub(super) fn union<'scope>(
    scope: Scope<'scope, Epoch>,
    inputs: Vec<ChunkStream<'scope>>,
    schema: SchemaRef,
    failure: Failure,
    stats: Arc<OperatorStats>,
    traffic: &Traffic,
) -> ChunkStream<'scope> {
    let mut builder = OperatorBuilder::new(stats.name.clone(), scope);
    let mut ports = inputs.into_iter().map(|s| puller(builder.new_input(s, Pipeline), traffic, false)).collect::<Vec<_>>();
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<Epoch, NoopBuilder<Chunk>>::from(output);
    builder.build(move |_| {
        move |_: &[MutableAntichain<Epoch>]| {
            let mut session = output.activate();
            for port in &mut ports {
                port(&mut |capability, delta| {
                    stats.rows_in.fetch_add(delta.len() as u64, Relaxed);
                    stats.rows_out.fetch_add(delta.len() as u64, Relaxed);
                    failure.guard(|| {
                        let delta = operators::union::conform(&schema, delta)?;
                        session.session_with_builder(&capability).give_container(&mut Chunk(delta));
                        Ok(())
                    });
                });
            }
        }
    });
    stream
}

/// What an operator gives, by epoch, for other jobs that read it; `None`: nobody does.
pub(super) type Tapped = Rc<RefCell<Option<BTreeMap<Epoch, Vec<Delta>>>>>;

/// An operator that acts once per epoch. It can move to another dataflow between two epochs.
pub(super) type SharedOperator = Rc<RefCell<Box<dyn Operator>>>;

/// What a stateful operator needs beside its inputs.
pub(super) struct StatefulContext {
    pub failure: Failure,
    pub stats: Arc<OperatorStats>,
    pub tapped: Tapped,
    pub worker: usize,
    pub workers: usize,
    /// The job's first epoch, and whether it starts without state.
    pub from: Epoch,
    pub fresh: bool,
    pub traffic: Traffic,
    /// Input of epochs from `from` on that it has already.
    pub stash: Stash,
}

/// It steps for so long before others have their turn.
const STEPS_TIME_MAX: Duration = Duration::from_millis(5);

/// An operator that acts once per epoch. With `ticks` it acts in every epoch in which these come. `routes[port]`: the columns to exchange by, `None` to stay local.
pub(super) fn stateful<'scope>(
    scope: Scope<'scope, Epoch>,
    inputs: Vec<(ChunkStream<'scope>, Option<Vec<usize>>)>,
    operator: SharedOperator,
    ticks: Option<(ChunkStream<'scope>, Lifetimes)>,
    context: StatefulContext,
) -> (ChunkStream<'scope>, Activator) {
    let StatefulContext { failure, stats, tapped, worker, workers, from, fresh, traffic, stash } = context;
    let mut builder = OperatorBuilder::new(stats.name.clone(), scope);
    let count = inputs.len();
    let mut ports = inputs.into_iter().map(|(s, route)| add_port(&mut builder, s, route, workers, &traffic)).collect::<Vec<_>>();
    let activator = scope.activator_for(builder.operator_info().address);
    let again = activator.clone();
    let (ticks, lifetimes) = ticks.unzip();
    ports.extend(ticks.map(|stream| add_port(&mut builder, stream, None, workers, &traffic)));
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<Epoch, NoopBuilder<Chunk>>::from(output);
    builder.build(move |mut capabilities| {
        let mut held: BTreeMap<Epoch, Capability<Epoch>> = BTreeMap::new();
        // A fresh operator acts in its first epoch even without input (one row of a global aggregate).
        if fresh {
            stash.borrow_mut().insert(from, vec![Vec::new(); count]);
        }
        if let Some(capability) = capabilities.pop() {
            held.extend(stash.borrow().keys().map(|epoch| (*epoch, capability.delayed(epoch))));
        }
        move |frontiers: &[MutableAntichain<Epoch>]| {
            for (at, port) in ports.iter_mut().enumerate() {
                port(&mut |capability, delta| {
                    let epoch = *capability.time();
                    let mut stash = stash.borrow_mut();
                    let inputs = stash.entry(epoch).or_insert_with(|| vec![Vec::new(); count]);
                    held.entry(epoch).or_insert_with(|| capability.retain(0));
                    if let Some(deltas) = inputs.get_mut(at) {
                        deltas.push(delta);
                    }
                });
            }
            let complete = complete_before(frontiers);
            let began = Instant::now();
            while !traffic.is_paused() {
                let first = stash.borrow_mut().first_entry().filter(|e| *e.key() < complete).map(|e| e.remove_entry());
                let Some((epoch, inputs)) = first else { break };
                let Some(capability) = held.remove(&epoch) else { continue };
                let started = Instant::now();
                stats.rows_in.fetch_add(inputs.iter().flatten().map(|d| d.len() as u64).sum(), Relaxed);
                let lifetime = lifetimes.as_ref().and_then(|l| l.get(epoch));
                let context = EpochContext { epoch, first: fresh && epoch == from, worker, workers, lifetime };
                let mut out = Vec::new();
                failure.guard(|| operator.borrow_mut().step(inputs, &context, &mut out));
                if !failure.is_set() {
                    if let Some(tapped) = tapped.borrow_mut().as_mut() {
                        tapped.entry(epoch).or_default().extend(out.iter().cloned());
                    }
                    let mut session = output.activate();
                    let mut session = session.session_with_builder(&capability);
                    for delta in out {
                        stats.rows_out.fetch_add(delta.len() as u64, Relaxed);
                        for start in (0..delta.len()).step_by(CHUNK_ROWS_MAX) {
                            let part = delta.slice(start, CHUNK_ROWS_MAX.min(delta.len() - start));
                            session.give_container(&mut Chunk(part));
                        }
                    }
                }
                stats.busy_ns.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
                if began.elapsed() > STEPS_TIME_MAX {
                    again.activate();
                    break;
                }
            }
        }
    });
    (stream, activator)
}

/// A job's end on this worker: its output by epoch, and which epochs are whole.
#[derive(Clone, Default)]
pub(super) struct Export {
    deltas: Rc<RefCell<BTreeMap<Epoch, Vec<Delta>>>>,
    complete: Rc<Cell<Epoch>>,
}

impl Export {
    /// Whether all of the epoch's output is here.
    pub fn is_complete(&self, epoch: Epoch) -> bool {
        self.open() > epoch
    }

    /// The first epoch that is not complete.
    pub fn open(&self) -> Epoch {
        self.complete.get()
    }

    /// What has not been taken.
    pub fn waiting(&self) -> Vec<(Epoch, Delta)> {
        self.deltas.borrow().iter().flat_map(|(epoch, deltas)| deltas.iter().map(|d| (*epoch, d.clone()))).collect()
    }

    /// Output that it had before.
    pub fn put(&self, epoch: Epoch, delta: Delta) {
        self.deltas.borrow_mut().entry(epoch).or_default().push(delta);
    }

    /// Takes the epoch's output.
    pub fn take(&self, epoch: Epoch) -> Vec<Delta> {
        self.deltas.borrow_mut().remove(&epoch).unwrap_or_default()
    }
}

/// Collects a job's output.
pub(super) fn export<'scope>(scope: Scope<'scope, Epoch>, input: ChunkStream<'scope>, name: String, traffic: &Traffic) -> Export {
    let export = Export::default();
    let Export { deltas, complete } = export.clone();
    let mut builder = OperatorBuilder::new(name, scope);
    let mut port = puller(builder.new_input(input, Pipeline), traffic, false);
    builder.set_notify_for(0, FrontierInterest::Always);
    builder.build(move |_| {
        move |frontiers: &[MutableAntichain<Epoch>]| {
            port(&mut |capability, delta| deltas.borrow_mut().entry(*capability.time()).or_default().push(delta));
            complete.set(complete_before(frontiers));
        }
    });
    export
}
