//! The JSON grammar, and JSON values into columns.

use millpond_common::{SqlState, SqlType};

use super::{Bad, Column};

/// How deep arrays and objects may nest.
const DEPTH_MAX: usize = 128;

/// The end of the JSON value that begins at `at`, or the place where the grammar is broken.
pub fn value_end(text: &[u8], at: usize) -> Result<usize, usize> {
    value(text, at, 0)
}

/// The first byte from `at` on that is no white space.
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn value(text: &[u8], at: usize, depth: usize) -> Result<usize, usize> {
    if depth > DEPTH_MAX {
        return Err(at);
    }
    match text.get(at) {
        Some(b'"') => string_end(text, at),
        Some(b'{') => members(text, at, b'}', |text, at| {
            let at = skip_space(text, string_end(text, at)?);
            if text.get(at) != Some(&b':') {
                return Err(at);
            }
            value(text, skip_space(text, at + 1), depth + 1)
        }),
        Some(b'[') => members(text, at, b']', |text, at| value(text, at, depth + 1)),
        Some(b't') => literal(text, at, b"true"),
        Some(b'f') => literal(text, at, b"false"),
        Some(b'n') => literal(text, at, b"null"),
        Some(b'-' | b'0'..=b'9') => number(text, at),
        _ => Err(at),
    }
}

/// The end of a bracket whose members `member` reads.
fn members(text: &[u8], at: usize, close: u8, mut member: impl FnMut(&[u8], usize) -> Result<usize, usize>) -> Result<usize, usize> {
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    loop {
        at = skip_space(text, member(text, at)?);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(byte) if *byte == close => return Ok(at + 1),
            _ => return Err(at),
        }
    }
}

fn literal(text: &[u8], at: usize, word: &[u8]) -> Result<usize, usize> {
    if text[at..].starts_with(word) { Ok(at + word.len()) } else { Err(at) }
}

fn number(text: &[u8], start: usize) -> Result<usize, usize> {
    let digits = |at: usize| at + text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let first = start + usize::from(text.get(start) == Some(&b'-'));
    let mut at = digits(first);
    if at == first || (text[first] == b'0' && at > first + 1) {
        return Err(first);
    }
    if text.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return Err(end);
        }
        at = end;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let from = at + 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        if from > text.len() {
            return Err(text.len());
        }
        let end = digits(from);
        if end == from {
            return Err(end);
        }
        at = end;
    }
    Ok(at)
}

/// The end of the string that begins with a quote at `at`.
pub fn string_end(text: &[u8], at: usize) -> Result<usize, usize> {
    if text.get(at) != Some(&b'"') {
        return Err(at);
    }
    let mut at = at + 1;
    loop {
        let stop = memchr::memchr2(b'"', b'\\', &text[at..]).map_or(text.len(), |found| at + found);
        let plain = &text[at..stop];
        // All of them at once, which the compiler makes one comparison of many bytes; none is the rule.
        if plain.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
            return Err(at + plain.iter().take_while(|byte| **byte >= 0x20).count());
        }
        match (text.get(stop), text.get(stop + 1)) {
            (Some(b'"'), _) => return Ok(stop + 1),
            (Some(_), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at = stop + 2,
            (Some(_), Some(b'u')) if text.len() >= stop + 6 && text[stop + 2..stop + 6].iter().all(u8::is_ascii_hexdigit) => at = stop + 6,
            _ => return Err(stop),
        }
    }
}

/// The text without white space around it, if it is one JSON value in UTF-8.
pub fn document<'a>(text: &'a [u8], sql_type: &SqlType) -> Result<&'a [u8], Bad> {
    let trimmed = text.trim_ascii();
    if value_end(trimmed, 0) == Ok(trimmed.len()) && std::str::from_utf8(trimmed).is_ok() {
        Ok(trimmed)
    } else {
        Err(Bad::syntax(&sql_type.name(), text))
    }
}

/// Appends a JSON value, given by its text, which [`value_end`] has accepted. `plain`: there are no backslashes in it.
pub fn push(column: &mut Column, raw: &[u8], plain: bool) -> Result<(), Bad> {
    match (raw.first(), column.sql_type()) {
        (Some(b'n'), _) => column.push_null(),
        (_, SqlType::Json | SqlType::Jsonb) => column.push_text(raw)?,
        (Some(b'['), SqlType::Array(_)) => column.push_list(|items| elements(raw, items))?,
        (Some(b'"'), _) if plain || memchr::memchr(b'\\', raw).is_none() => column.push_text(&raw[1..raw.len() - 1])?,
        (Some(b'"'), _) => {
            let text: String = serde_json::from_slice(raw)
                .map_err(|e| Bad::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid JSON string: {e}")))?;
            column.push_text(text.as_bytes())?;
        }
        _ => column.push_text(raw)?,
    }
    Ok(())
}

fn elements(raw: &[u8], items: &mut Column) -> Result<(), Bad> {
    let broken = |_| Bad::syntax("json", raw);
    let mut at = skip_space(raw, 1);
    while raw.get(at).is_some_and(|b| *b != b']') {
        let end = value_end(raw, at).map_err(broken)?;
        push(items, &raw[at..end], false)?;
        at = skip_space(raw, end);
        if raw.get(at) == Some(&b',') {
            at = skip_space(raw, at + 1);
        }
    }
    Ok(())
}
