//! A savepoint, open for reading.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use millpond_common::{Error, RelationId, RelationSpec, Result, SqlState};

use super::record::{self, Savepoint};
use crate::log::LogFamily;
use crate::relation::{Relation, RelationMeta};
use crate::rocks::{Base, Rocks};
use crate::{ReadView, Recovered, commit, directory};

/// A savepoint's contents. Several may read it at once; while a reader or a view of it lives it cannot be released.
pub struct SavepointReader {
    savepoint: Savepoint,
    recovered: Recovered,
    base: Arc<Base>,
    /// Numbers whose rows do not count.
    drops: Vec<u32>,
}

impl SavepointReader {
    pub(super) fn open(dir: &Path, name: &str) -> Result<(SavepointReader, Weak<Rocks>)> {
        let savepoint = record::read_verified(dir, name)?;
        let rocks = Arc::new(Rocks::open_read_only(&directory::database(dir))?);
        let family = LogFamily::read(&rocks)?;
        let todo = commit::recovery(family.record.as_ref(), rocks.marker()?, &[])?;
        if todo != commit::Recovery::default() {
            return Err(Error::new(SqlState::DATA_CORRUPTED, format!("savepoint \"{name}\" is damaged")));
        }
        let record = family.record.unwrap_or_default();
        let base = Base::new(&rocks, record.epoch, record.log_seq, record.rows.into_iter().collect());
        let recovered =
            Recovered { epoch: record.epoch, meta: record.meta, catalog: family.catalog, log_tail: family.entries, log_torn: false };
        Ok((SavepointReader { savepoint, recovered, base, drops: family.drops }, Arc::downgrade(&rocks)))
    }

    /// What is known of it.
    pub fn savepoint(&self) -> &Savepoint {
        &self.savepoint
    }

    /// What a store that continues from it finds: the catalog's records among others.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Whether a relation was emptied after its checkpoint, to be filled anew.
    pub fn is_emptied(&self, relation: RelationId) -> bool {
        self.drops.contains(&relation.0)
    }

    /// These relations as of its checkpoint. Entries of the table log that the checkpoint does not contain
    /// ([`Recovered::log_tail`]) are not in it; [`ReadView::with_changes`] adds them.
    pub fn view(&self, relations: impl IntoIterator<Item = RelationSpec>) -> Result<ReadView> {
        let mut known = crate::relation::Relations::new();
        for spec in relations {
            let void = self.drops.contains(&spec.id.0);
            known.insert(spec.id, Relation::new(RelationMeta::new(spec)?, self.base.epoch, void));
        }
        Ok(ReadView::new(&self.base, self.base.epoch, &Arc::new(known), Default::default(), &Arc::new(AtomicU64::new(self.base.epoch))))
    }
}
