//! The clock's part of an unaligned checkpoint (see `dataflow/unaligned.rs`), and of a start from one.

use std::sync::Arc;
use std::time::Instant;

use millpond_common::{Delta, Epoch, JobId, RelationId};

use super::{Clock, InFlight, Job};
use crate::dead_letters::DEAD_LETTERS;
use crate::job::JobState;
use crate::log::Changes;
use crate::messages::{Command, EpochCommand};
use crate::stash::{Place, Stashed};

/// What a checkpoint holds that was made in the middle of things.
#[derive(Default)]
pub(super) struct Cut {
    /// Relations are as of this epoch, and contain the log up to this entry.
    pub epoch: Epoch,
    pub log_seq: u64,
    /// The epochs on their way, and up to where the log is in them.
    pub epochs: Vec<(Epoch, u64)>,
    pub stash: Vec<Stashed>,
}

/// Workers are paused for the checkpoint of an epoch.
pub(super) struct Pausing {
    epoch: Epoch,
    /// By worker: chunks sent to each, and received.
    traffic: Vec<Option<(Vec<u64>, u64)>>,
    sealed: usize,
    sealing: bool,
    stash: Vec<Stashed>,
}

/// An epoch that was on its way when the checkpoint was made, and is made again.
pub(crate) struct Replay {
    pub epoch: Epoch,
    pub transactions: Vec<(u64, Changes)>,
    pub published: Vec<(RelationId, Delta)>,
}

impl Clock {
    pub(super) fn epochs_in_flight_max(&self) -> usize {
        usize::try_from(self.settings.integer("epochs_in_flight_max")).unwrap_or(2)
    }

    /// Whether the next checkpoint need not wait for the epochs before it. What somebody waits for is aligned, so that all that was
    /// written before is in its relations; so is the last one, those while views are being filled, replaced or restarted, those that are to
    /// make room in memory, which stashes take, and all of them while there is a view whose state expires, by a time that no stash has.
    pub(super) fn is_unaligned(&self) -> bool {
        let is_wanted = !self.checkpoint_wanted.is_empty() || self.shutdown.is_some();
        let runs = |j: &Job| matches!(j.state, JobState::Running) && !j.is_out() && j.replaces.is_none() && !j.spec.plan.expires();
        let calm = self.jobs.values().all(|j| !j.attached || runs(j));
        let mode = self.settings.get("checkpoint_mode").is_ok_and(|mode| mode == "unaligned");
        let alone = !self.in_flight.is_empty() && self.checkpoints_on_their_way() == 0;
        mode && !is_wanted && alone && calm && !self.is_memory_tight()
    }

    pub(super) fn pause(&mut self, epoch: Epoch) {
        let traffic = vec![None; self.workers.count()];
        self.pausing = Some(Pausing { epoch, traffic, sealed: 0, sealing: false, stash: Vec::new() });
    }

    /// A worker is paused, and nothing is on its way within it.
    pub(super) fn quiet(&mut self, worker: usize, epoch: Epoch, sent: Vec<u64>, received: u64) {
        let Some(pausing) = self.pausing.as_mut().filter(|p| p.epoch == epoch && !p.sealing) else { return };
        if let Some(slot) = pausing.traffic.get_mut(worker) {
            *slot = Some((sent, received));
        }
        let Some(traffic) = pausing.traffic.iter().cloned().collect::<Option<Vec<_>>>() else { return };
        let sent_to = |to: usize| traffic.iter().filter_map(|(sent, _)| sent.get(to)).sum::<u64>();
        if traffic.iter().enumerate().all(|(worker, (_, received))| sent_to(worker) == *received) {
            pausing.sealing = true;
            self.workers.send(|_| Command::Seal(epoch));
        }
    }

    /// A worker has sealed its state; this is what waited in it.
    pub(super) fn sealed(&mut self, epoch: Epoch, mut stash: Vec<Stashed>) {
        let Some(mut pausing) = self.pausing.take_if(|p| p.epoch == epoch) else { return };
        pausing.stash.append(&mut stash);
        pausing.sealed += 1;
        if pausing.sealed < self.workers.count() {
            self.pausing = Some(pausing);
            return;
        }
        // Whatever was complete before has been reported before.
        let (visible, log_seq) = self.shared.newest();
        let mut cut = Cut { epoch: visible, log_seq, epochs: Vec::new(), stash: pausing.stash };
        for flight in self.in_flight.iter().filter(|f| f.epoch > visible && f.epoch <= epoch) {
            cut.epochs.push((flight.epoch, flight.log_seq));
            let letters = (JobId(DEAD_LETTERS.0), DEAD_LETTERS);
            for (job, relation) in self.jobs.values().map(|j| (j.spec.id, j.spec.output.id)).chain([letters]) {
                let published = self.store.changes(relation, flight.epoch - 1, flight.epoch).into_iter();
                let stashed = |delta| Stashed { job, place: Place::Published(relation), epoch: flight.epoch, delta };
                cut.stash.extend(published.map(stashed));
            }
        }
        if let Some(flight) = self.in_flight.iter_mut().find(|f| f.epoch == epoch)
            && let Some(mut barrier) = flight.checkpoint.take()
        {
            barrier.cut = Some(cut);
            let done =
                InFlight { epoch, begun: flight.begun, waiting: 0, log_seq: flight.log_seq, source_rows: 0, checkpoint: Some(barrier) };
            self.collecting.push_back(done);
        }
        self.workers.send(|_| Command::Resume);
    }

    /// Makes epochs again that were on their way: jobs have their input already.
    pub(super) fn replay(&mut self, epochs: Vec<Replay>) {
        for Replay { epoch, transactions, published } in epochs {
            self.epoch = epoch;
            self.last_barrier = Instant::now();
            let later = std::mem::replace(&mut self.transactions, transactions);
            self.take_transactions(&mut []);
            self.transactions = later;
            for (relation, delta) in published {
                self.store.publish(relation, epoch, vec![delta]);
            }
            let attached = |id: &&JobId| self.jobs.get(id).is_some_and(|j| j.attached);
            let active = Arc::new(self.order.iter().filter(attached).copied().collect::<Vec<_>>());
            let (begun, waiting, log_seq) = (self.last_barrier, self.workers.count(), self.log_seq);
            self.in_flight.push_back(InFlight { epoch, begun, waiting, log_seq, source_rows: 0, checkpoint: None });
            self.dirty = true;
            self.workers.send(|_| {
                let active = Arc::clone(&active);
                let (inputs, lifetimes) = (vec![], vec![]);
                Command::Epoch(EpochCommand { epoch, active, inputs, backfill: None, lifetimes, checkpoint: false, unaligned: false })
            });
        }
    }
}
