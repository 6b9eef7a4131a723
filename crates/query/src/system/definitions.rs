//! What columns every system relation has: read once from the lists in `definitions/`.
//!
//! A line is `name oid kind: column type, …`; kind `r` is a table and `v` a view, as in PostgreSQL 15, so that
//! clients find every column that they know. Relations without a filling function are simply empty.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use arrow_schema::{Schema, SchemaRef};
use millpond_common::SqlType;

/// A system relation's shape.
pub struct Definition {
    /// `pg_catalog`, `information_schema` or `millpond`.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its number in `pg_class`.
    pub oid: u32,
    /// Whether it is a view in PostgreSQL: then what is not known is NULL, otherwise 0, false or empty.
    pub view: bool,
    /// Its columns in order.
    pub columns: Vec<(&'static str, SqlType)>,
    /// Position of each column.
    pub index: HashMap<&'static str, usize>,
    /// The same for Arrow.
    pub arrow: SchemaRef,
}

/// All system relations by schema and name.
pub static DEFINITIONS: LazyLock<BTreeMap<(&'static str, &'static str), Definition>> = LazyLock::new(|| {
    let lists = [
        ("pg_catalog", include_str!("definitions/pg_catalog.txt")),
        ("information_schema", include_str!("definitions/information_schema.txt")),
        ("millpond", include_str!("definitions/millpond.txt")),
    ];
    lists.iter().flat_map(|(schema, text)| text.lines().filter_map(|line| parse(schema, line))).map(|d| ((d.schema, d.name), d)).collect()
});

/// Finds a system relation.
pub fn find(schema: &str, name: &str) -> Option<&'static Definition> {
    DEFINITIONS.values().find(|d| d.name == name && d.schema == schema)
}

fn parse(schema: &'static str, line: &'static str) -> Option<Definition> {
    let (head, columns) = line.split_once(':')?;
    let mut head = head.split(' ');
    let (name, oid, kind) = (head.next()?, head.next()?.parse().ok()?, head.next()?);
    let columns: Vec<(&'static str, SqlType)> =
        columns.split(',').filter_map(|c| c.trim().split_once(' ')).map(|(column, of)| (column, sql_type(of))).collect();
    let fields: Vec<_> = columns.iter().map(|(column, of)| of.field(column, true)).collect();
    let index = columns.iter().enumerate().map(|(i, (column, _))| (*column, i)).collect();
    Some(Definition { schema, name, oid, view: kind == "v", columns, index, arrow: Schema::new(fields).into() })
}

fn sql_type(word: &str) -> SqlType {
    if let Some(item) = word.strip_suffix("[]") {
        return SqlType::Array(Box::new(sql_type(item)));
    }
    match word {
        "boolean" => SqlType::Boolean,
        "smallint" => SqlType::SmallInt,
        "integer" => SqlType::Integer,
        "bigint" => SqlType::BigInt,
        "real" => SqlType::Real,
        "double" => SqlType::Double,
        "name" => SqlType::Name,
        "oid" => SqlType::Oid,
        "char" => SqlType::Char,
        "varchar" => SqlType::Varchar(None),
        "bytea" => SqlType::Bytea,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        _ => SqlType::Text,
    }
}
