//! The catalog, the engine and the session at one moment.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::SystemTime;

use millpond_common::settings::Settings;
use millpond_common::{RelationId, SqlType};
use millpond_engine::Engine;
use millpond_sql::{Catalog, Relation, RelationKind};
use millpond_state::remote::UploaderStatus;

use super::facts::{ColumnFacts, Facts, Kind, RelationFacts, SchemaFacts, SessionInfo};

/// When this process began to serve, near enough.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// What the system relations of one statement show.
#[derive(Clone)]
pub struct SystemSnapshot {
    /// Users' relations.
    pub catalog: Arc<Catalog>,
    /// What runs the jobs.
    pub engine: Engine,
    /// The session's settings.
    pub settings: Settings,
    /// The session's user.
    pub user: String,
    /// The database that the session is connected to.
    pub database: String,
    /// The session's own number.
    pub pid: i32,
    /// All connected sessions.
    pub sessions: Vec<SessionInfo>,
    /// Where checkpoints are uploaded to, and how that goes.
    pub storage: Option<(String, UploaderStatus)>,
    facts: Arc<OnceLock<Arc<Facts>>>,
}

impl SystemSnapshot {
    /// Takes a snapshot; its description in PostgreSQL's terms is made when it is first asked for.
    pub fn new(
        catalog: Arc<Catalog>,
        engine: Engine,
        settings: Settings,
        user: String,
        database: String,
        pid: i32,
        sessions: Vec<SessionInfo>,
    ) -> Self {
        SystemSnapshot { catalog, engine, settings, user, database, pid, sessions, storage: None, facts: Arc::default() }
    }

    /// The database in PostgreSQL's terms.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(self.facts.get_or_init(|| Arc::new(self.describe())))
    }

    fn describe(&self) -> Facts {
        let view = self.engine.store().read_view();
        let rows = |id: RelationId| view.spec(id).map(|_| view.row_estimate(id));
        let oids: BTreeMap<RelationId, u32> = self.catalog.relations().map(|r| (r.id, r.oid)).collect();
        Facts {
            database: self.database.clone(),
            user: self.user.clone(),
            pid: self.pid,
            started: *STARTED,
            version: version(),
            bytes: Some(self.engine.store().stats().disk_bytes),
            schemas: self.catalog.schemas().map(|s| SchemaFacts { oid: s.oid, name: s.name.clone(), comment: s.comment.clone() }).collect(),
            relations: self.catalog.relations().map(|r| describe_relation(r, rows(r.id), &oids)).collect(),
            settings: self.settings.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

/// What `version()` says. Clients look for PostgreSQL's name and number at its start.
pub fn version() -> String {
    format!("PostgreSQL 15.0 (Millpond {}) on {}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS)
}

/// A relation of the catalog in PostgreSQL's terms.
pub fn describe_relation(relation: &Relation, rows: Option<u64>, oids: &BTreeMap<RelationId, u32>) -> RelationFacts {
    let (kind, definition, key, options, defaults) = match &relation.kind {
        RelationKind::Table(table) => {
            (Kind::Table, None, table.primary_key.clone().unwrap_or_default(), Vec::new(), table.defaults.clone())
        }
        RelationKind::Source(source) => (Kind::Source, None, Vec::new(), source.options.clone().into_iter().collect(), Vec::new()),
        RelationKind::View { sql, .. } => (Kind::View, Some(sql.clone()), Vec::new(), Vec::new(), Vec::new()),
        RelationKind::MaterializedView { sql, .. } => (Kind::MaterializedView, Some(sql.clone()), Vec::new(), Vec::new(), Vec::new()),
    };
    let column = |(i, field): (usize, &Arc<arrow_schema::Field>)| ColumnFacts {
        name: field.name().clone(),
        sql_type: SqlType::of(field),
        // PostgreSQL knows NOT NULL of tables only.
        nullable: kind != Kind::Table || field.is_nullable(),
        default: defaults.get(i).cloned().flatten(),
        comment: relation.column_comments.get(&i).cloned(),
    };
    RelationFacts {
        oid: relation.oid,
        schema: relation.schema.clone(),
        name: relation.name.clone(),
        kind,
        columns: relation.columns.fields().iter().enumerate().map(column).collect(),
        key,
        definition,
        options,
        comment: relation.comment.clone(),
        rows,
        reads: relation.depends_on.iter().filter_map(|id| oids.get(id).copied()).collect(),
        system: false,
    }
}
