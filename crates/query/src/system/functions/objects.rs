//! Definitions, comments, sizes, visibility and privileges of objects.

use millpond_common::SqlType;

use super::names::{nothing, proc_name};
use super::scalar::{Call, Function, function};
use crate::system::facts::{DATABASE, quote_ident};
use crate::system::pg_catalog::{FUNCTIONS, index_definition, view_definition};
use crate::system::rows::Value;

pub fn functions() -> Vec<Function> {
    use SqlType::{BigInt, Boolean, Integer, Text};
    let mut list =
        vec![
            function("pg_get_viewdef", 1..=2, Text, |c| {
                let oid = relation_oid(c, 0);
                Ok(c.facts.relation(oid).and_then(view_definition).into())
            }),
            function("pg_get_indexdef", 1..=3, Text, |c| {
                let Some(r) = c.facts.indexed(c.oid(0)) else { return Ok(Value::Null) };
                match c.int(1).unwrap_or(0) {
                    0 => Ok(index_definition(r).into()),
                    n => Ok(usize::try_from(n - 1).ok().and_then(|i| r.key_columns().get(i).map(|c| quote_ident(c))).into()),
                }
            }),
            function("pg_get_constraintdef", 1..=2, Text, |c| {
                let r = c.facts.indexed(c.oid(0) & !(1 << 29));
                Ok(r.map(|r| format!("PRIMARY KEY ({})", r.key_list())).into())
            }),
            // Expressions are stored as their text.
            function("pg_get_expr", 2..=3, Text, |c| Ok(c.text(0).into())),
            function("pg_get_function_result", 1..=1, Text, |c| Ok(known_function(c).map(|_| "any").into())),
            function("pg_get_function_arguments", 1..=1, Text, |c| Ok(known_function(c).map(|_| "\"any\"").into())),
            function("pg_get_function_identity_arguments", 1..=1, Text, |c| Ok(known_function(c).map(|_| "\"any\"").into())),
            function("pg_get_functiondef", 1..=1, Text, |c| Ok(known_function(c).map(|n| format!("-- {n} is built in")).into())),
            function("obj_description", 1..=2, Text, |c| Ok(description(c).into())),
            function("shobj_description", 2..=2, Text, |c| {
                Ok(Some("the streaming database").filter(|_| c.str(1) == "pg_database" && c.oid(0) == DATABASE).into())
            }),
            function("col_description", 2..=2, Text, |c| {
                let column = c.int(1).and_then(|n| usize::try_from(n - 1).ok());
                let relation = c.facts.relation(c.oid(0));
                Ok(relation.zip(column).and_then(|(r, i)| r.columns.get(i)).and_then(|c| c.comment.clone()).into())
            }),
            function("pg_database_size", 1..=1, BigInt, |c| Ok(c.facts.bytes.into())),
            function("pg_size_pretty", 1..=1, Text, |c| Ok(c.text(0).and_then(|t| t.parse::<f64>().ok()).map(size_pretty).into())),
            function("pg_relation_is_publishable", 1..=1, Boolean, |_| Ok(false.into())),
            function("pg_relation_filenode", 1..=1, BigInt, |c| Ok(c.int(0).into())),
            function("pg_relation_is_updatable", 2..=2, Integer, |c| {
                let table = c.facts.relation(c.oid(0)).is_some_and(|r| r.kind == crate::system::facts::Kind::Table && !r.system);
                Ok(if table { 28 } else { 0 }.into())
            }),
            function("pg_tablespace_location", 1..=1, Text, |_| Ok("".into())),
            function("pg_encoding_to_char", 1..=1, SqlType::Name, |c| Ok(if c.int(0) == Some(6) { "UTF8" } else { "SQL_ASCII" }.into())),
            function("pg_char_to_encoding", 1..=1, Integer, |c| {
                Ok(if c.str(0).to_ascii_uppercase().starts_with("UTF") { 6 } else { 0 }.into())
            }),
            function("getdatabaseencoding", 0..=0, SqlType::Name, |_| Ok("UTF8".into())),
            function("pg_table_is_visible", 1..=1, Boolean, |c| {
                let named = c.facts.relation(c.oid(0)).map(|r| (r.schema.clone(), r.name.clone()));
                let named = named.or_else(|| c.facts.indexed(c.oid(0)).map(|r| (r.schema.clone(), r.index_name())));
                Ok(named.map(|(schema, name)| c.facts.is_visible(&schema, &name)).into())
            }),
        ];
    for name in ["pg_table_size", "pg_relation_size", "pg_total_relation_size", "pg_indexes_size"] {
        // Rows of all relations share their files, so none has a size of its own.
        list.push(function(name, 1..=2, BigInt, nothing));
    }
    for name in [
        "pg_get_ruledef",
        "pg_get_triggerdef",
        "pg_get_partkeydef",
        "pg_get_partition_constraintdef",
        "pg_get_statisticsobjdef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_statisticsobjdef_expressions",
        "pg_get_serial_sequence",
        "pg_get_function_sqlbody",
        "pg_get_function_arg_default",
        "pg_describe_object",
        "pg_identify_object",
    ] {
        list.push(function(name, 1..=4, Text, nothing));
    }
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
    ] {
        list.push(function(name, 1..=1, Boolean, |_| Ok(true.into())));
    }
    // There are no roles and no grants yet: who is connected may do everything.
    for name in [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_function_privilege",
        "has_type_privilege",
        "has_sequence_privilege",
        "has_language_privilege",
        "has_tablespace_privilege",
        "has_server_privilege",
        "has_foreign_data_wrapper_privilege",
        "has_any_column_privilege",
        "pg_has_role",
    ] {
        list.push(function(name, 2..=3, Boolean, |_| Ok(true.into())));
    }
    list.push(function("has_column_privilege", 3..=4, Boolean, |_| Ok(true.into())));
    list.push(function("row_security_active", 1..=1, Boolean, |_| Ok(false.into())));
    list
}

/// A relation given by number or by name.
fn relation_oid(c: &Call<'_>, i: usize) -> u32 {
    if c.int(i).is_some() { c.oid(i) } else { c.facts.find_relation(c.str(i)).unwrap_or(0) }
}

fn known_function(c: &Call<'_>) -> Option<String> {
    let oid = c.oid(0);
    FUNCTIONS.values().any(|(o, _)| *o == oid).then(|| proc_name(oid))
}

fn description(c: &Call<'_>) -> Option<String> {
    let oid = c.oid(0);
    let class = c.text(1).unwrap_or("pg_class");
    match class.strip_prefix("pg_catalog.").unwrap_or(class) {
        "pg_namespace" => c.facts.all_schemas().find(|s| s.oid == oid).and_then(|s| s.comment),
        "pg_class" => c.facts.relation(oid).and_then(|r| r.comment.clone()),
        _ => None,
    }
}

/// Bytes with PostgreSQL's units, which change at 10 of the next.
fn size_pretty(bytes: f64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10_240.0 {
            return format!("{} {unit}", size.round());
        }
        size /= 1024.0;
    }
    format!("{} PB", size.round())
}
