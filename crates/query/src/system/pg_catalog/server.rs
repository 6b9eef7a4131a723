//! Database, roles, settings, sessions.

use millpond_common::settings::{Kind, SETTINGS, Scope, Setting};

use crate::system::facts::{DATABASE, Facts, ROLE};
use crate::system::rows::{Rows, row};

/// What PostgreSQL's clients ask for beyond Millpond's own settings: name, value, description.
pub const FIXED_SETTINGS: &[(&str, &str, &str)] = &[
    ("block_size", "8192", "Shows the size of a disk block."),
    ("default_table_access_method", "millpond", "Sets the default table access method for new tables."),
    ("default_tablespace", "", "Sets the default tablespace to create tables and indexes in."),
    ("is_superuser", "on", "Shows whether the current user is a superuser."),
    ("jit", "off", "Allow JIT compilation."),
    ("lc_collate", "C", "Shows the collation order locale."),
    ("lc_ctype", "C", "Shows the character classification and case conversion locale."),
    ("lc_messages", "C", "Sets the language in which messages are displayed."),
    ("lc_monetary", "C", "Sets the locale for formatting monetary amounts."),
    ("lc_numeric", "C", "Sets the locale for formatting numbers."),
    ("lc_time", "C", "Sets the locale for formatting date and time values."),
    ("max_function_args", "100", "Shows the maximum number of function arguments."),
    ("max_identifier_length", "63", "Shows the maximum identifier length."),
    ("max_index_keys", "32", "Shows the maximum number of index keys."),
    ("password_encryption", "scram-sha-256", "Chooses the algorithm for encrypting passwords."),
    ("session_authorization", "", "Shows the session's user."),
    ("row_security", "on", "Enable row security."),
    ("ssl", "off", "Enables SSL connections."),
    ("transaction_deferrable", "off", "Whether a serializable transaction waits until it cannot fail."),
    ("transaction_read_only", "off", "Sets the current transaction's read-only status."),
];

pub fn pg_database(facts: &Facts, rows: &mut Rows) {
    row!(rows;
        oid: DATABASE, datname: &facts.database, datdba: ROLE, encoding: 6, datlocprovider: "c", datallowconn: true, datconnlimit: -1,
        dattablespace: 1663, datcollate: "C", datctype: "C",
    );
}

pub fn pg_tablespace(rows: &mut Rows) {
    row!(rows; oid: 1663, spcname: "pg_default", spcowner: ROLE);
    row!(rows; oid: 1664, spcname: "pg_global", spcowner: ROLE);
}

/// Roles do not exist yet: whoever is connected owns everything.
pub fn pg_roles(facts: &Facts, rows: &mut Rows) {
    row!(rows;
        oid: ROLE, rolname: &facts.user, rolsuper: true, rolinherit: true, rolcreaterole: true, rolcreatedb: true, rolcanlogin: true,
        rolreplication: false, rolconnlimit: -1, rolbypassrls: true,
    );
}

pub fn pg_user(facts: &Facts, rows: &mut Rows) {
    row!(rows; usename: &facts.user, usesysid: ROLE, usecreatedb: true, usesuper: true, userepl: false, usebypassrls: true);
}

pub fn pg_settings(facts: &Facts, rows: &mut Rows) {
    for s in SETTINGS {
        let value = facts.settings.get(s.name).unwrap_or_default();
        let (vartype, choices) = kind(s);
        let context = match s.scope {
            Scope::Session => "user",
            Scope::System => "sighup",
            Scope::ReadOnly => "internal",
        };
        let source = if value == s.default { "default" } else { "session" };
        row!(rows;
            name: s.name, setting: &value, category: "Millpond", short_desc: s.description, context: context, vartype: vartype, source: source,
            enumvals: choices, boot_val: s.default, reset_val: s.default, pending_restart: false,
        );
    }
    for (name, value, description) in FIXED_SETTINGS {
        let value = if *name == "session_authorization" { facts.user.as_str() } else { value };
        row!(rows;
            name: *name, setting: value, category: "Preset Options", short_desc: *description, context: "internal", vartype: "string",
            source: "default", boot_val: value, reset_val: value, pending_restart: false,
        );
    }
}

fn kind(s: &Setting) -> (&'static str, Option<Vec<&'static str>>) {
    match s.kind {
        Kind::Bool => ("bool", None),
        Kind::Integer | Kind::AtLeast(_) => ("integer", None),
        Kind::Duration | Kind::Positive | Kind::AtLeastTime(_) | Kind::Size | Kind::Text | Kind::Zone => ("string", None),
        Kind::OneOf(words) => ("enum", Some(words.to_vec())),
    }
}

pub fn pg_stat_activity(facts: &Facts, rows: &mut Rows) {
    for s in &facts.sessions {
        row!(rows;
            datid: DATABASE, datname: &s.database, pid: s.pid, usesysid: ROLE, usename: &s.user, application_name: &s.application,
            client_addr: s.client.map(|c| c.ip().to_string()), client_port: s.client.map(|c| i32::from(c.port())), backend_start: s.connected, state: s.state, query: &s.query, backend_type: "client backend",
        );
    }
}

pub fn pg_stat_database(facts: &Facts, rows: &mut Rows) {
    row!(rows; datid: DATABASE, datname: &facts.database, numbackends: facts.sessions.len());
}

pub fn pg_timezone_names(rows: &mut Rows) {
    for name in ["UTC", "Etc/UTC", "GMT"] {
        row!(rows; name: name, abbrev: "UTC", utc_offset: 0_i64, is_dst: false);
    }
}

pub fn pg_timezone_abbrevs(rows: &mut Rows) {
    row!(rows; abbrev: "UTC", utc_offset: 0_i64, is_dst: false);
}
