//! The database as PostgreSQL's catalog would describe it: what the system relations and functions are computed from.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::SystemTime;

use millpond_common::SqlType;
use millpond_common::settings::Settings;

use super::definitions::{DEFINITIONS, Definition};

/// The number of `pg_catalog`.
pub const PG_CATALOG: u32 = 11;
/// The number of the one role that exists: whoever is connected.
pub const ROLE: u32 = 10;
/// The number of the one database.
pub const DATABASE: u32 = 5;
/// The number of the access method of everything stored.
pub const ACCESS_METHOD: u32 = 2;
/// The number of the access method of primary keys.
pub const INDEX_METHOD: u32 = 403;
/// The number of the foreign server that all sources belong to.
pub const SERVER: u32 = 13_950;
/// Added to a table's number, the number of its primary key's index.
const INDEX_OFFSET: u32 = 1 << 30;

/// What kind of relation it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the variants are SQL's words
pub enum Kind {
    Table,
    View,
    MaterializedView,
    Source,
}

impl Kind {
    /// The letter in `pg_class.relkind`. A source is a foreign table: its rows are elsewhere.
    pub fn letter(self) -> &'static str {
        match self {
            Kind::Table => "r",
            Kind::View => "v",
            Kind::MaterializedView => "m",
            Kind::Source => "f",
        }
    }
    /// The words in `information_schema.tables`.
    pub fn table_type(self) -> &'static str {
        match self {
            Kind::Table => "BASE TABLE",
            Kind::View | Kind::MaterializedView => "VIEW",
            Kind::Source => "FOREIGN",
        }
    }
}

/// A schema.
#[derive(Clone, Debug)]
pub struct SchemaFacts {
    /// Its number.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
}

/// A column.
#[derive(Clone, Debug)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its default as SQL.
    pub default: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
}

/// A table, view, materialized view or source.
#[derive(Clone, Debug)]
pub struct RelationFacts {
    /// Its number.
    pub oid: u32,
    /// Its schema's name.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its columns.
    pub columns: Vec<ColumnFacts>,
    /// The columns of its declared primary key; empty without one.
    pub key: Vec<usize>,
    /// The query of a view.
    pub definition: Option<String>,
    /// What was given in `WITH (…)`.
    pub options: Vec<(String, String)>,
    /// Its comment.
    pub comment: Option<String>,
    /// How many rows it has, about; unknown for a source.
    pub rows: Option<u64>,
    /// The relations that it reads.
    pub reads: Vec<u32>,
    /// Part of the system catalog.
    pub system: bool,
}

impl RelationFacts {
    /// The number of its primary key's index, if it has one.
    pub fn index_oid(&self) -> Option<u32> {
        (self.kind == Kind::Table && !self.key.is_empty()).then_some(self.oid | INDEX_OFFSET)
    }
    /// The name of its primary key and of its index.
    pub fn index_name(&self) -> String {
        format!("{}_pkey", self.name)
    }
    /// The names of its key columns.
    pub fn key_columns(&self) -> Vec<&str> {
        self.key.iter().filter_map(|i| self.columns.get(*i)).map(|c| c.name.as_str()).collect()
    }
    /// Its key columns as SQL, and their positions from 1.
    pub fn key_list(&self) -> String {
        self.key_columns().iter().map(|c| quote_ident(c)).collect::<Vec<_>>().join(", ")
    }
    /// Positions of its key columns, from 1.
    pub fn key_positions(&self) -> Vec<i64> {
        self.key.iter().map(|i| i64::try_from(*i).unwrap_or(0) + 1).collect()
    }
}

/// A connected session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The number that cancels it.
    pub pid: i32,
    /// Its user.
    pub user: String,
    /// Its database.
    pub database: String,
    /// The name that the client gave itself.
    pub application: String,
    /// Where the client is.
    pub client: Option<SocketAddr>,
    /// When it connected.
    pub connected: SystemTime,
    /// `active`, `idle`, `idle in transaction`.
    pub state: &'static str,
    /// Its current or last statement.
    pub query: String,
}

/// Everything that the catalog says, at one moment, to one session.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The database's name.
    pub database: String,
    /// The session's user.
    pub user: String,
    /// The session's number.
    pub pid: i32,
    /// When the server started.
    pub started: SystemTime,
    /// Version text.
    pub version: String,
    /// Bytes on disk, where known.
    pub bytes: Option<u64>,
    /// User schemas, with `public`.
    pub schemas: Vec<SchemaFacts>,
    /// User relations.
    pub relations: Vec<RelationFacts>,
    /// The session's settings.
    pub settings: Settings,
    /// All sessions.
    pub sessions: Vec<SessionInfo>,
}

static SYSTEM_RELATIONS: LazyLock<Vec<RelationFacts>> = LazyLock::new(|| DEFINITIONS.values().map(system_relation).collect());

fn system_relation(definition: &Definition) -> RelationFacts {
    let column = |(name, of): &(&'static str, SqlType)| ColumnFacts {
        name: (*name).to_string(),
        sql_type: of.clone(),
        nullable: true,
        default: None,
        comment: None,
    };
    RelationFacts {
        oid: definition.oid,
        schema: definition.schema.to_string(),
        name: definition.name.to_string(),
        kind: if definition.view { Kind::View } else { Kind::Table },
        columns: definition.columns.iter().map(column).collect(),
        key: Vec::new(),
        definition: None,
        options: Vec::new(),
        comment: None,
        rows: None,
        reads: Vec::new(),
        system: true,
    }
}

/// The schemas that every database has, beside the user's.
const SYSTEM_SCHEMAS: &[(u32, &str, &str)] = &[
    (PG_CATALOG, "pg_catalog", "system catalog schema"),
    (13_183, "information_schema", "the SQL standard's description of the database"),
    (14_000, "millpond", "jobs, sources, checkpoints, operators: what the engine is doing"),
];

impl Facts {
    /// User relations, then system relations.
    pub fn all_relations(&self) -> impl Iterator<Item = &RelationFacts> {
        self.relations.iter().chain(SYSTEM_RELATIONS.iter())
    }

    /// User schemas, then system schemas.
    pub fn all_schemas(&self) -> impl Iterator<Item = SchemaFacts> + '_ {
        let system = SYSTEM_SCHEMAS.iter().map(|(oid, name, comment)| SchemaFacts {
            oid: *oid,
            name: (*name).into(),
            comment: Some((*comment).into()),
        });
        self.schemas.iter().cloned().chain(system)
    }

    /// The number of a schema; 0 if there is none.
    pub fn schema_oid(&self, name: &str) -> u32 {
        let user = self.schemas.iter().find(|s| s.name == name).map(|s| s.oid);
        user.or_else(|| SYSTEM_SCHEMAS.iter().find(|s| s.1 == name).map(|s| s.0)).unwrap_or(0)
    }

    /// The relation of a number.
    pub fn relation(&self, oid: u32) -> Option<&RelationFacts> {
        self.all_relations().find(|r| r.oid == oid)
    }

    /// The table whose primary key's index has that number.
    pub fn indexed(&self, oid: u32) -> Option<&RelationFacts> {
        self.relations.iter().find(|r| r.index_oid() == Some(oid))
    }

    /// The existing schemas that unqualified names are looked up in; `pg_catalog` first, as PostgreSQL does unasked.
    pub fn search_path(&self, implicit: bool) -> Vec<String> {
        let text = self.settings.get("search_path").unwrap_or_default();
        let mut path: Vec<String> = Vec::new();
        for word in text.split(',') {
            let word = word.trim().trim_matches('"');
            let name = if word == "$user" { self.user.as_str() } else { word };
            if self.schema_oid(name) != 0 && !path.iter().any(|p| p == name) {
                path.push(name.to_string());
            }
        }
        if implicit && !path.iter().any(|p| p == "pg_catalog") {
            path.insert(0, "pg_catalog".into());
        }
        path
    }

    /// Whether a relation is the one that its bare name finds.
    pub fn is_visible(&self, schema: &str, name: &str) -> bool {
        let path = self.search_path(true);
        let first = path.iter().find(|s| {
            self.all_relations().any(|r| r.schema == **s && (r.name == name || (r.index_oid().is_some() && r.index_name() == name)))
        });
        first.is_some_and(|s| s == schema)
    }

    /// The number of the relation or index that a possibly qualified and quoted name means.
    pub fn find_relation(&self, text: &str) -> Option<u32> {
        let parts = split_name(text)?;
        let in_schema = |schema: &str, name: &str| {
            let relation = self.all_relations().find(|r| r.schema == schema && r.name == name).map(|r| r.oid);
            relation.or_else(|| {
                self.relations
                    .iter()
                    .find(|r| r.schema == schema && r.index_oid().is_some() && r.index_name() == name)
                    .and_then(|r| r.index_oid())
            })
        };
        match parts.as_slice() {
            [name] => self.search_path(true).iter().find_map(|schema| in_schema(schema, name)),
            [schema, name] => in_schema(schema, name),
            [database, schema, name] if *database == self.database => in_schema(schema, name),
            _ => None,
        }
    }

    /// A relation's or index's name as `regclass` prints it.
    pub fn regclass(&self, oid: u32) -> Option<String> {
        let (schema, name) = match self.relation(oid) {
            Some(r) => (r.schema.clone(), r.name.clone()),
            None => self.indexed(oid).map(|r| (r.schema.clone(), r.index_name()))?,
        };
        Some(if self.is_visible(&schema, &name) { quote_ident(&name) } else { format!("{}.{}", quote_ident(&schema), quote_ident(&name)) })
    }
}

/// Splits `a."B c"` into its folded parts.
pub fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.trim().chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    if quoted || part.is_empty() {
        return None;
    }
    parts.push(part);
    Some(parts)
}

/// Words that must be quoted where a name is expected.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// A name as SQL: quoted where it must be.
pub fn quote_ident(name: &str) -> String {
    let plain = name.chars().enumerate().all(|(i, c)| c == '_' || c.is_ascii_lowercase() || (i > 0 && (c.is_ascii_digit() || c == '$')));
    if plain && !name.is_empty() && !RESERVED.contains(&name) { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as a SQL literal.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
