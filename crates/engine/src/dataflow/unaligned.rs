//! A worker's part of an unaligned checkpoint, which does not wait until slow operators have worked off their queues.
//!
//! At the barrier of epoch e every worker pauses: stateful operators only take input into their stashes, and nothing is
//! published. Chunks between operators run on into the next stash. Each worker tells the clock how many chunks it has sent to
//! whom and how many it has got, as often as that changes while none is on its way within the worker; when these figures
//! agree, no chunk is on its way at all, and none can start. Then the clock has all workers seal: the state of every operator
//! as of the last epoch that it has stepped, and what waits in stashes and before the export, which are epochs up to e. When
//! all have, they go on. A slow operator delays this by the step that it is in. (Chains of stateless operators do not pause:
//! what they have got passes through.)
//!
//! What is committed with that are the relations as of the newest epoch that readers saw, v; the log up to there; the stashes;
//! and the views' changes of later epochs that some workers had published. A start makes the epochs v+1 to e again, with the
//! stashes as their only input: operators that were ahead have nothing in them, the others go on where they were. So epochs
//! become visible one after another, each as it would have been, and sessions are let in when e is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use millpond_common::{Delta, Epoch};

use super::chunk::owners;
use crate::stash::{Place, Stashed};

/// What the operators of a worker know of each other's chunks.
#[derive(Clone)]
pub(super) struct Traffic(Rc<Counters>);

struct Counters {
    paused: Cell<bool>,
    /// Chunks that any operator has taken.
    taken: Cell<u64>,
    /// Chunks given to exchanges, by receiver, and taken from them.
    sent: RefCell<Vec<u64>>,
    received: Cell<u64>,
}

impl Traffic {
    pub fn new(workers: usize) -> Self {
        let sent = RefCell::new(vec![0; workers]);
        Traffic(Rc::new(Counters { paused: Cell::new(false), taken: Cell::new(0), sent, received: Cell::new(0) }))
    }

    pub fn pause(&self, paused: bool) {
        self.0.paused.set(paused);
    }

    pub fn is_paused(&self) -> bool {
        self.0.paused.get()
    }

    /// An exchange sends a chunk.
    pub fn send(&self, to: usize) {
        if let Some(count) = self.0.sent.borrow_mut().get_mut(to) {
            *count += 1;
        }
    }

    /// An operator takes a chunk.
    pub fn take(&self, exchanged: bool) {
        self.0.taken.set(self.0.taken.get() + 1);
        self.0.received.set(self.0.received.get() + u64::from(exchanged));
    }

    pub fn taken(&self) -> u64 {
        self.0.taken.get()
    }

    /// What other workers compare.
    pub fn exchanged(&self) -> (Vec<u64>, u64) {
        (self.0.sent.borrow().clone(), self.0.received.get())
    }
}

/// Steps of the dataflow without any chunk taken, after which none is on its way within the worker: a chunk that an operator
/// gives in one step is taken in the next one at the latest.
const STILL_STEPS: u32 = 3;

/// A worker that is paused.
pub(super) struct Pause {
    pub epoch: Epoch,
    pub since: Instant,
    taken: u64,
    still: u32,
    told: Option<(Vec<u64>, u64)>,
}

impl Pause {
    pub fn new(epoch: Epoch, traffic: &Traffic) -> Self {
        traffic.pause(true);
        Pause { epoch, since: Instant::now(), taken: traffic.taken(), still: 0, told: None }
    }

    /// Whether nothing happens any more.
    pub fn is_still(&self) -> bool {
        self.still >= STILL_STEPS
    }

    /// After a step: what to tell the clock, if that is news.
    pub fn look(&mut self, traffic: &Traffic) -> Option<(Vec<u64>, u64)> {
        let taken = traffic.taken();
        self.still = if taken == self.taken { self.still.saturating_add(1) } else { 0 };
        self.taken = taken;
        let now = traffic.exchanged();
        if !self.is_still() || self.told.as_ref() == Some(&now) {
            return None;
        }
        self.told = Some(now.clone());
        Some(now)
    }
}

/// An operator's input that it has not worked on: by epoch and port.
pub(super) type Stash = Rc<RefCell<BTreeMap<Epoch, Vec<Vec<Delta>>>>>;

/// This worker's part of what waited at an operator when a checkpoint was made; of epochs before `from`, it waits in that one.
/// `routes`: by which columns its ports' rows are distributed.
pub(super) fn restore(
    all: &[&Stashed],
    node: usize,
    routes: &[Option<Vec<usize>>],
    from: Epoch,
    (worker, workers): (usize, usize),
) -> Stash {
    let stash = Stash::default();
    for Stashed { place, epoch, delta, .. } in all {
        let Place::Port { node: of, port } = *place else { continue };
        let Some(Some(columns)) = routes.get(port as usize).filter(|_| of as usize == node) else { continue };
        let mine = owners(delta, columns, workers).into_iter().map(|w| Some(w == worker)).collect();
        // Rows of a stash were in a batch before.
        let mine = delta.filter(&mine).expect("a mask is as long as its delta");
        if !mine.is_empty()
            && let Some(deltas) =
                stash.borrow_mut().entry(from.max(*epoch)).or_insert_with(|| vec![Vec::new(); routes.len()]).get_mut(port as usize)
        {
            deltas.push(mine);
        }
    }
    stash
}
