//! From a directory to the storage.

use std::path::Path;
use std::time::Instant;

use futures::stream::{self, StreamExt, TryStreamExt};
use millpond_common::{Epoch, Error, Result, SqlState};

use super::backend::Backend;
use super::claim::{self, Claim};
use super::manifest::{Manifest, ManifestName, OBJECTS};
use super::runtime::blocking;
use super::{Shared, Uploaded, decide, restore};
use crate::failpoint::failpoint;

pub(super) async fn upload(shared: &Shared, claim: &Claim, dir: &Path, epoch: Epoch) -> Result<Uploaded> {
    let started = Instant::now();
    let backend = &shared.backend;
    let mut writer = shared.writer.lock().await;
    claim::still_ours(backend, claim).await?;

    let (mut digests, dir_to_scan) = (std::mem::take(&mut writer.digests), dir.to_owned());
    let (digests, local) = blocking(move || digests.scan(&dir_to_scan).map(|files| (digests, files))).await?;
    writer.digests = digests;
    let listed = backend.list(OBJECTS).await?;
    let names = restore::names(backend).await?;
    let newest = newest(backend, &names).await?;
    let plan = decide::plan(&local, newest.as_ref().map(|(_, m)| m), &listed, &writer.fresh, claim.generation);
    let mut uploaded = Uploaded {
        epoch,
        files: plan.files.len(),
        bytes: plan.files.iter().map(|f| f.size).sum(),
        files_sent: plan.send.len(),
        bytes_sent: plan.send.iter().map(|f| f.size).sum(),
        ..Default::default()
    };
    if let Some((name, manifest)) = &newest
        && (name.generation, name.epoch) == (claim.generation, epoch)
        && manifest.files == plan.files
        && plan.send.is_empty()
    {
        uploaded.duration = started.elapsed();
        return Ok(uploaded);
    }

    failpoint("remote-upload-begin");
    let part = shared.options.part_bytes.max(1) as u64;
    let fresh = &mut writer.fresh;
    let sent = stream::iter(plan.send).map(|file| async move {
        backend.put_file(&file.object, &dir.join(&file.name), file.size, part).await?;
        failpoint("remote-object-written");
        Ok::<_, Error>(file.object)
    });
    let mut sent = sent.buffer_unordered(shared.options.parallelism.max(1));
    while let Some(object) = sent.try_next().await? {
        fresh.insert(object);
    }
    failpoint("remote-objects-written");

    let sequence = names.iter().filter(|n| n.generation == claim.generation).map(|n| n.sequence).max().unwrap_or(0) + 1;
    let name = ManifestName { generation: claim.generation, sequence, epoch };
    let manifest = Manifest { database: claim.database.clone(), epoch, created_ms: claim::now_ms(), files: plan.files };
    let published = publish(backend, name, &manifest).await;
    failpoint("remote-manifest-written");
    // Somebody may have claimed the storage meanwhile: then this manifest is older than theirs, and we should know.
    claim::still_ours(backend, claim).await?;
    published?;
    fresh.clear();
    uploaded.duration = started.elapsed();
    Ok(uploaded)
}

/// Makes the checkpoint one.
async fn publish(backend: &Backend, name: ManifestName, manifest: &Manifest) -> Result<()> {
    let (name, bytes) = (name.to_string(), manifest.encode()?);
    // A put whose answer was lost is repeated, and then finds itself.
    if backend.put_new(&name, bytes.clone().into()).await? || backend.get(&name).await? == bytes {
        return Ok(());
    }
    // An earlier attempt that was given up has come through late: the next one takes the next name.
    Err(Error::new(SqlState::IO_ERROR, format!("checkpoint storage: there is a \"{name}\" already")))
}

/// The newest manifest that can be read.
async fn newest(backend: &Backend, names: &[ManifestName]) -> Result<Option<(ManifestName, Manifest)>> {
    for name in names.iter().rev() {
        match restore::read(backend, name).await {
            Ok(manifest) => return Ok(Some((*name, manifest))),
            Err(error) if error.state() == SqlState::DATA_CORRUPTED => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
