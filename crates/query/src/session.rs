//! [`Session`]: one client's connection. Statements come in, go to the module that executes their kind, and leave
//! the session in a defined state whatever happens.

mod scope;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::ArrayRef;
use arrow_schema::SchemaRef;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::prelude::SessionContext;
use millpond_common::settings::{self, Scope as SettingScope, Settings};
use millpond_common::text::zone::Zone;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::StatementKind;
use millpond_sql::scalar_subquery::OnlyRow;
use millpond_sql::set_operations::CountedRows;

pub(crate) use self::scope::Scope;
use self::scope::catalog_of;
use crate::access::SessionAccess;
use crate::aside::{aside, compute, is_simple};
use crate::block::{Block, TransactionStatus};
use crate::cancel::CancelToken;
use crate::cursor::Cursor;
use crate::database::{DATABASE_NAME, Database, Startup};
use crate::error::failed_block;
use crate::exists::ExistsAsValue;
use crate::overflow::CheckedArithmetic;
use crate::prepared::Statement;
use crate::response::{Notice, NoticeSink, Response};
use crate::saved::{Saved, savepoint_of};
use crate::system::{self, SessionInfo, SystemSnapshot};

/// How many partitions a query is executed in.
const TARGET_PARTITIONS: usize = 2;

/// Settings whose value clients are told of.
const REPORTED: [&str; 9] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "integer_datetimes",
    "intervalstyle",
    "server_encoding",
    "server_version",
    "standard_conforming_strings",
    "timezone",
];

/// One client's session.
pub struct Session {
    pub(crate) database: Arc<Database>,
    pub(crate) user: String,
    pub(crate) process_id: i32,
    pub(crate) settings: Settings,
    settings_seen: u64,
    told: BTreeMap<&'static str, String>,
    notices: NoticeSink,
    cancel: CancelToken,
    pub(crate) block: Option<Block>,
    /// What catalog functions know of this session.
    access: Arc<SessionAccess>,
    /// Functions and configuration of the planner.
    context: Arc<SessionContext>,
    /// The same with what running queries needs.
    state: Arc<SessionState>,
    /// The same for plans that are ready to run.
    pub(crate) task: Arc<TaskContext>,
    /// The log entry of the session's newest write that it may not have seen yet.
    pub(crate) last_write: Option<u64>,
    pub(crate) prepared: HashMap<String, Arc<Statement>>,
    pub(crate) cursors: HashMap<String, Cursor>,
    /// The database that it is connected to.
    pub(crate) database_name: String,
    /// The savepoint that it reads, if it does not read what is live.
    pub(crate) saved: Option<Arc<Saved>>,
}

impl Session {
    pub(crate) fn new(database: Arc<Database>, startup: Startup, notices: NoticeSink, cancel: CancelToken) -> Result<Session> {
        let database_name = startup.database.clone().unwrap_or_else(|| DATABASE_NAME.into());
        let saved = savepoint_of(&database_name).map(|name| database.saved(name)).transpose()?;
        let context = SessionContext::new_with_state(database.context.state());
        let sessions = vec![];
        let (engine, settings) = (database.engine.clone(), Settings::default());
        let first = SystemSnapshot::new(
            catalog_of(&database, saved.as_deref()).0,
            engine,
            settings,
            startup.user.clone(),
            database_name.clone(),
            startup.process_id,
            sessions,
        );
        let access = Arc::new(SessionAccess::new(first));
        system::register(&context, access.clone());
        let state = Arc::new(session_state(&database, &context));
        let defaults = Settings::default();
        let mut session = Session {
            user: startup.user,
            process_id: startup.process_id,
            settings: Settings::default(),
            settings_seen: 0,
            told: REPORTED.iter().map(|n| (*n, defaults.get(n).unwrap_or_default())).collect(),
            notices,
            cancel,
            block: None,
            access,
            context: Arc::new(context),
            task: state.task_ctx(),
            state,
            last_write: None,
            prepared: HashMap::new(),
            cursors: HashMap::new(),
            database_name,
            saved,
            database,
        };
        for (name, value) in &startup.parameters {
            if settings::find(name).is_ok_and(|s| s.scope == SettingScope::Session)
                && let Err(error) = session.settings.set(name, Some(value))
            {
                session.notice(Notice::warning(error.state(), error.message()));
            }
        }
        session.database.sessions.lock().insert(
            startup.process_id,
            SessionInfo {
                pid: startup.process_id,
                user: session.user.clone(),
                database: session.database_name.clone(),
                application: session.settings.get("application_name").unwrap_or_default(),
                client: startup.client,
                connected: SystemTime::now(),
                state: "idle",
                query: String::new(),
            },
        );
        Ok(session)
    }

    /// The statements of a text, parsed but not bound: an earlier one may create what a later one names.
    pub fn parse(&mut self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        let statements = millpond_sql::parse(sql)?;
        statements.into_iter().map(|s| Statement::new(Some(s)).map(Arc::new)).collect()
    }

    /// One statement, bound: its parameters and columns are known. `types` are those that the client declared.
    pub async fn prepare(&mut self, sql: &str, types: &[Option<SqlType>]) -> Result<Arc<Statement>> {
        let mut statements = millpond_sql::parse(sql)?;
        let parsed = statements.pop();
        if !statements.is_empty() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"));
        }
        match parsed.as_ref().is_none_or(is_simple) {
            true => self.bind(parsed, types),
            false => compute(|| self.bind(parsed, types)),
        }
    }

    /// Binds a statement.
    pub(crate) fn bind(&mut self, parsed: Option<millpond_sql::Statement>, types: &[Option<SqlType>]) -> Result<Arc<Statement>> {
        let mut statement = Statement::new(parsed)?;
        statement.bound = true;
        if let Some(parsed) = &statement.parsed {
            if self.is_failed() && !ends_block(&parsed.kind) {
                return Err(failed_block());
            }
            self.database.refresh_settings(&mut self.settings, &mut self.settings_seen)?;
            let offset = parsed.offset;
            let described = self.describe(&statement, types).map_err(|e| shifted(e, offset))?;
            (statement.parameters, statement.columns) = described;
        }
        Ok(Arc::new(statement))
    }

    /// Runs a statement. With `in_implicit_block` others share its transaction, up to [`Session::finish_implicit`].
    pub async fn execute(&mut self, statement: &Arc<Statement>, parameters: Vec<ArrayRef>, in_implicit_block: bool) -> Result<Response> {
        let Some(parsed) = &statement.parsed else { return Ok(Response::Empty) };
        self.database.transactions.gate.check()?;
        self.tell_activity("active", Some(&parsed.text));
        self.apply_changes()?;
        self.database.refresh_settings(&mut self.settings, &mut self.settings_seen)?;
        let result = self.run(statement, &parsed.kind, parameters, in_implicit_block).await;
        if result.is_err() {
            self.fail_transaction();
        }
        self.tell_activity(if self.in_block() { "idle in transaction" } else { "idle" }, None);
        result.map_err(|e| shifted(e, statement.offset()))
    }

    async fn run(
        &mut self,
        statement: &Arc<Statement>,
        kind: &StatementKind,
        parameters: Vec<ArrayRef>,
        in_block: bool,
    ) -> Result<Response> {
        if self.is_failed() && !ends_block(kind) {
            return Err(failed_block());
        }
        self.check_writable(kind)?;
        if let Some(response) = self.look_up(statement, &parameters).await? {
            return Ok(response);
        }
        if let Some(response) = self.run_ready(statement, &parameters).await? {
            return Ok(response);
        }
        let is_simple = statement.is_simple();
        let planned = self.run_planned(statement, kind, parameters, in_block);
        if is_simple { planned.await } else { aside(planned).await }
    }

    /// What has to be planned first, if it is not done without a plan.
    async fn run_planned(
        &mut self,
        statement: &Arc<Statement>,
        kind: &StatementKind,
        parameters: Vec<ArrayRef>,
        in_block: bool,
    ) -> Result<Response> {
        let scope = self.scope();
        match kind {
            StatementKind::Query(query) => self.query(statement, query, &parameters, scope).await,
            StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) | StatementKind::Truncate { .. } => {
                self.write(kind, &parameters, in_block, scope).await
            }
            StatementKind::CreateTable(_)
            | StatementKind::CreateSource(_)
            | StatementKind::CreateView(_)
            | StatementKind::CreateMaterializedView(_)
            | StatementKind::CreateSchema { .. }
            | StatementKind::Drop(_)
            | StatementKind::Rename { .. }
            | StatementKind::AlterMaterializedView { .. }
            | StatementKind::CancelJob(_)
            | StatementKind::Comment { .. } => self.ddl(kind, scope).await,
            StatementKind::Savepoint(_) | StatementKind::Release(_) if !self.in_block() => self.database_savepoint(kind, &scope).await,
            StatementKind::RestoreSavepoint(_) => self.database_savepoint(kind, &scope).await,
            StatementKind::Begin { .. }
            | StatementKind::Commit { .. }
            | StatementKind::Rollback { .. }
            | StatementKind::SetTransaction { .. }
            | StatementKind::Savepoint(_)
            | StatementKind::Release(_)
            | StatementKind::RollbackTo(_) => self.transaction_control(kind).await,
            StatementKind::Set { .. } | StatementKind::Reset(_) | StatementKind::AlterSystem { .. } => self.change_setting(kind).await,
            StatementKind::Show(show) => self.show(show, &scope),
            StatementKind::Explain { analyze, verbose, statement } => self.explain(*analyze, *verbose, &statement.kind, scope).await,
            StatementKind::ExplainCreateMaterializedView(create) => self.explain_view(create, &scope),
            StatementKind::Checkpoint { full } => self.checkpoint(*full, &scope).await,
            StatementKind::Flush => {
                scope.limits.run(self.database.engine.flush()).await?;
                Ok(Response::command("FLUSH"))
            }
            StatementKind::Discard(_)
            | StatementKind::Deallocate(_)
            | StatementKind::Prepare { .. }
            | StatementKind::Execute { .. }
            | StatementKind::DeclareCursor { .. }
            | StatementKind::Fetch { .. }
            | StatementKind::Close(_) => Box::pin(self.named(kind, &parameters, in_block, scope)).await,
            StatementKind::NoOperation(tag) => Ok(Response::command(*tag)),
        }
    }

    /// The end of a message's statements: outside of an explicit transaction, commits or rolls back what they did.
    pub async fn finish_implicit(&mut self, ok: bool) -> Result<()> {
        match self.block.take() {
            Some(block) if block.explicit => self.block = Some(block),
            Some(block) if ok && !block.failed => self.commit_block(block).await?,
            Some(block) => self.roll_back_block(block),
            None => self.close_cursors(),
        }
        Ok(())
    }

    /// Where the session stands.
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.block {
            Some(block) if block.explicit && block.failed => TransactionStatus::Failed,
            Some(block) if block.explicit => TransactionStatus::InTransaction,
            _ => TransactionStatus::Idle,
        }
    }

    /// How long it may idle as it stands now.
    pub fn patience(&self) -> Option<Duration> {
        self.settings.duration("idle_in_transaction_session_timeout").filter(|_| self.in_block())
    }

    /// An error happened, in a statement, in its rows or in the protocol.
    pub fn fail_transaction(&mut self) {
        if let Some(block) = &mut self.block {
            block.fail();
        }
    }

    /// The time zone in which moments are shown and read.
    pub fn zone(&self) -> Zone {
        self.settings.zone()
    }

    /// Settings that clients are told of and whose value changed since the last call.
    pub fn parameter_status_changes(&mut self) -> Vec<(String, String)> {
        if let Err(error) = self.apply_changes() {
            tracing::warn!(%error, "a function's change of a setting is lost");
        }
        let mut changes = Vec::new();
        for name in REPORTED {
            let now = self.settings.get(name).unwrap_or_default();
            let told = self.told.entry(name).or_default();
            if *told != now {
                told.clone_from(&now);
                changes.push((name.to_string(), now));
            }
        }
        changes
    }

    /// The columns of an open cursor, which the protocol may ask for as for a portal.
    pub fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.get(name).map(Cursor::schema)
    }

    /// The session's cancel token.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Settings that functions of earlier statements changed.
    fn apply_changes(&mut self) -> Result<()> {
        let changes = self.access.take_changes();
        changes.iter().try_for_each(|(name, value, local)| self.set(name, value.as_deref(), *local))
    }

    /// Whether an explicit transaction is open.
    pub(crate) fn in_block(&self) -> bool {
        self.block.as_ref().is_some_and(|b| b.explicit)
    }

    fn is_failed(&self) -> bool {
        self.block.as_ref().is_some_and(|b| b.failed)
    }

    /// Tells the client something, if it wants to hear it.
    pub(crate) fn notice(&self, notice: Notice) {
        self.sink()(notice);
    }

    /// Where notices go, with the present `client_min_messages`.
    pub(crate) fn sink(&self) -> NoticeSink {
        let least = self.settings.get("client_min_messages").unwrap_or_default();
        let notices = Arc::clone(&self.notices);
        match least.as_str() {
            "error" => Arc::new(|_| {}),
            "warning" => Arc::new(move |n: Notice| {
                if n.severity == "WARNING" {
                    notices(n)
                }
            }),
            _ => notices,
        }
    }

    fn tell_activity(&self, state: &'static str, query: Option<&str>) {
        if let Some(info) = self.database.sessions.lock().get_mut(&self.process_id) {
            info.state = state;
            if let Some(query) = query {
                info.query = query.to_string();
                info.application = self.settings.get("application_name").unwrap_or_default();
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.roll_back_block(block);
        }
        self.database.sessions.lock().remove(&self.process_id);
    }
}

/// DataFusion as queries run in it: checked arithmetic, bounded memory, few partitions.
fn session_state(database: &Database, context: &SessionContext) -> SessionState {
    let state = context.state();
    // Large relations come in several partitions already; spreading small ones over threads only costs.
    let config = state.config().clone().with_target_partitions(TARGET_PARTITIONS).with_round_robin_repartition(false);
    SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .with_runtime_env(Arc::clone(&database.runtime))
        .with_analyzer_rule(Arc::new(CountedRows))
        .with_analyzer_rule(Arc::new(OnlyRow))
        .with_analyzer_rule(Arc::new(ExistsAsValue))
        .with_analyzer_rule(Arc::new(CheckedArithmetic))
        .build()
}

/// Whether a statement may run in a failed block.
fn ends_block(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::Commit { .. } | StatementKind::Rollback { .. } | StatementKind::RollbackTo(_))
}

/// An error whose position counts from the start of the client's text.
fn shifted(error: Error, offset: usize) -> Error {
    match error.position() {
        Some(position) if offset > 0 => error.at(position + offset),
        _ => error,
    }
}
