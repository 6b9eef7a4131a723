//! What of the jobs' state is in memory on this worker: after a start it is read little by little where there is room, and when memory is
//! short some of it leaves. Both in slices between the steps of the dataflow.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use millpond_common::JobId;

use super::job::LocalJob;

/// Entries that are read or looked at between two looks at the clock.
const ENTRIES: usize = 1024;
/// The dataflow waits for this long at most.
const SLICE: Duration = Duration::from_millis(1);
/// A look through a table begins where the last one ended, and spares what was used since: so the third one has seen everything.
const LOOKS_MAX: u32 = 3;

/// A state table by its job and its place there.
type Place = (JobId, usize);

/// See the module.
#[derive(Default)]
pub(super) struct Residency {
    /// Tables that are still to be read, or to be read on.
    warming: VecDeque<Place>,
    /// Bytes of state up to which tables are read without need.
    warm_max: u64,
    evicting: Vec<Leaving>,
}

/// Entries of one table that are to leave.
struct Leaving {
    place: Place,
    bytes: u64,
    looks: u32,
}

impl Residency {
    /// A job continues from its stored state.
    pub fn add(&mut self, job: JobId, tables: usize) {
        self.warming.extend((0..tables).map(|table| (job, table)));
    }

    /// From now on tables are read on while state takes less than this.
    pub fn warm_up_to(&mut self, bytes: u64) {
        self.warm_max = bytes;
    }

    /// Begins to make room: about so many bytes of state are to remain. Returns whether anything is to leave.
    pub fn evict(&mut self, jobs: &BTreeMap<JobId, LocalJob>, keep: u64) -> bool {
        let total = total(jobs);
        let excess = total.saturating_sub(keep);
        let share = |bytes: u64| (u128::from(bytes) * u128::from(excess) / u128::from(total.max(1))) as u64;
        let tables = jobs.iter().flat_map(|(id, job)| job.table_bytes().enumerate().map(|(at, bytes)| ((*id, at), share(bytes))));
        self.evicting = tables.filter(|(_, bytes)| *bytes > 0).map(|(place, bytes)| Leaving { place, bytes, looks: 0 }).collect();
        !self.evicting.is_empty()
    }

    /// A checkpoint begins: what changes belong to it must stay until it is committed.
    pub fn stop_evicting(&mut self) {
        self.evicting.clear();
    }

    /// Whether there is something to do.
    pub fn is_busy(&self, jobs: &BTreeMap<JobId, LocalJob>) -> bool {
        !self.evicting.is_empty() || (!self.warming.is_empty() && total(jobs) < self.warm_max)
    }

    /// Goes on for a while. Returns whether all that was to leave has been looked for now.
    pub fn slice(&mut self, jobs: &mut BTreeMap<JobId, LocalJob>) -> bool {
        if !self.is_busy(jobs) {
            return false;
        }
        let started = Instant::now();
        if !self.evicting.is_empty() {
            while let Some(leaving) = self.evicting.last_mut().filter(|_| started.elapsed() < SLICE) {
                let evicted = jobs.get_mut(&leaving.place.0).and_then(|job| job.evict(leaving.place.1, ENTRIES));
                leaving.looks += u32::from(evicted.is_none_or(|e| e.wrapped));
                leaving.bytes = leaving.bytes.saturating_sub(evicted.map_or(0, |e| e.bytes as u64));
                if leaving.bytes == 0 || leaving.looks >= LOOKS_MAX {
                    self.evicting.pop();
                }
            }
            if self.evicting.is_empty() {
                jobs.values_mut().for_each(LocalJob::measure);
                return true;
            }
            return false;
        }
        while let Some((id, table)) = self.warming.front().copied().filter(|_| started.elapsed() < SLICE) {
            if jobs.get_mut(&id).is_none_or(|job| job.warm(table, ENTRIES)) {
                self.warming.pop_front();
            }
            jobs.get_mut(&id).into_iter().for_each(LocalJob::measure);
        }
        false
    }
}

/// Bytes of all state on this worker.
pub(super) fn total(jobs: &BTreeMap<JobId, LocalJob>) -> u64 {
    jobs.values().map(|j| j.state_bytes).sum()
}
