//! Who writes to the storage.

use std::time::{SystemTime, UNIX_EPOCH};

use millpond_common::{Error, Result, SqlState};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::backend::Backend;
use super::manifest::{CLAIMS, MANIFESTS, ManifestName};
use crate::failpoint::failpoint;
use crate::frame::Frame;

const FRAME: Frame = Frame { magic: b"MPCL", version: 1, what: "a claim on a checkpoint storage" };

/// The right to write to the storage, until another server claims it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub(super) generation: u64,
    pub(super) database: String,
}

impl Claim {
    /// The identity of the database that is stored here.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Counts the servers that have written here, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What the claim's object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    database: String,
    host: String,
    process: u32,
    claimed_ms: u64,
    /// Tells two claims of the same generation apart.
    nonce: [u8; 16],
}

/// A new identity for a database.
pub(crate) fn new_identity() -> Result<String> {
    Ok(random()?.iter().map(|b| format!("{b:02x}")).collect())
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("the system has no random numbers"))?;
    Ok(bytes)
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn name(generation: u64) -> String {
    format!("{CLAIMS}/{generation:08}")
}

/// The generations of all claims, ascending.
pub(super) async fn generations(backend: &Backend) -> Result<Vec<u64>> {
    let names = backend.list(CLAIMS).await?;
    let mut generations = names.keys().filter_map(|n| n.rsplit('/').next()?.parse().ok()).collect::<Vec<u64>>();
    generations.sort_unstable();
    Ok(generations)
}

/// The names of old claims, which nobody needs.
pub(super) async fn outdated(backend: &Backend, claim: &Claim) -> Result<Vec<String>> {
    Ok(generations(backend).await?.into_iter().filter(|g| *g < claim.generation).map(name).collect())
}

pub(super) async fn claim(shared: &Shared, database: Option<String>) -> Result<Claim> {
    let backend = &shared.backend;
    let _turn = shared.writer.lock().await;
    let manifests = backend.list(MANIFESTS).await?;
    let last_manifest = manifests.keys().filter_map(|n| n.parse::<ManifestName>().ok()).map(|n| n.generation).max();
    let last = generations(backend).await?.last().copied();
    let owner = match last {
        Some(last) => Some(read(backend, last).await?),
        None => None,
    };
    let database = match (owner.map(|o| o.database), database) {
        (Some(stored), Some(ours)) if stored != ours => return Err(foreign(backend)),
        (Some(stored), _) => stored,
        (None, Some(ours)) => ours,
        (None, None) => new_identity()?,
    };
    let generation = last.max(last_manifest).unwrap_or(0) + 1;
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let owner = Owner { database: database.clone(), host, process: std::process::id(), claimed_ms: now_ms(), nonce: random()? };
    let bytes = FRAME.seal(&bincode::serialize(&owner)?);
    // A put whose answer was lost is repeated, and then finds itself.
    if !backend.put_new(&name(generation), bytes.clone().into()).await? && read(backend, generation).await? != owner {
        let message = "another server has claimed the checkpoint storage at the same moment";
        return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint("Only one server may use it."));
    }
    if backend.put_new(&name(generation), bytes.into()).await? {
        return Err(Error::unsupported(
            "the checkpoint storage ignores conditional writes",
            "Two servers could not be told apart: use another object store.",
        ));
    }
    failpoint("remote-claimed");
    Ok(Claim { generation, database })
}

async fn read(backend: &Backend, generation: u64) -> Result<Owner> {
    let bytes = backend.get(&name(generation)).await?;
    bincode::deserialize(FRAME.open(&bytes)?).map_err(|_| FRAME.damaged())
}

/// An error if somebody else has claimed the storage since.
pub(super) async fn still_ours(backend: &Backend, claim: &Claim) -> Result<()> {
    let newest = generations(backend).await?.last().copied();
    if newest == Some(claim.generation) {
        return Ok(());
    }
    let message = "another server has taken over the checkpoint storage";
    let error = Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .with_hint("Stop the other server, or give this one another place; then set checkpoint_storage again.");
    let Some(newest) = newest else { return Err(error.with_detail("The claims were deleted.")) };
    Err(match read(backend, newest).await {
        Ok(owner) => {
            error.with_detail(format!("It is process {} on \"{}\", which claimed \"{}\".", owner.process, owner.host, backend.url()))
        }
        Err(_) => error,
    })
}

/// Whether this error says that the storage belongs to somebody else now: trying again cannot help.
pub(super) fn is_lost(error: &Error) -> bool {
    error.state() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
}

fn foreign(backend: &Backend) -> Error {
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "the checkpoint storage belongs to another database")
        .with_detail(format!("It is \"{}\".", backend.url()))
        .with_hint("Give each database a place of its own.")
}
