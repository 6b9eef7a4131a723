//! The session: who, where, since when, and its settings.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};

use millpond_common::{Result, SqlState, SqlType};

use super::names::nothing;
use super::scalar::{Call, Function, function};
use crate::system::pg_catalog::FIXED_SETTINGS;
use crate::system::rows::Value;

/// Numbers for `txid_current`, which clients use as a marker of their transaction.
static TRANSACTIONS: AtomicI64 = AtomicI64::new(1000);

pub fn functions() -> Vec<Function> {
    use SqlType::{BigInt, Boolean, Integer, Name, Text, TimestampTz};
    let mut list = vec![
        function("version", 0..=0, Text, |c| Ok(c.facts.version.as_str().into())),
        function("pg_backend_pid", 0..=0, Integer, |c| Ok(c.facts.pid.into())),
        function("pg_is_in_recovery", 0..=0, Boolean, |_| Ok(false.into())),
        function("pg_is_in_backup", 0..=0, Boolean, |_| Ok(false.into())),
        function("pg_postmaster_start_time", 0..=0, TimestampTz, |c| Ok(c.facts.started.into())),
        function("pg_conf_load_time", 0..=0, TimestampTz, |c| Ok(c.facts.started.into())),
        function("txid_current", 0..=0, BigInt, |_| Ok(TRANSACTIONS.fetch_add(1, Ordering::Relaxed).into())).volatile(),
        function("pg_current_xact_id", 0..=0, BigInt, |_| Ok(TRANSACTIONS.fetch_add(1, Ordering::Relaxed).into())).volatile(),
        function("age", 1..=1, Integer, |_| Ok(0.into())),
        function("current_schema", 0..=0, Name, |c| Ok(c.facts.search_path(false).into_iter().next().into())),
        function("current_schemas", 1..=1, SqlType::Array(Box::new(Name)), |c| Ok(c.facts.search_path(c.bool(0)).into())),
        function("current_setting", 1..=2, Text, current_setting),
        function("set_config", 3..=3, Text, set_config).volatile().lenient(),
        function("pg_my_temp_schema", 0..=0, SqlType::Oid, |_| Ok(0.into())),
        function("pg_is_other_temp_schema", 1..=1, Boolean, |_| Ok(false.into())),
        function("pg_try_advisory_lock", 1..=2, Boolean, |_| Ok(true.into())).volatile(),
        function("pg_advisory_unlock", 1..=2, Boolean, |_| Ok(true.into())).volatile(),
        // What pools call when a connection comes back: nothing is held.
        function("pg_advisory_unlock_all", 0..=0, Text, |_| Ok("".into())).volatile(),
        function("pg_client_encoding", 0..=0, Name, |_| Ok("UTF8".into())),
        function("inet_server_port", 0..=0, Integer, nothing),
        function("inet_client_port", 0..=0, Integer, |c| Ok(own_address(c).map(|a| i32::from(a.port())).into())),
        function("inet_server_addr", 0..=0, Text, nothing),
        function("inet_client_addr", 0..=0, Text, |c| Ok(own_address(c).map(|a| a.ip().to_string()).into())),
    ];
    // DataFusion has no notion of users; the words without parentheses arrive here as well.
    for name in ["current_user", "session_user", "user", "current_role"] {
        list.push(function(name, 0..=0, Name, |c| Ok(c.facts.user.as_str().into())));
    }
    for name in ["current_database", "current_catalog"] {
        list.push(function(name, 0..=0, Name, |c| Ok(c.facts.database.as_str().into())));
    }
    list
}

fn own_address(c: &Call<'_>) -> Option<SocketAddr> {
    c.facts.sessions.iter().find(|s| s.pid == c.facts.pid).and_then(|s| s.client)
}

/// Settings of PostgreSQL that mean nothing here may be set to anything.
fn set_config(c: &Call<'_>) -> Result<Value> {
    if FIXED_SETTINGS.iter().any(|(n, _, _)| n.eq_ignore_ascii_case(c.str(0))) {
        return Ok(c.text(1).into());
    }
    Ok(c.access.set_config(c.str(0), c.text(1), c.bool(2))?.into())
}

fn current_setting(c: &Call<'_>) -> Result<Value> {
    let name = c.str(0);
    match c.facts.settings.get(name) {
        Ok(value) => Ok(value.into()),
        Err(error) => match FIXED_SETTINGS.iter().find(|(n, _, _)| n.eq_ignore_ascii_case(name)) {
            Some(("session_authorization", _, _)) => Ok(c.facts.user.as_str().into()),
            Some((_, value, _)) => Ok((*value).into()),
            None if c.bool(1) && error.state() == SqlState::UNDEFINED_OBJECT => Ok(Value::Null),
            None => Err(error),
        },
    }
}
