//! `pg_catalog`: PostgreSQL's description of the database. Relations that are named nowhere here are empty, because
//! Millpond has nothing of the kind.

mod attributes;
mod classes;
mod objects;
mod server;
mod views;

pub use objects::FUNCTIONS;
pub use server::FIXED_SETTINGS;
pub use views::{index_definition, view_definition};

use super::facts::Facts;
use super::rows::Rows;

/// Adds the rows of one relation.
pub fn fill(name: &str, facts: &Facts, rows: &mut Rows) {
    match name {
        "pg_class" => classes::pg_class(facts, rows),
        "pg_index" => classes::pg_index(facts, rows),
        "pg_constraint" => classes::pg_constraint(facts, rows),
        "pg_namespace" => classes::pg_namespace(facts, rows),
        "pg_description" => classes::pg_description(facts, rows),
        "pg_depend" => classes::pg_depend(facts, rows),
        "pg_rewrite" => classes::pg_rewrite(facts, rows),
        "pg_foreign_table" => classes::pg_foreign_table(facts, rows),
        "pg_attribute" => attributes::pg_attribute(facts, rows),
        "pg_attrdef" => attributes::pg_attrdef(facts, rows),
        "pg_type" => objects::pg_type(rows),
        "pg_proc" => objects::pg_proc(rows),
        "pg_am" => objects::pg_am(rows),
        "pg_language" => objects::pg_language(rows),
        "pg_collation" => objects::pg_collation(rows),
        "pg_foreign_data_wrapper" => objects::pg_foreign_data_wrapper(rows),
        "pg_foreign_server" => objects::pg_foreign_server(rows),
        "pg_database" => server::pg_database(facts, rows),
        "pg_shdescription" => {}
        "pg_tablespace" => server::pg_tablespace(rows),
        "pg_authid" | "pg_roles" => server::pg_roles(facts, rows),
        "pg_user" | "pg_shadow" => server::pg_user(facts, rows),
        "pg_settings" => server::pg_settings(facts, rows),
        "pg_stat_activity" => server::pg_stat_activity(facts, rows),
        "pg_stat_database" => server::pg_stat_database(facts, rows),
        "pg_timezone_names" => server::pg_timezone_names(rows),
        "pg_timezone_abbrevs" => server::pg_timezone_abbrevs(rows),
        "pg_tables" => views::pg_tables(facts, rows),
        "pg_views" => views::pg_views(facts, rows),
        "pg_matviews" => views::pg_matviews(facts, rows),
        "pg_indexes" => views::pg_indexes(facts, rows),
        "pg_stat_all_tables" => views::pg_stat_tables(facts, rows, true),
        "pg_stat_user_tables" => views::pg_stat_tables(facts, rows, false),
        _ => {}
    }
}
