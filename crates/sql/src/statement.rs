//! What a statement asks for.

use std::collections::BTreeMap;
use std::fmt;

use sqlparser::ast;

/// A statement with its text.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its own slice of the client's text, without the semicolon.
    pub text: String,
    /// How many characters of the client's text stand before it; add it to positions that are relative to [`Statement::text`].
    pub offset: usize,
    /// How deeply it nests, and how long its chains of operators and joins are: what planning it costs grows with that.
    pub depth: usize,
    /// What it asks for.
    pub kind: StatementKind,
}

/// The name of a relation, folded to lower case where it was not quoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The schema, where one was written.
    pub schema: Option<String>,
    /// The name in it.
    pub name: String,
    /// 1-based character position in the statement's text, 0 if unknown.
    pub position: usize,
}

impl Name {
    /// A name without a schema.
    pub fn bare(name: impl Into<String>) -> Self {
        Name { schema: None, name: name.into(), position: 0 }
    }

    /// A name in a schema.
    pub fn qualified(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Name { schema: Some(schema.into()), name: name.into(), position: 0 }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// An identifier as PostgreSQL folds it.
pub fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// What a statement asks for.
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// SELECT, VALUES, TABLE, WITH …
    Query(Box<ast::Query>),
    /// INSERT
    Insert(Box<ast::Insert>),
    /// UPDATE
    Update(Box<ast::Update>),
    /// DELETE
    Delete(Box<ast::Delete>),
    /// TRUNCATE of these tables
    Truncate {
        /// Which tables.
        names: Vec<Name>,
        /// Whether those that are missing are skipped.
        if_exists: bool,
        /// Whether tables that refer to them are emptied too.
        cascade: bool,
    },
    /// CREATE TABLE
    CreateTable(CreateTable),
    /// CREATE SOURCE
    CreateSource(CreateSource),
    /// CREATE VIEW
    CreateView(CreateView),
    /// CREATE MATERIALIZED VIEW
    CreateMaterializedView(CreateMaterializedView),
    /// CREATE SCHEMA
    CreateSchema {
        /// Its name.
        name: String,
        /// Whether an existing one is fine.
        if_not_exists: bool,
    },
    /// DROP of any kind
    Drop(Drop),
    /// ALTER … RENAME TO
    Rename {
        /// What kind of relation the statement says it is.
        kind: DropKind,
        /// The present name.
        name: Name,
        /// Whether a missing one is fine.
        if_exists: bool,
        /// The new name, in the same schema.
        new_name: String,
    },
    /// ALTER MATERIALIZED VIEW … SET, RESET or RESTART
    AlterMaterializedView {
        /// The view.
        name: Name,
        /// Whether a missing one is fine.
        if_exists: bool,
        /// What to do with it.
        action: AlterView,
    },
    /// CANCEL JOB number
    CancelJob(u32),
    /// COMMENT ON
    Comment {
        /// On what.
        target: CommentTarget,
        /// The text; `None` removes it.
        comment: Option<String>,
    },
    /// BEGIN, START TRANSACTION
    Begin {
        /// ISOLATION LEVEL, where given.
        isolation: Option<Isolation>,
        /// READ ONLY or READ WRITE, where given.
        read_only: Option<bool>,
    },
    /// COMMIT, END
    Commit {
        /// AND CHAIN
        chain: bool,
    },
    /// ROLLBACK, ABORT
    Rollback {
        /// AND CHAIN
        chain: bool,
    },
    /// SET TRANSACTION, SET SESSION CHARACTERISTICS AS TRANSACTION
    SetTransaction {
        /// For all transactions of the session that follow.
        session: bool,
        /// ISOLATION LEVEL, where given.
        isolation: Option<Isolation>,
        /// READ ONLY or READ WRITE, where given.
        read_only: Option<bool>,
    },
    /// SAVEPOINT name (inside a transaction; outside it names a copy of the database)
    Savepoint(String),
    /// RELEASE SAVEPOINT name
    Release(String),
    /// ROLLBACK TO SAVEPOINT name
    RollbackTo(String),
    /// SET name = value
    Set {
        /// The setting.
        name: String,
        /// Its value; `None` = DEFAULT. Lists are joined by `, `.
        value: Option<String>,
        /// SET LOCAL: for this transaction only.
        local: bool,
    },
    /// RESET name; `None` = RESET ALL
    Reset(Option<String>),
    /// SHOW
    Show(ShowKind),
    /// ALTER SYSTEM SET name = value; `None` = RESET
    AlterSystem {
        /// The setting.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// EXPLAIN of a query or DML
    Explain {
        /// Run it and show live figures.
        analyze: bool,
        /// All details.
        verbose: bool,
        /// What is explained.
        statement: Box<Statement>,
    },
    /// EXPLAIN CREATE MATERIALIZED VIEW
    ExplainCreateMaterializedView(CreateMaterializedView),
    /// CHECKPOINT, CHECKPOINT (FULL)
    Checkpoint {
        /// Every byte is written anew.
        full: bool,
    },
    /// RESTORE SAVEPOINT name
    RestoreSavepoint(String),
    /// FLUSH
    Flush,
    /// DISCARD ALL | PLANS | TEMP | SEQUENCES
    Discard(DiscardKind),
    /// DEALLOCATE name; `None` = ALL
    Deallocate(Option<String>),
    /// PREPARE name (types) AS statement
    Prepare {
        /// Its name.
        name: String,
        /// Declared parameter types.
        types: Vec<ast::DataType>,
        /// What is prepared.
        statement: Box<Statement>,
    },
    /// EXECUTE name (arguments)
    Execute {
        /// Its name.
        name: String,
        /// Constant expressions.
        arguments: Vec<ast::Expr>,
    },
    /// DECLARE name CURSOR FOR query
    DeclareCursor {
        /// Its name.
        name: String,
        /// WITH HOLD
        hold: bool,
        /// Its query.
        query: Box<ast::Query>,
    },
    /// FETCH or MOVE
    Fetch {
        /// Of which cursor.
        name: String,
        /// How many rows forward.
        count: FetchCount,
        /// MOVE: skip instead of returning.
        skip: bool,
    },
    /// CLOSE name; `None` = ALL
    Close(Option<String>),
    /// A statement that PostgreSQL's clients send for its effect on a server that is not there (LISTEN, VACUUM, ANALYZE, LOCK …): do nothing, answer with this tag.
    NoOperation(&'static str),
}

/// How many rows FETCH gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCount {
    /// So many.
    Rows(u64),
    /// All that remain.
    All,
}

/// The isolation levels of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // SQL's names
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// DISCARD's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // SQL's names
pub enum DiscardKind {
    All,
    Plans,
    Sequences,
    Temp,
}

/// CREATE TABLE, as written; [`crate::create_table`] binds it.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: Name,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Column definitions.
    pub columns: Vec<ast::ColumnDef>,
    /// Table constraints.
    pub constraints: Vec<ast::TableConstraint>,
    /// CREATE TABLE … AS: the rows it starts with.
    pub query: Option<Box<ast::Query>>,
}

/// CREATE SOURCE, as written; [`crate::create_source`] binds it.
#[derive(Clone, Debug)]
pub struct CreateSource {
    /// Its name.
    pub name: Name,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Column definitions; empty where the connector knows them.
    pub columns: Vec<ast::ColumnDef>,
    /// Table constraints.
    pub constraints: Vec<ast::TableConstraint>,
    /// WITH (…): option names in lower case.
    pub options: BTreeMap<String, String>,
    /// FORMAT … ENCODE … (…), where written.
    pub format: Option<SourceFormat>,
}

/// FORMAT … ENCODE … (…).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFormat {
    /// The word after FORMAT, in upper case: PLAIN.
    pub format: String,
    /// The word after ENCODE, in upper case: CSV, JSON, PARQUET.
    pub encode: String,
    /// The options in parentheses, names in lower case.
    pub options: BTreeMap<String, String>,
}

/// CREATE VIEW.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// OR REPLACE
    pub or_replace: bool,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Its name.
    pub name: Name,
    /// Column names, where written.
    pub columns: Vec<ast::Ident>,
    /// Its query.
    pub query: Box<ast::Query>,
    /// The query's text, as the user wrote it.
    pub query_text: String,
}

/// CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug)]
pub struct CreateMaterializedView {
    /// Its name.
    pub name: Name,
    /// Whether it may replace an existing one.
    pub or_replace: bool,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Column names, where written.
    pub columns: Vec<ast::Ident>,
    /// WITH (…)
    pub options: BTreeMap<String, String>,
    /// Its query.
    pub query: Box<ast::Query>,
    /// The query's text, as the user wrote it.
    pub query_text: String,
}

/// DROP.
#[derive(Clone, Debug)]
pub struct Drop {
    /// Of what kind.
    pub kind: DropKind,
    /// Which; for schemas the name alone counts.
    pub names: Vec<Name>,
    /// Whether a missing one is fine.
    pub if_exists: bool,
    /// Whether those that depend on them go too.
    pub cascade: bool,
}

/// What DROP and ALTER say that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // SQL's names
pub enum DropKind {
    Table,
    Source,
    View,
    MaterializedView,
    Schema,
}

impl DropKind {
    /// As error messages name it.
    pub fn noun(self) -> &'static str {
        match self {
            DropKind::Table => "table",
            DropKind::Source => "source",
            DropKind::View => "view",
            DropKind::MaterializedView => "materialized view",
            DropKind::Schema => "schema",
        }
    }
}

/// What ALTER MATERIALIZED VIEW does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterView {
    /// SET (option = value, …), RESET (option, …): `None` returns to the server's setting.
    Options(BTreeMap<String, Option<String>>),
    /// RESTART: empty it and fill it anew.
    Restart,
}

/// What a comment is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommentTarget {
    /// A relation of the named kind.
    Relation(DropKind, Name),
    /// A column of a relation.
    Column(Name, String),
    /// A schema.
    Schema(String),
    /// The database.
    Database,
}

/// What SHOW shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // SQL's names
pub enum ShowKind {
    Variable(String),
    All,
    Jobs,
    Sources,
    Tables,
    Views,
    MaterializedViews,
    Checkpoints,
    Savepoints,
    Schemas,
    Databases,
    Columns(Name),
    /// SHOW CREATE TABLE | SOURCE | VIEW | MATERIALIZED VIEW name
    Create(Name),
}
