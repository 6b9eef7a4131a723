//! The extended query protocol: statements are parsed once, bound to parameters as portals, and portals executed,
//! in portions if the client likes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;
use millpond_common::{Error, Result, SqlState, SqlType};

use crate::binary::FromBinary;
use crate::connection::Connection;
use crate::database::{Response, Statement};
use crate::describe::{oid, parameter_type, row_description};
use crate::frame::violation;
use crate::frontend::{Bind, FrontendMessage, Target};
use crate::io::Fault;
use crate::rows::{Portion, Rows};
use crate::text;
use crate::text::decode::ColumnBuilder;

/// How many portals a session may hold.
const NAMES_MAX: usize = 10_000;

/// A session's portals by name (the unnamed one has the empty name), and its unnamed statement.
#[derive(Default)]
pub(crate) struct Prepared {
    unnamed: Option<Arc<dyn Statement>>,
    pub(crate) portals: HashMap<String, Portal>,
    /// Whether anything was executed since the last Sync.
    pub(crate) executed: bool,
}

impl Prepared {
    /// A simple query ends the unnamed statement and portal.
    pub(crate) fn forget_unnamed(&mut self) {
        self.unnamed = None;
        self.portals.remove("");
    }
}

/// A statement with its parameters.
pub(crate) struct Portal {
    statement: Arc<dyn Statement>,
    /// Per column of the result: binary or text.
    binary: Vec<bool>,
    state: PortalState,
}

enum PortalState {
    Bound(Vec<ArrayRef>),
    Running(Rows),
    /// Ran to its end; what executing it again answers, if it may be.
    Finished(Option<String>),
}

fn no_portal(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

impl Connection {
    fn statement(&self, name: &str) -> Result<Arc<dyn Statement>> {
        let found = if name.is_empty() { self.prepared.unnamed.clone() } else { self.session.named(name) };
        found.ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_string(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    /// Handles Parse, Bind, Describe, Execute or Close.
    pub(crate) async fn extended(&mut self, message: FrontendMessage) -> Result<(), Fault> {
        match message {
            FrontendMessage::Parse { name, sql, parameter_types } => self.parse(name, &sql, &parameter_types).await,
            FrontendMessage::Bind(bind) => Ok(self.bind(bind)?),
            FrontendMessage::Describe { target: Target::Statement, name } => Ok(self.describe_statement(&name)?),
            FrontendMessage::Describe { target: Target::Portal, name } => Ok(self.describe_portal(&name)?),
            FrontendMessage::Execute { portal, rows_max } => self.execute_portal(portal, rows_max).await,
            FrontendMessage::Close { target, name } => {
                match target {
                    Target::Statement if name.is_empty() => self.prepared.unnamed = None,
                    Target::Statement => self.session.forget(&name),
                    Target::Portal => drop(self.prepared.portals.remove(&name)),
                }
                self.io.output.close_complete();
                Ok(())
            }
            _ => Err(Connection::unexpected()),
        }
    }

    async fn parse(&mut self, name: String, sql: &Bytes, parameter_types: &[u32]) -> Result<(), Fault> {
        self.io.cancel.reset();
        if name.is_empty() {
            self.prepared.unnamed = None;
        }
        let sql = text::utf8(sql)?;
        let types = parameter_types.iter().map(|oid| parameter_type(*oid)).collect::<Result<Vec<_>>>()?;
        let statement = self.io.during(self.session.prepare(sql, &types)).await??;
        match name.is_empty() {
            true => self.prepared.unnamed = Some(statement),
            false => self.session.name(name, &statement)?,
        }
        self.io.output.parse_complete();
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<()> {
        let statement = self.statement(&bind.statement)?;
        if !bind.portal.is_empty() {
            if self.prepared.portals.contains_key(&bind.portal) {
                return Err(Error::new(SqlState::DUPLICATE_CURSOR, format!("cursor \"{}\" already exists", bind.portal)));
            }
            if self.prepared.portals.len() >= NAMES_MAX {
                return Err(too_many("portals"));
            }
        }
        let types = statement.parameters();
        let given = bind.parameters.len();
        if !matches!(bind.parameter_formats.len(), 0 | 1) && bind.parameter_formats.len() != given {
            return Err(violation(format!("bind message has {} parameter formats but {given} parameters", bind.parameter_formats.len())));
        }
        if given != types.len() {
            return Err(violation(format!(
                "bind message supplies {given} parameters, but prepared statement \"{}\" requires {}",
                bind.statement,
                types.len()
            )));
        }
        let binary = formats(&bind.parameter_formats, given)?;
        let values = bind.parameters.iter().zip(types).zip(binary).enumerate();
        let read = || values.map(|(i, ((value, sql), binary))| parameter(i, value.as_deref(), sql, binary)).collect::<Result<Vec<_>>>();
        let parameters = self.session.zone().during(read)?;
        let columns = statement.columns().map_or(0, |c| c.fields().len());
        if !matches!(bind.result_formats.len(), 0 | 1) && bind.result_formats.len() != columns {
            return Err(violation(format!(
                "bind message has {} result formats but query has {columns} columns",
                bind.result_formats.len()
            )));
        }
        let binary = formats(&bind.result_formats, columns)?;
        self.prepared.portals.insert(bind.portal, Portal { statement, binary, state: PortalState::Bound(parameters) });
        self.io.output.bind_complete();
        Ok(())
    }

    fn describe_statement(&mut self, name: &str) -> Result<()> {
        let statement = self.statement(name)?;
        let columns = statement.columns().map(|schema| row_description(&schema, |_| false)).transpose()?;
        self.io.output.parameter_description(statement.parameters().iter().map(oid).collect());
        match columns {
            Some(columns) => self.io.output.row_description(columns),
            None => self.io.output.no_data(),
        }
        Ok(())
    }

    fn describe_portal(&mut self, name: &str) -> Result<()> {
        let (columns, binary) = match (self.prepared.portals.get(name), self.session.cursor_columns(name)) {
            (Some(portal), _) => (portal.statement.columns(), portal.binary.as_slice()),
            (None, Some(columns)) => (Some(columns), [].as_slice()),
            (None, None) => return Err(no_portal(name)),
        };
        match columns {
            Some(schema) => self.io.output.row_description(row_description(&schema, |i| binary.get(i).copied().unwrap_or(false))?),
            None => self.io.output.no_data(),
        }
        Ok(())
    }

    async fn execute_portal(&mut self, name: String, rows_max: usize) -> Result<(), Fault> {
        // Taken out while it runs; a transaction that ends meanwhile takes the others with it.
        let mut portal = self.prepared.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        if let PortalState::Bound(parameters) = &mut portal.state {
            let parameters = std::mem::take(parameters);
            // Whether the statement is alone is known once the next message begins. Until then the client cannot
            // have seen an answer, so that waiting for it changes nothing.
            let alone = !std::mem::replace(&mut self.prepared.executed, true) && self.io.peek_kind().await? == b'S';
            self.io.cancel.reset();
            match self.execute(&portal.statement, parameters, !alone).await? {
                Response::Rows { schema, rows, tag } => {
                    check_columns(portal.statement.as_ref(), &schema)?;
                    portal.state = PortalState::Running(Rows::new(&schema, rows, tag, portal.binary.clone()));
                }
                Response::Command { tag } => {
                    self.io.output.command_complete(&tag);
                    portal.state = PortalState::Finished(None);
                }
                Response::Empty => {
                    self.io.output.empty_query();
                    portal.state = PortalState::Finished(None);
                }
            }
        } else if let PortalState::Finished(tag) = &portal.state {
            let tag = tag
                .as_ref()
                .ok_or_else(|| Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("portal \"{name}\" cannot be run")))?;
            self.io.output.command_complete(tag);
        } else {
            self.io.cancel.reset();
        }
        if let PortalState::Running(rows) = &mut portal.state {
            match rows.send(&mut self.io, rows_max).await? {
                Portion::Suspended => self.io.output.portal_suspended(),
                Portion::Complete(tag) => {
                    self.io.output.command_complete(&tag);
                    portal.state = PortalState::Finished(rows.finished_tag());
                }
            }
        }
        self.prepared.portals.insert(name, portal);
        Ok(())
    }
}

fn too_many(what: &str) -> Error {
    Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, format!("a session may hold at most {NAMES_MAX} {what}"))
        .with_hint("Close those that are no longer needed.")
}

/// Whether each of `count` values is binary: no code means text, one code holds for all.
fn formats(codes: &[u16], count: usize) -> Result<Vec<bool>> {
    let code = |code: u16| match code {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unsupported format code: {other}"))),
    };
    match codes {
        [] => Ok(vec![false; count]),
        [one] => Ok(vec![code(*one)?; count]),
        each => each.iter().map(|c| code(*c)).collect(),
    }
}

/// A parameter's value as an array of one row.
fn parameter(index: usize, value: Option<&[u8]>, sql: &SqlType, binary: bool) -> Result<ArrayRef> {
    let mut builder = ColumnBuilder::new(sql);
    match value {
        None => builder.append_null(),
        Some(bytes) if binary => builder.append_binary(bytes).map_err(|e| {
            if e.state() == SqlState::INVALID_BINARY_REPRESENTATION && e.detail().is_none() {
                let what = format!("{} in bind parameter {}", e.message(), index + 1);
                return Error::new(e.state(), what).with_detail(format!("The parameter is of type {}.", sql.name()));
            }
            e
        })?,
        Some(bytes) => builder.append_text(text::utf8(bytes)?)?,
    }
    builder.finish()
}

/// What was described to the client must be what it gets.
fn check_columns(statement: &dyn Statement, schema: &arrow_schema::SchemaRef) -> Result<()> {
    let described = statement.columns();
    let oids = |s: &arrow_schema::SchemaRef| s.fields().iter().map(|f| oid(&SqlType::of(f))).collect::<Vec<_>>();
    if described.as_ref().map(&oids) == Some(oids(schema)) {
        return Ok(());
    }
    Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type").with_hint("Prepare the statement again."))
}
