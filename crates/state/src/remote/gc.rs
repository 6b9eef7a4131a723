//! Deleting what is no longer needed.

use std::collections::BTreeMap;

use millpond_common::{Result, SqlState};

use super::claim::{self, Claim};
use super::manifest::{OBJECTS, written_under};
use super::{Collected, Shared, decide, restore};
use crate::failpoint::failpoint;

pub(super) async fn gc(shared: &Shared, claim: &Claim, keep: usize) -> Result<Collected> {
    let backend = &shared.backend;
    let writer = shared.writer.lock().await;
    let listed = backend.list(OBJECTS).await?;
    let names = restore::names(backend).await?;
    // After the listings: if nobody had claimed the storage until now, none of these objects are somebody else's.
    claim::still_ours(backend, claim).await?;
    let mut manifests = BTreeMap::new();
    for name in names {
        let manifest = match restore::read(backend, &name).await {
            Ok(manifest) => Some(manifest),
            Err(error) if error.state() == SqlState::DATA_CORRUPTED => None,
            // Not to be reached, or of a later version: what it needs is unknown.
            Err(error) => return Err(error),
        };
        manifests.insert(name, manifest);
    }
    let garbage = decide::garbage(&manifests, &listed, keep, &writer.fresh, claim.generation);
    let names = garbage.manifests.iter().map(ToString::to_string).collect::<Vec<_>>();
    backend.delete(&names).await?;
    failpoint("remote-gc-manifests-deleted");
    backend.delete(&garbage.objects).await?;
    failpoint("remote-gc-objects-deleted");
    backend.delete(&claim::outdated(backend, claim).await?).await?;
    let generation = claim.generation;
    backend.sweep(move |name| written_under(name).is_some_and(|g| g <= generation)).await?;
    let bytes = garbage.objects.iter().filter_map(|name| listed.get(name)).sum();
    Ok(Collected { manifests: names.len(), objects: garbage.objects.len(), bytes })
}
