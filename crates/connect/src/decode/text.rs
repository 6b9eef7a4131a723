//! Types that are texts or bytes in disguise.

use millpond_common::SqlState;

use super::Bad;

/// Valid UTF-8 without NUL bytes, as PostgreSQL's text is.
pub fn utf8(text: &[u8]) -> Result<&str, Bad> {
    match std::str::from_utf8(text) {
        Ok(t) if memchr::memchr(0, text).is_none() => Ok(t),
        _ => Err(Bad::syntax("text (not valid UTF-8)", text)),
    }
}

/// A text of at most `limit` characters; spaces beyond it are cut off as the SQL standard asks.
pub fn varchar(text: &[u8], limit: u32) -> Result<&str, Bad> {
    let text = utf8(text)?;
    match text.char_indices().nth(limit as usize) {
        None => Ok(text),
        Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => Ok(&text[..end]),
        Some(_) => Err(Bad::new(
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            format!("value too long for type character varying({limit}): \"{}\"", super::shown(text.as_bytes())),
        )),
    }
}

/// A uuid in its canonical lower-case form.
pub fn uuid(text: &[u8]) -> Result<[u8; 36], Bad> {
    let trimmed = text.trim_ascii();
    let bare = trimmed.strip_prefix(b"{").and_then(|t| t.strip_suffix(b"}")).unwrap_or(trimmed);
    let mut canonical = [b'-'; 36];
    let mut at = 0;
    let mut digits = 0;
    for byte in bare {
        // PostgreSQL takes hyphens after any group of four digits
        if *byte == b'-' && digits % 4 == 0 && digits > 0 && digits < 32 {
            continue;
        }
        if !byte.is_ascii_hexdigit() || digits == 32 {
            return Err(Bad::syntax("uuid", text));
        }
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        canonical[at] = byte.to_ascii_lowercase();
        at += 1;
        digits += 1;
    }
    if digits == 32 { Ok(canonical) } else { Err(Bad::syntax("uuid", text)) }
}

/// Bytes in the form `\xdeadbeef`, or in PostgreSQL's older form with `\\` and `\ooo`; appended to `out`.
pub fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
    let before = out.len();
    let done = match text.strip_prefix(b"\\x") {
        Some(hex) => hexadecimal(hex, out),
        None => escaped(text, out),
    };
    done.ok_or_else(|| {
        out.truncate(before);
        Bad::syntax("bytea", text)
    })
}

fn hexadecimal(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = text.iter().filter(|b| !b.is_ascii_whitespace()).map(|b| char::from(*b).to_digit(16)).collect::<Option<Vec<_>>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    out.extend(pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8));
    Some(())
}

fn escaped(mut text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some((byte, rest)) = text.split_first() {
        text = match (byte, rest) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            (b'\\', _) => return None,
            (plain, after) => {
                out.push(*plain);
                after
            }
        };
    }
    Some(())
}
