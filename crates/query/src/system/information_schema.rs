//! `information_schema`: the SQL standard's description of the database.

use millpond_common::SqlType;

use super::facts::{Facts, Kind, RelationFacts};
use super::pg_catalog::view_definition;
use super::rows::{Rows, row};
use super::types;

/// Adds the rows of one relation.
pub fn fill(name: &str, facts: &Facts, rows: &mut Rows) {
    match name {
        "schemata" => schemata(facts, rows),
        "tables" => tables(facts, rows),
        "columns" => columns(facts, rows),
        "views" => views(facts, rows),
        "table_constraints" => table_constraints(facts, rows),
        "key_column_usage" => key_column_usage(facts, rows),
        "constraint_column_usage" => constraint_column_usage(facts, rows),
        "table_privileges" => table_privileges(facts, rows),
        "role_table_grants" => table_privileges(facts, rows),
        "foreign_tables" => foreign_tables(facts, rows),
        "foreign_table_options" => foreign_table_options(facts, rows),
        "character_sets" => character_sets(facts, rows),
        "collations" => collations(facts, rows),
        "information_schema_catalog_name" => row!(rows; catalog_name: &facts.database),
        "enabled_roles" => row!(rows; role_name: &facts.user),
        "sql_implementation_info" => {
            row!(rows; implementation_info_id: "17", implementation_info_name: "DBMS NAME", character_value: "Millpond")
        }
        _ => {}
    }
}

fn schemata(facts: &Facts, rows: &mut Rows) {
    for s in facts.all_schemas() {
        row!(rows; catalog_name: &facts.database, schema_name: s.name, schema_owner: &facts.user);
    }
}

/// PostgreSQL leaves materialized views out of `information_schema`; tools that list tables from here would then
/// never find what Millpond is for, so they are shown as views.
fn tables(facts: &Facts, rows: &mut Rows) {
    for r in facts.all_relations() {
        row!(rows;
            table_catalog: &facts.database, table_schema: &r.schema, table_name: &r.name, table_type: r.kind.table_type(),
            is_insertable_into: yes(r.kind == Kind::Table && !r.system), is_typed: "NO",
        );
    }
}

fn yes(on: bool) -> &'static str {
    if on { "YES" } else { "NO" }
}

fn columns(facts: &Facts, rows: &mut Rows) {
    for r in facts.all_relations() {
        for (i, c) in r.columns.iter().enumerate() {
            let of = &c.sql_type;
            let (precision, radix, scale) = numeric(of);
            let udt = types::by_oid(of.oid()).map(|t| t.name);
            row!(rows;
                table_catalog: &facts.database, table_schema: &r.schema, table_name: &r.name, column_name: &c.name, ordinal_position: i + 1,
                column_default: c.default.as_ref(), is_nullable: yes(c.nullable), data_type: data_type(of),
                character_maximum_length: if let SqlType::Varchar(Some(n)) = of { Some(*n) } else { None },
                character_octet_length: octets(of),
                numeric_precision: precision, numeric_precision_radix: radix, numeric_scale: scale, datetime_precision: datetime(of),
                udt_catalog: &facts.database, udt_schema: "pg_catalog", udt_name: udt, dtd_identifier: (i + 1).to_string(),
                is_self_referencing: "NO", is_identity: "NO", identity_cycle: "NO", is_generated: "NEVER",
                is_updatable: yes(r.kind == Kind::Table && !r.system),
            );
        }
    }
}

/// A type's name without its length or precision.
fn data_type(of: &SqlType) -> String {
    match of {
        SqlType::Array(_) => "ARRAY".into(),
        SqlType::Varchar(_) => "character varying".into(),
        SqlType::Numeric { .. } => "numeric".into(),
        other => other.name(),
    }
}

fn numeric(of: &SqlType) -> (Option<i64>, Option<i64>, Option<i64>) {
    match of {
        SqlType::SmallInt => (Some(16), Some(2), Some(0)),
        SqlType::Integer => (Some(32), Some(2), Some(0)),
        SqlType::BigInt => (Some(64), Some(2), Some(0)),
        SqlType::Real => (Some(24), Some(2), None),
        SqlType::Double => (Some(53), Some(2), None),
        SqlType::Numeric { .. } if types::typmod(of) < 0 => (None, Some(10), None),
        SqlType::Numeric { precision, scale } => (Some(i64::from(*precision)), Some(10), Some(i64::from(*scale))),
        _ => (None, None, None),
    }
}

fn octets(of: &SqlType) -> Option<i64> {
    match of {
        SqlType::Varchar(Some(n)) => Some(i64::from(*n) * 4),
        SqlType::Text | SqlType::Varchar(None) => Some(1 << 30),
        _ => None,
    }
}

fn datetime(of: &SqlType) -> Option<i64> {
    match of {
        SqlType::Date => Some(0),
        SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz | SqlType::Interval => Some(6),
        _ => None,
    }
}

fn views(facts: &Facts, rows: &mut Rows) {
    for r in facts.all_relations().filter(|r| matches!(r.kind, Kind::View | Kind::MaterializedView)) {
        row!(rows;
            table_catalog: &facts.database, table_schema: &r.schema, table_name: &r.name, view_definition: view_definition(r),
            check_option: "NONE", is_updatable: "NO", is_insertable_into: "NO", is_trigger_updatable: "NO", is_trigger_deletable: "NO",
            is_trigger_insertable_into: "NO",
        );
    }
}

fn keyed(facts: &Facts) -> impl Iterator<Item = &RelationFacts> {
    facts.relations.iter().filter(|r| r.index_oid().is_some())
}

fn table_constraints(facts: &Facts, rows: &mut Rows) {
    for r in keyed(facts) {
        row!(rows;
            constraint_catalog: &facts.database, constraint_schema: &r.schema, constraint_name: r.index_name(), table_catalog: &facts.database,
            table_schema: &r.schema, table_name: &r.name, constraint_type: "PRIMARY KEY", is_deferrable: "NO", initially_deferred: "NO", enforced: "YES",
        );
    }
}

fn key_column_usage(facts: &Facts, rows: &mut Rows) {
    for r in keyed(facts) {
        for (i, column) in r.key_columns().into_iter().enumerate() {
            row!(rows;
                constraint_catalog: &facts.database, constraint_schema: &r.schema, constraint_name: r.index_name(), table_catalog: &facts.database,
                table_schema: &r.schema, table_name: &r.name, column_name: column, ordinal_position: i + 1,
            );
        }
    }
}

fn constraint_column_usage(facts: &Facts, rows: &mut Rows) {
    for r in keyed(facts) {
        for column in r.key_columns() {
            row!(rows;
                table_catalog: &facts.database, table_schema: &r.schema, table_name: &r.name, column_name: column,
                constraint_catalog: &facts.database, constraint_schema: &r.schema, constraint_name: r.index_name(),
            );
        }
    }
}

fn table_privileges(facts: &Facts, rows: &mut Rows) {
    for r in &facts.relations {
        let privileges: &[&str] = if r.kind == Kind::Table { &["INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE"] } else { &["SELECT"] };
        for privilege in privileges {
            row!(rows;
                grantor: &facts.user, grantee: &facts.user, table_catalog: &facts.database, table_schema: &r.schema, table_name: &r.name,
                privilege_type: *privilege, is_grantable: "YES", with_hierarchy: yes(*privilege == "SELECT"),
            );
        }
    }
}

fn foreign_tables(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| r.kind == Kind::Source) {
        row!(rows;
            foreign_table_catalog: &facts.database, foreign_table_schema: &r.schema, foreign_table_name: &r.name,
            foreign_server_catalog: &facts.database, foreign_server_name: "millpond",
        );
    }
}

fn foreign_table_options(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| r.kind == Kind::Source) {
        for (option, value) in &r.options {
            row!(rows;
                foreign_table_catalog: &facts.database, foreign_table_schema: &r.schema, foreign_table_name: &r.name, option_name: option,
                option_value: value,
            );
        }
    }
}

fn character_sets(facts: &Facts, rows: &mut Rows) {
    row!(rows;
        character_set_name: "UTF8", character_repertoire: "UCS", form_of_use: "UTF8", default_collate_catalog: &facts.database,
        default_collate_schema: "pg_catalog", default_collate_name: "C",
    );
}

fn collations(facts: &Facts, rows: &mut Rows) {
    for name in ["default", "C", "POSIX"] {
        row!(rows; collation_catalog: &facts.database, collation_schema: "pg_catalog", collation_name: name, pad_attribute: "NO PAD");
    }
}
