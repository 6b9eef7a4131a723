//! From the storage to a directory.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures::stream::{self, StreamExt, TryStreamExt};
use millpond_common::{Error, Result, SqlState};
use ring::digest::{Context, SHA256};

use super::backend::Backend;
use super::digest::{digest_file, finish};
use super::manifest::{FileEntry, MANIFESTS, Manifest, ManifestName, OBJECTS};
use super::runtime::blocking;
use super::{RemoteCheckpoint, Restored, Shared, Which, decide};
use crate::directory;
use crate::failpoint::failpoint;

/// The names of all manifests, ascending.
pub(super) async fn names(backend: &Backend) -> Result<Vec<ManifestName>> {
    let mut names = backend.list(MANIFESTS).await?.keys().filter_map(|n| n.parse().ok()).collect::<Vec<ManifestName>>();
    names.sort_unstable();
    Ok(names)
}

/// A manifest, checked.
pub(super) async fn read(backend: &Backend, name: &ManifestName) -> Result<Manifest> {
    let manifest = Manifest::decode(&backend.get(&name.to_string()).await?)?;
    if manifest.epoch != name.epoch {
        return Err(Error::new(SqlState::DATA_CORRUPTED, "checkpoint storage: a manifest has another's name"));
    }
    Ok(manifest)
}

pub(super) async fn list(shared: &Shared) -> Result<Vec<RemoteCheckpoint>> {
    let backend = &shared.backend;
    let (names, listed) = (names(backend).await?, backend.list(OBJECTS).await?);
    let mut checkpoints = Vec::with_capacity(names.len());
    for name in names.iter().rev() {
        let mut checkpoint =
            RemoteCheckpoint { epoch: name.epoch, generation: name.generation, created: None, files: 0, bytes: 0, damage: None };
        match read(backend, name).await {
            Ok(manifest) => {
                checkpoint.created = UNIX_EPOCH.checked_add(Duration::from_millis(manifest.created_ms));
                checkpoint.files = manifest.files.len();
                checkpoint.bytes = manifest.bytes();
                checkpoint.damage = decide::missing(&manifest, &listed).map(|file| lacks(file).message().to_owned());
            }
            Err(error) if error.state() == SqlState::DATA_CORRUPTED => checkpoint.damage = Some(error.message().to_owned()),
            Err(error) => return Err(error),
        }
        checkpoints.push(checkpoint);
    }
    Ok(checkpoints)
}

fn lacks(file: &FileEntry) -> Error {
    Error::new(SqlState::DATA_CORRUPTED, format!("the object of \"{}\" is missing or has another size", file.name))
}

/// Where a restore gathers files: beside its destination, so that one rename ends it.
pub(crate) fn partial(into: &Path) -> Result<PathBuf> {
    let name = into.file_name().ok_or_else(|| Error::internal("a restore needs a named directory"))?;
    Ok(into.with_file_name(format!("{}.restoring", name.to_string_lossy())))
}

pub(super) async fn restore(shared: &Shared, which: Which, into: &Path) -> Result<Restored> {
    let started = Instant::now();
    if fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("cannot restore into \"{}\": it is not empty", into.display());
        return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let (mut tried, mut warnings) = (BTreeSet::new(), Vec::new());
    loop {
        // Listed anew each time: the owner may have replaced what was there.
        let names = names(&shared.backend).await?;
        let Some(name) = decide::choose(&names, which, &tried) else { return Err(nothing(shared, which, &warnings)) };
        match restore_one(shared, &name, into).await {
            Ok(restored) => return Ok(Restored { warnings, duration: started.elapsed(), ..restored }),
            Err(error) if error.state() == SqlState::DATA_CORRUPTED => {
                let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
                let warning = format!("checkpoint of epoch {} cannot be restored: {}{detail}", name.epoch, error.message());
                tracing::warn!(storage = shared.backend.url(), "{warning}; trying the one before it");
                warnings.push(warning);
                tried.insert(name);
            }
            Err(error) => return Err(error),
        }
    }
}

fn nothing(shared: &Shared, which: Which, warnings: &[String]) -> Error {
    let url = shared.backend.url();
    if !warnings.is_empty() {
        let message = format!("no checkpoint in \"{url}\" can be restored");
        return Error::new(SqlState::DATA_CORRUPTED, message).with_detail(warnings.join("\n"));
    }
    let message = match which {
        Which::Latest => format!("there is no checkpoint in \"{url}\""),
        Which::Epoch(epoch) => format!("there is no checkpoint of epoch {epoch} in \"{url}\""),
    };
    Error::new(SqlState::UNDEFINED_OBJECT, message)
}

async fn restore_one(shared: &Shared, name: &ManifestName, into: &Path) -> Result<Restored> {
    let backend = &shared.backend;
    let manifest = read(backend, name).await?;
    if let Some(file) = decide::missing(&manifest, &backend.list(OBJECTS).await?) {
        return Err(lacks(file));
    }
    let partial = partial(into)?;
    let (dir, files) = (partial.clone(), manifest.files.clone());
    let there = blocking(move || prepare(&dir, &files)).await?;
    failpoint("remote-restore-begin");

    let part = shared.options.part_bytes.max(1) as u64;
    let needed = manifest.files.iter().filter(|f| !there.contains(&f.name)).cloned().collect::<Vec<_>>();
    let fetched = stream::iter(needed).map(|file| {
        let path = partial.join(&file.name);
        async move {
            fetch(backend, &file, &path, part).await?;
            failpoint("remote-restore-file");
            Ok::<_, Error>(())
        }
    });
    fetched.buffer_unordered(shared.options.parallelism.max(1)).try_collect::<Vec<()>>().await?;
    failpoint("remote-restore-verified");

    let into = into.to_owned();
    blocking(move || publish(&partial, &into)).await?;
    failpoint("remote-restore-renamed");
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    Ok(Restored { epoch: manifest.epoch, database: manifest.database, files, bytes, files_resumed: there.len(), ..Default::default() })
}

/// Makes the directories; of what an earlier attempt has left, keeps the files that are whole, and says which.
fn prepare(dir: &Path, files: &[FileEntry]) -> Result<BTreeSet<String>> {
    fs::create_dir_all(dir)?;
    let wanted = files.iter().map(|f| (f.name.as_str(), f)).collect::<HashMap<_, _>>();
    let mut there = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or_default();
            match wanted.get(name) {
                Some(file) if entry.metadata()?.len() == file.size && digest_file(&path, file.size)? == file.digest => {
                    there.insert(name.to_owned());
                }
                _ => fs::remove_file(&path)?,
            }
        }
    }
    for file in files {
        if let Some(parent) = dir.join(&file.name).parent() {
            fs::create_dir_all(parent)?;
        }
    }
    Ok(there)
}

/// Downloads a file and checks it.
async fn fetch(backend: &Backend, file: &FileEntry, path: &Path, part: u64) -> Result<()> {
    let to = path.to_owned();
    let mut target = blocking(move || Ok((File::create(to)?, Context::new(&SHA256)))).await?;
    let mut begin = 0;
    while begin < file.size {
        let end = (begin + part).min(file.size);
        let bytes = backend.get_range(&file.object, begin..end).await?;
        target = blocking(move || {
            let (mut output, mut digest) = target;
            output.write_all(&bytes)?;
            digest.update(&bytes);
            Ok((output, digest))
        })
        .await?;
        begin = end;
    }
    let (output, digest) = target;
    let found = blocking(move || output.sync_all().map_err(Error::from).and_then(|()| finish(digest))).await?;
    if found == file.digest {
        return Ok(());
    }
    let message = format!("the object of \"{}\" has another content than was written", file.name);
    Err(Error::new(SqlState::DATA_CORRUPTED, message).with_detail(format!("The object is \"{}\".", file.object)))
}

/// The files, which are synced, appear under their final name.
fn publish(partial: &Path, into: &Path) -> Result<()> {
    let mut dirs = vec![partial.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            }
        }
        directory::sync(&dir)?;
    }
    // Over a directory that is there, which must be empty.
    fs::rename(partial, into)?;
    Ok(into.parent().map_or(Ok(()), directory::sync)?)
}
