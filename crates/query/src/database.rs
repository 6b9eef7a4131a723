//! [`Database`]: what all sessions share, and how it comes back after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionContext;
use millpond_common::settings::{self, Scope, Settings};
use millpond_common::{Error, RelationId, Result, SqlState};
use millpond_engine::{DEAD_LETTERS, Engine, EngineConfig, STASH, SourceSpec};
use millpond_sql::{Catalog, Relation, RelationKind, base_context, set_fault_injection};
use millpond_state::failpoint::failpoint;
use millpond_state::remote::{
    Cancel, RemoteOptions, RemoteStorage, Uploader, UploaderOptions, is_damaged_file, open_or_restore, restore_damaged,
};
use millpond_state::{Compression, Recovered, Store, StoreOptions, Tuning};
use parking_lot::{Mutex, RwLock};

use crate::cancel::CancelToken;
use crate::error::from_datafusion;
use crate::records::{self, Known, Record, StoredJob};
use crate::response::NoticeSink;
use crate::saved::{Saved, savepoint_of};
use crate::select::format_of;
use crate::session::Session;
use crate::system::{SessionInfo, System};
use crate::transaction::TransactionManager;

/// The name of the one database.
pub const DATABASE_NAME: &str = "dev";

/// How much queries that sort or group may put into temporary files.
const SPILL_BYTES_MAX: u64 = 16 << 30;

/// What the changes of open transactions may take, however little memory there is.
const CHANGE_BYTES_MIN: usize = 64 << 20;

/// How long the upload of the final checkpoint may hold up the end of the server.
const LAST_UPLOAD_MAX: Duration = Duration::from_secs(30);

/// How to open a database.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// Its data directory.
    pub directory: PathBuf,
    /// Worker threads of the engine.
    pub workers: usize,
    /// Bytes of memory that are shared out.
    pub memory: u64,
    /// Where checkpoints are uploaded to, and restored from when the data directory is lost or damaged.
    pub storage: Option<CheckpointStorage>,
}

/// A place for checkpoints on another machine, or on another disk.
#[derive(Clone, Debug)]
pub struct CheckpointStorage {
    /// `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///directory`. Credentials come from the environment.
    pub url: String,
    /// From the end of one upload to the begin of the next.
    pub interval: Duration,
    /// How many checkpoints stay there.
    pub keep: usize,
}

/// Who connects.
#[derive(Clone, Debug)]
pub struct Startup {
    /// The user it wants to be.
    pub user: String,
    /// The database that it asked for, if it did.
    pub database: Option<String>,
    /// Settings that it brings; unknown ones are ignored.
    pub parameters: BTreeMap<String, String>,
    /// The number that `pg_backend_pid()` returns.
    pub process_id: i32,
    /// Its address, where it has one.
    pub client: Option<SocketAddr>,
}

/// The catalog at one moment.
pub(crate) struct CatalogState {
    pub catalog: Arc<Catalog>,
    /// Changes with every DDL statement.
    pub version: u64,
}

/// A running database. Sessions come from [`Database::connect`].
pub struct Database {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Store>,
    catalog: RwLock<CatalogState>,
    /// Held by the one DDL statement that runs.
    pub(crate) ddl: Arc<tokio::sync::Mutex<()>>,
    system_settings: RwLock<Settings>,
    /// Held by the one statement that changes them.
    changing_settings: tokio::sync::Mutex<()>,
    /// Bytes of memory that are shared out.
    memory: u64,
    settings_version: AtomicU64,
    /// Functions and configuration of planners.
    pub(crate) context: SessionContext,
    /// The memory that queries share.
    pub(crate) runtime: Arc<RuntimeEnv>,
    pub(crate) transactions: Arc<TransactionManager>,
    pub(crate) system: System,
    pub(crate) sessions: Mutex<BTreeMap<i32, SessionInfo>>,
    initialised: bool,
    /// Savepoints that somebody reads.
    pub(crate) saved: Mutex<Vec<(String, Weak<Saved>)>>,
    /// The savepoint that the next start continues from: open, so that it cannot be released.
    pub(crate) restoring: Mutex<Option<Arc<Saved>>>,
    /// Where checkpoints are uploaded to, and who does it.
    pub(crate) storage_url: Option<String>,
    pub(crate) uploader: Mutex<Option<Uploader>>,
    /// A savepoint is to be restored: the database must be closed and opened again.
    pub(crate) reopen: tokio::sync::Notify,
}

impl Database {
    /// Opens or creates a database and starts its engine. Blocks; not to be called on an asynchronous thread.
    pub fn open(options: &DatabaseOptions) -> Result<Arc<Database>> {
        let workers = options.workers.max(1);
        let store_options = StoreOptions { memory: options.memory, workers, ..StoreOptions::default() };
        let remote = options.storage.as_ref().map(|s| RemoteStorage::open(&s.url, RemoteOptions::default()).map(Arc::new)).transpose()?;
        let Some(remote) = remote else {
            let (store, recovered) = Store::open(&options.directory, &store_options)?;
            return Self::start(options, store, recovered, None);
        };
        let opened = open_or_restore(&options.directory, &store_options, &remote, &Cancel::default())?;
        let is_restored = opened.restored.is_some();
        match Self::start(options, opened.store, opened.recovered, Some(Arc::clone(&remote))) {
            // Found by what a start reads of it.
            Err(error) if is_damaged_file(&error) && !is_restored => {
                let opened = restore_damaged(&options.directory, &store_options, &remote, &Cancel::default(), error)?;
                Self::start(options, opened.store, opened.recovered, Some(remote))
            }
            started => started,
        }
    }

    /// Starts what a database consists of over its store.
    fn start(
        options: &DatabaseOptions,
        store: Arc<Store>,
        recovered: Recovered,
        remote: Option<Arc<RemoteStorage>>,
    ) -> Result<Arc<Database>> {
        let workers = options.workers.max(1);
        let context = base_context();
        let known = Known::read(&recovered.catalog, Arc::new(context.clone()))?;
        let catalog = &known.catalog;
        remove_leftovers(&store, &known)?;

        let mut system_settings = Settings::default();
        for (name, value) in &known.settings {
            if let Err(error) = system_settings.set(name, Some(value)) {
                tracing::warn!(%error, "a stored setting is ignored");
            }
        }
        let tables = catalog.relations().filter(|r| matches!(r.kind, RelationKind::Table(_))).filter_map(Relation::spec).collect();
        let sources = catalog.relations().filter_map(|r| source_spec(r).transpose()).collect::<Result<Vec<_>>>()?;
        let jobs = known.jobs.iter().map(|j| j.spec(catalog)).collect::<Result<Vec<_>>>()?;
        set_fault_injection(system_settings.on("enable_fault_injection"));
        if let Err(error) = configure_storage(&store, &system_settings) {
            tracing::warn!(%error, "storage runs with other settings");
        }
        let config = EngineConfig { workers, memory: options.memory, settings: system_settings.clone() };
        let engine = Engine::start(config, Arc::clone(&store), &recovered, tables, sources, jobs)?;

        let uploader = match (remote, &options.storage) {
            (Some(remote), Some(s)) => Some(store.upload_to(remote, UploaderOptions { interval: s.interval, keep: s.keep })?),
            _ => None,
        };

        // Queries may use a quarter of the budget; engine and storage have the rest.
        let query_bytes = usize::try_from(options.memory / 4).unwrap_or(usize::MAX);
        // What each sort sets aside for merging must be little of that.
        context.state_ref().write().config_mut().options_mut().execution.sort_spill_reservation_bytes =
            (query_bytes / 64).clamp(64 << 10, 10 << 20);
        let pool = FairSpillPool::new(query_bytes);
        // So much may the changes of open transactions take, and the result of one call of a function.
        let change_bytes = query_bytes.max(CHANGE_BYTES_MIN);
        millpond_sql::functions::set_result_bytes_max(change_bytes as u64);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_max_temp_directory_size(SPILL_BYTES_MAX);
        let runtime = runtime.build_arc().map_err(from_datafusion)?;
        Ok(Arc::new(Database {
            engine,
            store,
            catalog: RwLock::new(CatalogState { catalog: Arc::new(known.catalog), version: 1 }),
            ddl: Arc::default(),
            system_settings: RwLock::new(system_settings),
            changing_settings: tokio::sync::Mutex::default(),
            memory: options.memory,
            settings_version: AtomicU64::new(1),
            context,
            runtime,
            transactions: Arc::new(TransactionManager::new(change_bytes)),
            system: System,
            sessions: Mutex::default(),
            initialised: known.initialised,
            saved: Mutex::default(),
            restoring: Mutex::default(),
            storage_url: options.storage.as_ref().map(|s| s.url.clone()),
            uploader: Mutex::new(uploader),
            reopen: tokio::sync::Notify::new(),
        }))
    }

    /// Opens a session. Whoever serves it sends its notices on, and cancels and resets its token.
    pub fn connect(self: &Arc<Self>, startup: Startup, notices: NoticeSink, cancel: CancelToken) -> Result<Session> {
        let name = startup.database.as_deref().unwrap_or(DATABASE_NAME);
        if name != DATABASE_NAME && savepoint_of(name).is_none_or(|_| name.starts_with('@')) {
            return Err(Error::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
                .with_hint(format!("The database is called \"{DATABASE_NAME}\".")));
        }
        self.transactions.gate.check()?;
        Session::new(Arc::clone(self), startup, notices, cancel)
    }

    /// Waits until a savepoint is to be restored: then the server shuts the database down and opens it anew.
    pub async fn reopening(&self) {
        self.reopen.notified().await;
    }

    /// The engine, for metrics.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether the script for new databases has yet to run.
    pub fn is_new(&self) -> bool {
        !self.initialised
    }

    /// Writes down that the script for new databases has run.
    pub fn set_initialised(&self) -> Result<()> {
        self.store.catalog_write(&[records::initialised_record()], &[])
    }

    /// Final checkpoint, which goes to the checkpoint storage, and the end of the engine.
    pub async fn shutdown(&self) -> Result<()> {
        // A database that a savepoint takes the place of has nothing more to send.
        let sends = self.transactions.gate.check().is_ok();
        let uploader = self.uploader.lock().take();
        let finish = move || {
            if let Some(uploader) = uploader.filter(|_| sends) {
                uploader.finish(LAST_UPLOAD_MAX);
            }
        };
        self.engine.shutdown_after(finish).await
    }

    /// The catalog as it is, and its version.
    pub(crate) fn catalog(&self) -> (Arc<Catalog>, u64) {
        let state = self.catalog.read();
        (Arc::clone(&state.catalog), state.version)
    }

    /// Stores a changed catalog with other records in one synced write, then shows it to all. The caller holds `ddl`.
    pub(crate) async fn replace_catalog(&self, catalog: Catalog, mut puts: Vec<Record>, deletes: Vec<Vec<u8>>) -> Result<Arc<Catalog>> {
        puts.push(records::catalog_record(&catalog)?);
        let _entered = self.transactions.gate.enter().await?;
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || store.catalog_write(&puts, &deletes)).await;
        written.map_err(|e| Error::internal(format!("writing the catalog ended early: {e}")))??;
        let catalog = Arc::new(catalog);
        let mut state = self.catalog.write();
        state.catalog = Arc::clone(&catalog);
        state.version += 1;
        Ok(catalog)
    }

    /// ALTER SYSTEM: checks, stores and applies a setting of the whole server.
    pub(crate) async fn alter_system(&self, name: &str, value: Option<&str>) -> Result<()> {
        let setting = settings::find(name)?;
        if setting.scope != Scope::System {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("parameter \"{}\" is not one of the whole server", setting.name),
            )
            .with_hint("Use SET to change it in a session."));
        }
        let _changing = self.changing_settings.lock().await;
        let mut changed = self.system_settings.read().clone();
        changed.set(setting.name, value)?;
        self.check_share(setting.name, &changed)?;
        let configured = changed.clone();
        let _entered = self.transactions.gate.enter().await?;
        self.engine.blocking(move |store| configure_storage(store, &configured)).await?;
        let store = Arc::clone(&self.store);
        let (puts, deletes) = match value {
            Some(_) => (vec![records::setting_record(setting.name, &changed.get(setting.name)?)?], vec![]),
            None => (vec![], vec![records::setting_key(setting.name)]),
        };
        let written = tokio::task::spawn_blocking(move || store.catalog_write(&puts, &deletes)).await;
        written.map_err(|e| Error::internal(format!("writing a setting ended early: {e}")))??;
        failpoint("alter-system-stored");
        if setting.name == "enable_fault_injection" {
            set_fault_injection(changed.on(setting.name));
        }
        self.engine.set_settings(changed.clone())?;
        *self.system_settings.write() = changed;
        self.settings_version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Fails if a share of the memory is set to more than there is to share out.
    fn check_share(&self, name: &str, settings: &Settings) -> Result<()> {
        let is_share = matches!(name, "state_memory" | "rocksdb_block_cache_size" | "rocksdb_write_buffer_size");
        if !is_share || settings.size(name) <= self.memory {
            return Ok(());
        }
        let message = format!("\"{name}\" of {} is more than the server's memory that is shared out", settings.get(name)?);
        Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
            .with_detail(format!("That is {} MB: --memory, less what the program itself takes.", self.memory >> 20))
            .with_hint("Start the server with a larger --memory."))
    }

    /// Brings the server's settings into a session's, if they changed since `seen`.
    pub(crate) fn refresh_settings(&self, session: &mut Settings, seen: &mut u64) -> Result<()> {
        let version = self.settings_version.load(Ordering::Acquire);
        if *seen == version {
            return Ok(());
        }
        let system = self.system_settings.read();
        for setting in settings::SETTINGS.iter().filter(|s| s.scope == Scope::System) {
            session.set(setting.name, Some(&system.get(setting.name)?))?;
        }
        *seen = version;
        Ok(())
    }
}

/// Settings of storage. They take effect while it runs.
fn configure_storage(store: &Store, settings: &Settings) -> Result<()> {
    let cache = settings.size("rocksdb_block_cache_size");
    store.tune(&Tuning {
        compression: Compression::parse(&settings.get("rocksdb_compression")?)?,
        write_buffer_bytes: settings.size("rocksdb_write_buffer_size"),
        block_cache_bytes: (cache > 0).then_some(cache),
    })?;
    store.set_checkpoint_retention(usize::try_from(settings.integer("checkpoint_retention")).unwrap_or(0));
    Ok(())
}

/// Deletes what a crash between two steps of a statement left behind: rows and state that no record names.
fn remove_leftovers(store: &Store, known: &Known) -> Result<()> {
    let mut ids = known.catalog.relations().map(|r| r.id.0).collect::<BTreeSet<_>>();
    ids.extend([DEAD_LETTERS.0, STASH.0]);
    for job in &known.jobs {
        ids.extend(job.state_tables()?.iter().map(|t| t.0));
    }
    let removed = store.remove_unknown(&ids)?;
    if removed > 0 {
        tracing::info!(removed, "deleted what was left of dropped relations");
    }
    Ok(())
}

/// What the engine needs to know of a source.
pub(crate) fn source_spec(relation: &Relation) -> Result<Option<SourceSpec>> {
    let RelationKind::Source(def) = &relation.kind else { return Ok(None) };
    Ok(Some(SourceSpec {
        id: relation.id,
        name: relation.name.clone(),
        namespace: relation.schema.clone(),
        schema: Arc::clone(&relation.columns),
        options: def.options.clone(),
        format: format_of(def)?,
    }))
}

impl Database {
    /// Removes relations, which nothing that stays may read, and the schemas that they lay in: first from the catalog, then
    /// their rows and state. A crash in between leaves rows that the next start deletes. The caller holds `ddl`.
    pub(crate) async fn drop_relations(&self, mut catalog: Catalog, ids: &[RelationId], schemas: &[&str]) -> Result<()> {
        let dropped = ids.iter().filter_map(|id| catalog.remove(*id)).collect::<Vec<_>>();
        schemas.iter().try_for_each(|schema| catalog.drop_schema(schema))?;
        let jobs = dropped.iter().filter_map(Relation::job).collect::<Vec<_>>();
        let deletes = jobs.iter().map(|j| records::job_key(*j)).collect();
        self.replace_catalog(catalog, vec![], deletes).await?;
        failpoint("drop-stored");
        // A view of others (CREATE VIEW) is nothing that the engine knows.
        let relations = dropped.iter().filter(|r| !matches!(r.kind, RelationKind::View { .. })).map(|r| r.id).collect::<Vec<_>>();
        if relations.is_empty() {
            return Ok(());
        }
        self.engine.drop_relations(relations, jobs).await
    }

    /// Stores a new materialized view with its job, then starts it.
    pub(crate) async fn start_job(&self, catalog: Catalog, job: StoredJob) -> Result<millpond_engine::JobHandle> {
        let spec = job.spec(&catalog)?;
        let relation = job.relation;
        let catalog = self.replace_catalog(catalog, vec![job.record()?], vec![]).await?;
        failpoint("create-view-stored");
        match self.engine.create_job(spec).await {
            Ok(handle) => Ok(handle),
            Err(error) => {
                self.drop_relations(Catalog::clone(&catalog), &[relation], &[]).await?;
                Err(error)
            }
        }
    }
}
