//! Array literals: `{1,NULL,"a \"quoted\" one",{…}}`.

use std::borrow::Cow;

use crate::{Error, Result, SqlState};
use bytes::{BufMut, BytesMut};

use super::shorten;

/// Quotes the element that was appended from `start` on, where it would not read back as it is.
pub fn quote_from(out: &mut BytesMut, start: usize) {
    let element = &out[start..];
    let special = |b: &u8| matches!(b, b'{' | b'}' | b'"' | b'\\' | b',') || is_space(*b);
    if !element.is_empty() && !element.eq_ignore_ascii_case(b"null") && !element.iter().any(special) {
        return;
    }
    let element = out.split_off(start);
    out.reserve(element.len() + 2);
    out.put_u8(b'"');
    for b in &element {
        if matches!(b, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*b);
    }
    out.put_u8(b'"');
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// The elements of an array literal, one level: `None` is NULL, an inner array stays a literal.
pub fn split(text: &str) -> Result<Vec<Option<Cow<'_, str>>>> {
    let malformed = |detail: &str| {
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{}\"", shorten(text))).with_detail(detail)
    };
    let trimmed = text.trim_matches(|c: char| c.is_ascii() && is_space(c as u8));
    let Some(inner) = trimmed.strip_prefix('{') else {
        return Err(malformed("Array value must start with \"{\"."));
    };
    let bytes = inner.as_bytes();
    let mut elements = Vec::new();
    let mut at = 0;
    let skip = |mut at: usize| {
        while bytes.get(at).copied().is_some_and(is_space) {
            at += 1;
        }
        at
    };
    at = skip(at);
    if bytes.get(at) == Some(&b'}') {
        return if at + 1 == bytes.len() { Ok(elements) } else { Err(malformed("Junk after closing right brace.")) };
    }
    loop {
        at = skip(at);
        match bytes.get(at) {
            None => return Err(malformed("Unexpected end of input.")),
            Some(b'"') => {
                let (element, end) = quoted(inner, at + 1).ok_or_else(|| malformed("Unexpected end of input."))?;
                elements.push(Some(element));
                at = end;
            }
            Some(b'{') => {
                let end = matching_brace(bytes, at).ok_or_else(|| malformed("Unexpected end of input."))?;
                elements.push(Some(Cow::Borrowed(&inner[at..end])));
                at = end;
            }
            Some(_) => {
                let (element, end) = bare(inner, at);
                if element.is_empty() {
                    return Err(malformed("Unexpected empty element."));
                }
                elements.push(if element.eq_ignore_ascii_case("null") { None } else { Some(element) });
                at = end;
            }
        }
        at = skip(at);
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b'}') if at + 1 == bytes.len() => return Ok(elements),
            Some(b'}') => return Err(malformed("Junk after closing right brace.")),
            Some(_) => return Err(malformed("Unexpected array element.")),
            None => return Err(malformed("Unexpected end of input.")),
        }
    }
}

/// Reads up to the closing quote; gives the element and the position after the quote.
fn quoted(text: &str, start: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut unescaped: Option<String> = None;
    let mut copied = start;
    loop {
        match bytes.get(at)? {
            b'"' => {
                let tail = &text[copied..at];
                let element = match unescaped {
                    Some(mut head) => {
                        head.push_str(tail);
                        Cow::Owned(head)
                    }
                    None => Cow::Borrowed(tail),
                };
                return Some((element, at + 1));
            }
            b'\\' => {
                unescaped.get_or_insert_default().push_str(&text[copied..at]);
                copied = at + 1;
                // The escaped character itself, which may be a quote or a backslash.
                at += 1 + text[at + 1..].chars().next()?.len_utf8();
            }
            _ => at += 1,
        }
    }
}

/// Reads an element without quotes; gives it without the space around it, and the position after it.
fn bare(text: &str, start: usize) -> (Cow<'_, str>, usize) {
    let bytes = text.as_bytes();
    let mut at = start;
    while let Some(b) = bytes.get(at) {
        match b {
            b',' | b'}' | b'{' | b'"' => break,
            b'\\' if at + 1 < bytes.len() => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            _ => at += 1,
        }
    }
    let element = text[start..at].trim_end_matches(|c: char| c.is_ascii() && is_space(c as u8));
    if !element.contains('\\') {
        return (Cow::Borrowed(element), at);
    }
    let mut unescaped = String::with_capacity(element.len());
    let mut characters = element.chars();
    while let Some(c) = characters.next() {
        unescaped.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    (Cow::Owned(unescaped), at)
}

/// The position after the brace that closes the one at `start`.
fn matching_brace(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut in_quotes = false;
    let mut at = start;
    while let Some(b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn elements(text: &str) -> Vec<Option<String>> {
        split(text).unwrap().into_iter().map(|e| e.map(Cow::into_owned)).collect()
    }

    #[test]
    fn literals_are_split() {
        let some = |t: &str| Some(t.to_string());
        assert!(elements("{}").is_empty() && elements(" { } ").is_empty());
        assert_eq!(elements("{1, 2 ,NULL}"), [some("1"), some("2"), None]);
        assert_eq!(elements(r#"{"a,b","NULL","q\"\\é",x y}"#), [some("a,b"), some("NULL"), some("q\"\\é"), some("x y")]);
        assert_eq!(elements(r#"{{1,2},{"}",4}}"#), [some("{1,2}"), some(r#"{"}",4}"#)]);
        assert_eq!(elements(r"{a\,b}"), [some("a,b")]);
        for t in ["", "1,2", "{", "{1", "{1,}", "{,1}", "{1}}", "{1}x", "{\"a}", "{{1}", "{\"a\"b}", "{a\\", "{\\"] {
            assert!(split(t).is_err(), "{t}");
        }
    }

    #[test]
    fn elements_are_quoted_where_needed() {
        for (element, expected) in [("a", "a"), ("", "\"\""), ("null", "\"null\""), ("a b", "\"a b\""), ("q\"\\", r#""q\"\\""#), ("é", "é")]
        {
            let mut out = BytesMut::from(&b"{"[..]);
            out.put_slice(element.as_bytes());
            quote_from(&mut out, 1);
            assert_eq!(&out[1..], expected.as_bytes());
        }
    }
}
