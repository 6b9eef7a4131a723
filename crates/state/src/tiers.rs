//! What readers make of a relation's runs: sorted layers of growing size, so that hundreds of epochs cost a read
//! little more than one does. Made by readers only: a relation that nobody reads stays as it came.

use std::sync::Arc;

use millpond_common::{Epoch, Result};

use crate::encode::Encoded;
use crate::relation::{RelationMeta, Run, runs_between};
use crate::run::SortedRun;

/// Layers smaller than this are merged without much ado.
const SMALL: usize = 256;

struct Layer {
    /// Holds the epochs after the layer before it, up to this one.
    until: Epoch,
    /// It ends where a checkpoint was being written: not merged with what follows, so that the checkpoint takes it whole.
    cut: bool,
    run: Arc<SortedRun>,
}

/// The layers of one relation, shared by all views. (For pending transactions, read "place in the log" for "epoch" and
/// "contained in the visible epoch" for "checkpoint".)
pub(crate) struct Tiers {
    /// The first layer follows this epoch.
    base: Epoch,
    layers: Vec<Layer>,
}

impl Tiers {
    pub(crate) fn new(base: Epoch) -> Self {
        Tiers { base, layers: vec![] }
    }

    /// Sorted layers, the newest last, which together hold `runs` with `base < epoch <= until`.
    /// `cut`: the epoch of the checkpoint that is being written or was written last.
    pub(crate) fn read(
        &mut self,
        meta: &RelationMeta,
        runs: &[Arc<Run>],
        base: Epoch,
        until: Epoch,
        cut: Epoch,
    ) -> Result<Vec<Arc<SortedRun>>> {
        if base < self.base {
            // A view from before the last checkpoint: what is shared does not fit it any more.
            return Ok(sort(meta, runs, base, until)?.into_iter().collect());
        }
        self.rebase(meta, runs, base)?;
        let reached = self.reached();
        if reached < cut && cut < until {
            self.extend(meta, runs, cut, true)?;
        }
        if self.reached() < until {
            self.extend(meta, runs, until, cut == until)?;
        }
        let (mut layers, reached) = self.up_to(until);
        if reached < until {
            layers.extend(sort(meta, runs, reached, until)?); // a view that is older than the newest one read
        }
        Ok(layers)
    }

    /// For the checkpoint: what has been sorted already, and how far it goes.
    pub(crate) fn sorted(&self, base: Epoch, until: Epoch) -> (Vec<Arc<SortedRun>>, Epoch) {
        if base == self.base { self.up_to(until) } else { (vec![], base) }
    }

    fn up_to(&self, until: Epoch) -> (Vec<Arc<SortedRun>>, Epoch) {
        let fitting = || self.layers.iter().take_while(|l| l.until <= until);
        let reached = fitting().last().map_or(self.base, |l| l.until);
        (fitting().filter(|l| l.run.len() > 0).map(|l| Arc::clone(&l.run)).collect(), reached)
    }

    fn reached(&self) -> Epoch {
        self.layers.last().map_or(self.base, |l| l.until)
    }

    /// Forgets what a checkpoint holds.
    fn rebase(&mut self, meta: &RelationMeta, runs: &[Arc<Run>], base: Epoch) -> Result<()> {
        if base == self.base {
            return Ok(());
        }
        let gone = self.layers.partition_point(|l| l.until <= base);
        let ends_at = gone.checked_sub(1).and_then(|i| self.layers.get(i)).map_or(self.base, |l| l.until);
        let straddling = ends_at < base && gone < self.layers.len();
        if straddling {
            // Its epochs beyond the checkpoint are few: sort them again.
            let until = self.layers.get(gone).map_or(base, |l| l.until);
            let rest = Encoded::new(meta, runs_between(runs, base, until).iter().map(|r| &**r))?;
            if let Some(layer) = self.layers.get_mut(gone) {
                // Perhaps of nothing: of a relation with a key all the same.
                layer.run = Arc::new(SortedRun::new(&rest));
            }
        }
        self.layers.drain(..gone);
        self.base = base;
        Ok(())
    }

    fn extend(&mut self, meta: &RelationMeta, runs: &[Arc<Run>], until: Epoch, cut: bool) -> Result<()> {
        match (sort(meta, runs, self.reached(), until)?, self.layers.last_mut()) {
            (Some(run), _) => self.layers.push(Layer { until, cut, run }),
            (None, Some(last)) if !last.cut => {
                last.until = until;
                last.cut = cut;
            }
            (None, _) => {}
        }
        while let [.., older, newer] = self.layers.as_slice()
            && !older.cut
            && older.run.len() <= 2 * newer.run.len() + SMALL
        {
            let run = Arc::new(SortedRun::merge(&[Arc::clone(&older.run), Arc::clone(&newer.run)]));
            let merged = Layer { until: newer.until, cut: newer.cut, run };
            self.layers.truncate(self.layers.len() - 2);
            self.layers.push(merged);
        }
        Ok(())
    }
}

/// The runs with `after < epoch <= until` as one; `None` if there are none.
fn sort(meta: &RelationMeta, runs: &[Arc<Run>], after: Epoch, until: Epoch) -> Result<Option<Arc<SortedRun>>> {
    let runs = runs_between(runs, after, until);
    if runs.is_empty() {
        return Ok(None);
    }
    let encoded = Encoded::new(meta, runs.iter().map(|r| &**r))?;
    Ok(Some(Arc::new(SortedRun::new(&encoded))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millpond_common::{Delta, RelationId, RelationSpec};

    use super::*;
    use crate::encode::Change;

    /// A layer ends where a reader was, though nothing has happened for a while, and a checkpoint is made in between: what is left
    /// of the layer is empty, and what comes next is merged with it.
    #[test]
    fn what_follows_an_empty_rest_is_there() {
        let row =
            |k: i64| RecordBatch::try_from_iter(["k", "v"].map(|name| (name, Arc::new(Int64Array::from(vec![k])) as ArrayRef))).unwrap();
        let spec = RelationSpec { id: RelationId(1), schema: row(0).schema(), key: Some(vec![0]), appended: false };
        let meta = RelationMeta::new(spec).unwrap();
        let run = |epoch: Epoch| Arc::new(Run::new(epoch, vec![Delta::insert(row(epoch as i64))]));
        let mut tiers = Tiers::new(0);
        tiers.read(&meta, &[run(1)], 0, 1, 0).unwrap();
        tiers.read(&meta, &[run(1)], 0, 3, 0).unwrap();
        // A checkpoint of epoch 2.
        tiers.read(&meta, &[], 2, 3, 2).unwrap();
        let layers = tiers.read(&meta, &[run(4)], 2, 4, 2).unwrap();
        let mut walk = crate::run::Overlay::new(layers, 0..256);
        assert!(matches!(walk.current(), Some((_, Change::Put(_)))));
        walk.advance();
        assert!(walk.current().is_none());
    }
}
