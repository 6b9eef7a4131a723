//! Names of objects to numbers and back.

use millpond_common::{Error, Result, SqlState, SqlType};

use super::scalar::{Call, Function, function};
use crate::system::facts::{ROLE, quote_ident, quote_literal, split_name};
use crate::system::pg_catalog;
use crate::system::rows::Value;
use crate::system::types;

pub fn functions() -> Vec<Function> {
    use SqlType::{Name, Oid, Text};
    let mut list = vec![
        function("to_regclass", 1..=1, Oid, |c| Ok(c.facts.find_relation(c.str(0)).into())),
        function("to_regtype", 1..=1, Oid, |c| Ok(types::by_name(c.str(0)).map(|t| t.oid).into())),
        function("to_regnamespace", 1..=1, Oid, |c| Ok(Some(c.facts.schema_oid(c.str(0))).filter(|oid| *oid != 0).into())),
        function("to_regproc", 1..=1, Oid, |c| Ok(proc_oid(c.str(0)).into())),
        function("to_regrole", 1..=1, Oid, |c| Ok(Some(ROLE).filter(|_| c.str(0) == c.facts.user).into())),
        function("millpond_like_pattern", 2..=2, Text, |c| Ok(like_pattern(c.str(0), c.str(1).chars().next()).into())),
        function("format_type", 2..=2, Text, |c| {
            Ok(c.int(0).map(|_| types::format(c.oid(0), c.int(1).and_then(|m| i32::try_from(m).ok()))).into())
        })
        .lenient(),
        function("pg_get_userbyid", 1..=1, Name, |c| {
            Ok(if c.oid(0) == ROLE { c.facts.user.clone() } else { format!("unknown (OID={})", c.oid(0)) }.into())
        }),
        function("quote_ident", 1..=1, Text, |c| Ok(quote_ident(c.str(0)).into())),
        function("quote_literal", 1..=1, Text, |c| Ok(quote_literal(c.str(0)).into())),
        function("quote_nullable", 1..=1, Text, |c| Ok(c.text(0).map_or("NULL".to_string(), quote_literal).into())).lenient(),
        function("parse_ident", 1..=2, SqlType::Array(Box::new(Text)), |c| Ok(split_name(c.str(0)).into())),
        function("format", 1..=20, Text, |c| Ok(format_text(c)?.into())).lenient(),
        function("millpond_oid", 1..=1, Oid, |c| {
            let invalid =
                || Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type oid: \"{}\"", c.str(0)));
            Ok(c.int(0).ok_or_else(invalid)?.into())
        }),
        function("millpond_regclass_text", 1..=1, Text, |c| {
            Ok(as_number(c).map_or_else(|| c.str(0).to_string(), |o| class_name(c, o)).into())
        }),
        function("millpond_regclass_oid", 1..=1, Oid, |c| match as_number(c) {
            Some(oid) => Ok(oid.into()),
            None => Ok(c.facts.find_relation(c.str(0)).ok_or_else(|| missing(SqlState::UNDEFINED_TABLE, "relation", c.str(0)))?.into()),
        }),
        function("millpond_regtype_text", 1..=1, Text, |c| {
            let oid = as_number(c).or_else(|| types::by_name(c.str(0)).map(|t| t.oid));
            Ok(oid.map(|o| types::format(o, None)).unwrap_or_else(|| c.str(0).to_string()).into())
        }),
        function("millpond_regtype_oid", 1..=1, Oid, |c| match as_number(c) {
            Some(oid) => Ok(oid.into()),
            None => Ok(types::by_name(c.str(0)).ok_or_else(|| missing(SqlState::UNDEFINED_OBJECT, "type", c.str(0)))?.oid.into()),
        }),
        function("millpond_regnamespace_text", 1..=1, Text, |c| {
            Ok(as_number(c)
                .map_or_else(
                    || c.str(0).to_string(),
                    |o| c.facts.all_schemas().find(|s| s.oid == o).map_or_else(|| o.to_string(), |s| s.name),
                )
                .into())
        }),
        function("millpond_regnamespace_oid", 1..=1, Oid, |c| match as_number(c) {
            Some(oid) => Ok(oid.into()),
            None => match c.facts.schema_oid(&split_name(c.str(0)).and_then(|mut p| p.pop()).unwrap_or_default()) {
                0 => Err(missing(SqlState::INVALID_SCHEMA_NAME, "schema", c.str(0))),
                oid => Ok(oid.into()),
            },
        }),
        function("millpond_regrole_text", 1..=1, Text, |c| {
            Ok(as_number(c).map_or_else(|| c.str(0).to_string(), |o| if o == ROLE { c.facts.user.clone() } else { o.to_string() }).into())
        }),
        function("millpond_regrole_oid", 1..=1, Oid, |c| match as_number(c) {
            Some(oid) => Ok(oid.into()),
            None if c.str(0) == c.facts.user => Ok(ROLE.into()),
            None => Err(missing(SqlState::UNDEFINED_OBJECT, "role", c.str(0))),
        }),
    ];
    let others = [
        ("millpond_regoper_text", "millpond_regoper_oid"),
        ("millpond_regoperator_text", "millpond_regoperator_oid"),
        ("millpond_regcollation_text", "millpond_regcollation_oid"),
        ("millpond_regconfig_text", "millpond_regconfig_oid"),
        ("millpond_regdictionary_text", "millpond_regdictionary_oid"),
    ];
    for (text, oid) in others {
        list.push(function(text, 1..=1, Text, |c| Ok(c.str(0).into())));
        list.push(function(oid, 1..=1, Oid, |c| Ok(as_number(c).into())));
    }
    for (text, oid) in [("millpond_regproc_text", "millpond_regproc_oid"), ("millpond_regprocedure_text", "millpond_regprocedure_oid")] {
        list.push(function(text, 1..=1, Text, |c| Ok(as_number(c).map_or_else(|| c.str(0).to_string(), proc_name).into())));
        list.push(function(oid, 1..=1, Oid, |c| match as_number(c) {
            Some(oid) => Ok(oid.into()),
            None => Ok(proc_oid(c.str(0)).ok_or_else(|| missing(SqlState::UNDEFINED_FUNCTION, "function", c.str(0)))?.into()),
        }));
    }
    list
}

/// A LIKE pattern with backslash as its escape instead of `escape`.
fn like_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::with_capacity(pattern.len() + 2);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = Some(c) == escape;
        let literal = if escaped { chars.next() } else { Some(c) };
        if escaped || c == '\\' {
            out.push('\\');
        }
        out.extend(literal);
    }
    out
}

fn missing(state: SqlState, what: &str, name: &str) -> Error {
    Error::new(state, format!("{what} \"{name}\" does not exist"))
}

/// A number, or a text of digits: an object's number already.
fn as_number(c: &Call<'_>) -> Option<u32> {
    c.int(0).and_then(|n| u32::try_from(n).ok())
}

pub fn class_name(c: &Call<'_>, oid: u32) -> String {
    if oid == 0 { "-".into() } else { c.facts.regclass(oid).unwrap_or_else(|| oid.to_string()) }
}

fn proc_oid(name: &str) -> Option<u32> {
    let plain = name.split('(').next().unwrap_or(name);
    let plain = plain.strip_prefix("pg_catalog.").unwrap_or(plain);
    pg_catalog::FUNCTIONS.get(plain).map(|(oid, _)| *oid)
}

pub fn proc_name(oid: u32) -> String {
    if oid == 0 {
        return "-".into();
    }
    pg_catalog::FUNCTIONS.iter().find(|(_, (o, _))| *o == oid).map_or_else(|| oid.to_string(), |(name, _)| name.clone())
}

/// `format('%s %I %L', …)`.
fn format_text(c: &Call<'_>) -> Result<Option<String>> {
    let Some(pattern) = c.text(0) else { return Ok(None) };
    let mut out = String::new();
    let mut next = 1;
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut directive = String::new();
        let conversion = loop {
            match chars.next() {
                Some(k @ ('s' | 'I' | 'L')) => break k,
                Some(other) if other.is_ascii_digit() || other == '$' || other == '-' => directive.push(other),
                _ => {
                    return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "unrecognized format() type specifier")
                        .with_hint("For a single \"%\" use \"%%\"."));
                }
            }
        };
        let mut width = directive.as_str();
        if let Some((position, rest)) = directive.split_once('$') {
            next = position.parse().unwrap_or(next);
            width = rest;
        }
        if next >= c.count() {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "too few arguments for format()"));
        }
        let value = c.text(next);
        let text = match (conversion, value) {
            ('s', v) => v.unwrap_or_default().to_string(),
            ('I', Some(v)) => quote_ident(v),
            ('I', None) => return Err(Error::new(SqlState("22004"), "null values cannot be formatted as an SQL identifier")),
            (_, v) => v.map_or("NULL".to_string(), quote_literal),
        };
        next += 1;
        let (left, wanted) = width.strip_prefix('-').map_or((false, width), |w| (true, w));
        let wanted: usize = wanted.parse().unwrap_or(0);
        let pad = " ".repeat(wanted.saturating_sub(text.chars().count()).min(10_000));
        out.push_str(&if left { format!("{text}{pad}") } else { format!("{pad}{text}") });
    }
    Ok(Some(out))
}

/// NULL, for functions about things that do not exist here.
pub fn nothing(_: &Call<'_>) -> Result<Value> {
    Ok(Value::Null)
}
