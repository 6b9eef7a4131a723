//! Every system relation has the columns that its rows are given, and says what PostgreSQL's would.

#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use arrow::array::{AsArray, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use millpond_common::SqlType;
use millpond_common::settings::Settings;
use millpond_sql::SystemRelations;

use super::definitions::{self, DEFINITIONS};
use super::facts::{ColumnFacts, Facts, Kind, RelationFacts, SchemaFacts, SessionInfo, quote_ident, quote_literal, split_name};
use super::rows::Rows;
use super::{System, information_schema, pg_catalog, types};

fn column(name: &str, sql_type: SqlType, nullable: bool) -> ColumnFacts {
    ColumnFacts { name: name.into(), sql_type, nullable, default: None, comment: None }
}

fn relation(oid: u32, name: &str, kind: Kind) -> RelationFacts {
    let columns = vec![
        column("id", SqlType::BigInt, kind != Kind::Table),
        ColumnFacts { default: Some("'x'".into()), comment: Some("its name".into()), ..column("Name", SqlType::Varchar(Some(20)), true) },
        column("amount", SqlType::Numeric { precision: 12, scale: 2 }, true),
        column("tags", SqlType::Array(Box::new(SqlType::Text)), true),
    ];
    RelationFacts {
        oid,
        schema: "public".into(),
        name: name.into(),
        kind,
        columns,
        key: if kind == Kind::Table { vec![0] } else { vec![] },
        definition: matches!(kind, Kind::View | Kind::MaterializedView).then(|| "SELECT 1".to_string()),
        options: if kind == Kind::Source { vec![("connector".into(), "file".into())] } else { vec![] },
        comment: Some("a comment".into()),
        rows: Some(3),
        reads: vec![16384],
        system: false,
    }
}

fn facts() -> Facts {
    Facts {
        database: "dev".into(),
        user: "me".into(),
        pid: 7,
        started: SystemTime::UNIX_EPOCH,
        version: "PostgreSQL 15.0".into(),
        bytes: Some(1),
        schemas: vec![SchemaFacts { oid: 2200, name: "public".into(), comment: None }],
        relations: vec![
            relation(16384, "t", Kind::Table),
            relation(16385, "v", Kind::View),
            relation(16386, "mv", Kind::MaterializedView),
            relation(16387, "s", Kind::Source),
        ],
        settings: Settings::default(),
        sessions: vec![SessionInfo {
            pid: 7,
            user: "me".into(),
            database: "dev".into(),
            application: String::new(),
            client: None,
            connected: SystemTime::UNIX_EPOCH,
            state: "active",
            query: String::new(),
        }],
    }
}

/// In tests a cell for a column that does not exist panics.
fn rows(schema: &str, name: &str) -> RecordBatch {
    let mut rows = Rows::new(definitions::find(schema, name).unwrap());
    match schema {
        "pg_catalog" => pg_catalog::fill(name, &facts(), &mut rows),
        _ => information_schema::fill(name, &facts(), &mut rows),
    }
    rows.finish().unwrap()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> String {
    batch.column_by_name(column).unwrap().as_string::<i32>().value(row).to_string()
}

#[test]
fn every_relation_can_be_filled() {
    assert!(DEFINITIONS.len() > 170);
    for (schema, name) in DEFINITIONS.keys().filter(|(schema, _)| *schema != "millpond") {
        let batch = rows(schema, name);
        assert_eq!(Some(batch.schema()), System.schema_of(schema, name));
    }
}

#[test]
fn kinds_of_relations() {
    let batch = rows("pg_catalog", "pg_class");
    let kinds: Vec<(String, String)> = (0..5).map(|i| (text(&batch, "relname", i), text(&batch, "relkind", i))).collect();
    let expected = [("t", "r"), ("t_pkey", "i"), ("v", "v"), ("mv", "m"), ("s", "f")];
    assert_eq!(kinds, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    let batch = rows("information_schema", "tables");
    assert_eq!((0..4).map(|i| text(&batch, "table_type", i)).collect::<Vec<_>>(), ["BASE TABLE", "VIEW", "VIEW", "FOREIGN"]);
}

#[test]
fn numbers_are_unique() {
    for relation in ["pg_class", "pg_type", "pg_proc", "pg_namespace", "pg_constraint", "pg_attrdef"] {
        let batch = rows("pg_catalog", relation);
        let oids = batch.column_by_name("oid").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
        let mut seen: Vec<i64> = oids.values().to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), oids.len(), "{relation}");
    }
}

#[test]
fn keys_and_columns() {
    let expected = "\
+----------+-------------+-------------+--------------+--------+
| indrelid | indnkeyatts | indisunique | indisprimary | indkey |
+----------+-------------+-------------+--------------+--------+
| 16384    | 1           | true        | true         | [1]    |
+----------+-------------+-------------+--------------+--------+";
    let index = rows("pg_catalog", "pg_index");
    let names: Vec<usize> =
        ["indrelid", "indnkeyatts", "indisunique", "indisprimary", "indkey"].iter().map(|n| index.schema().index_of(n).unwrap()).collect();
    assert_eq!(pretty_format_batches(&[index.project(&names).unwrap()]).unwrap().to_string(), expected);
    let columns = rows("information_schema", "columns");
    assert_eq!((0..4).map(|i| text(&columns, "data_type", i)).collect::<Vec<_>>(), ["bigint", "character varying", "numeric", "ARRAY"]);
    assert_eq!((0..2).map(|i| text(&columns, "is_nullable", i)).collect::<Vec<_>>(), ["NO", "YES"]);
}

#[test]
fn names_of_types() {
    assert_eq!(types::format(1700, Some(types::typmod(&SqlType::Numeric { precision: 12, scale: 2 }))), "numeric(12,2)");
    assert_eq!(types::format(1043, Some(24)), "character varying(20)");
    assert_eq!(types::format(1043, None), "character varying");
    assert_eq!(types::format(1009, Some(-1)), "text[]");
    assert_eq!(types::format(1184, None), "timestamp with time zone");
    assert_eq!(types::format(0, None), "-");
    assert_eq!(types::format(99_999, None), "???");
    for (name, oid) in [("int4", 23), ("integer", 23), ("pg_catalog.int8", 20), ("text[]", 1009), ("numeric(3,1)", 1700), ("\"char\"", 18)]
    {
        assert_eq!(types::by_name(name).map(|t| t.oid), Some(oid), "{name}");
    }
    assert!(types::by_name("nosuch").is_none());
}

#[test]
fn names_are_found_and_quoted() {
    let facts = facts();
    assert_eq!(facts.find_relation("t"), Some(16384));
    assert_eq!(facts.find_relation("public.T"), Some(16384));
    assert_eq!(facts.find_relation("\"T\""), None);
    assert_eq!(facts.find_relation("pg_class"), Some(1259));
    assert_eq!(facts.regclass(16384).as_deref(), Some("t"));
    assert_eq!(facts.regclass(14_003).as_deref(), Some("millpond.jobs"));
    assert_eq!(facts.search_path(true), ["pg_catalog", "public"]);
    assert_eq!(split_name("a.\"B c\"\"d\""), Some(vec!["a".to_string(), "B c\"d".to_string()]));
    assert_eq!((quote_ident("a"), quote_ident("A"), quote_ident("select")), ("a".into(), "\"A\"".into(), "\"select\"".into()));
    assert_eq!(quote_literal("it's"), "'it''s'");
}
