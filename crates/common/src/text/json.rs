//! JSON: a strict check for `json`, and the canonical text of `jsonb`, in which equal values are equal texts.

use crate::{Error, Result, SqlState};

use super::shorten;

/// How deep JSON may be nested.
const DEPTH_MAX: usize = 512;

/// Checks that a text is JSON.
pub fn validate(text: &str) -> Result<()> {
    canonical(text).map(drop)
}

/// The form in which PostgreSQL prints `jsonb`: keys ordered by length and then bytes, the last of equal keys
/// kept, one space after `:` and `,`.
pub fn canonical(text: &str) -> Result<String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let mut out = String::with_capacity(text.len());
    reader.value(&mut out)?;
    reader.space();
    if reader.at == text.len() { Ok(out) } else { Err(reader.error()) }
}

/// The text that a JSON string stands for.
pub(super) fn unquote(json: &str) -> Result<String> {
    Reader { text: json, at: 0, depth: 0 }.string()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn error(&self) -> Error {
        let near = self.text[self.at..].chars().take(20).collect::<String>();
        let detail =
            if near.is_empty() { "The input string ended unexpectedly.".to_string() } else { format!("Unexpected text near \"{near}\".") };
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json").with_detail(detail)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error())
        }
    }

    fn value(&mut self, out: &mut String) -> Result<()> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(out, Self::object),
            Some(b'[') => self.nested(out, Self::list),
            Some(b'"') => {
                let text = self.string()?;
                put_string(out, &text);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => {
                for word in ["true", "false", "null"] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        out.push_str(word);
                        return Ok(());
                    }
                }
                Err(self.error())
            }
        }
    }

    fn nested(&mut self, out: &mut String, read: fn(&mut Self, &mut String) -> Result<()>) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("JSON is nested more than {DEPTH_MAX} levels deep")));
        }
        read(self, out)?;
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, out: &mut String) -> Result<()> {
        self.expect(b'[')?;
        out.push('[');
        self.space();
        if self.peek() != Some(b']') {
            loop {
                self.value(out)?;
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
                out.push_str(", ");
            }
        }
        self.expect(b']')?;
        out.push(']');
        Ok(())
    }

    fn object(&mut self, out: &mut String) -> Result<()> {
        self.expect(b'{')?;
        let mut members: Vec<(String, String)> = Vec::new();
        self.space();
        if self.peek() != Some(b'}') {
            loop {
                self.space();
                let key = self.string()?;
                self.space();
                self.expect(b':')?;
                let mut value = String::new();
                self.value(&mut value)?;
                members.push((key, value));
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.expect(b'}')?;
        // Stable: of equal keys the last one written stays last, and wins.
        members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        out.push('{');
        let mut first = true;
        for (i, (key, value)) in members.iter().enumerate() {
            if members.get(i + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if !first {
                out.push_str(", ");
            }
            first = false;
            put_string(out, key);
            out.push_str(": ");
            out.push_str(value);
        }
        out.push('}');
        Ok(())
    }

    fn string(&mut self) -> Result<String> {
        self.expect(b'"')?;
        let mut value = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20).ok_or_else(|| self.error())?;
            value.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(value);
                }
                Some(b'\\') => {
                    let escape = self.text.as_bytes().get(self.at + 1).copied();
                    self.at += if escape.is_some_and(|b| b.is_ascii()) { 2 } else { 1 };
                    value.push(match escape {
                        Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => self.unicode()?,
                        _ => return Err(self.error()),
                    });
                }
                _ => return Err(self.error()),
            }
        }
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(|| self.error())?;
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| self.error())
    }

    fn unicode(&mut self) -> Result<char> {
        let mut code = self.hex4()?;
        if code == 0 {
            return Err(
                Error::new(SqlState("22P05"), "unsupported Unicode escape sequence").with_detail("\\u0000 cannot be converted to text.")
            );
        }
        if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.error());
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| self.error())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self, out: &mut String) -> Result<()> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (leading_zero && whole > 1) {
            return Err(self.error());
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.error());
            }
        }
        let mantissa = &self.text[start..self.at];
        let mut exponent = 0i32;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let from = self.at;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(self.error());
            }
            exponent = self.text[from..self.at].parse().map_err(|_| self.error())?;
        }
        put_number(out, mantissa, exponent)
    }
}

/// Appends a number without exponent, as numeric prints it.
fn put_number(out: &mut String, mantissa: &str, exponent: i32) -> Result<()> {
    const EXPONENT_MAX: u32 = 10_000;
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let is_zero = unsigned.bytes().all(|b| matches!(b, b'0' | b'.'));
    if exponent.unsigned_abs() > EXPONENT_MAX {
        return Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
            .with_detail(format!("In JSON: {}e{exponent}", shorten(mantissa))));
    }
    if mantissa.len() > unsigned.len() && !is_zero {
        out.push('-');
    }
    if exponent == 0 {
        out.push_str(unsigned);
        return Ok(());
    }
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i64 + i64::from(exponent);
    if point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        out.push_str(&digits);
    } else {
        let point = point as usize;
        let padded = format!("{digits}{}", "0".repeat(point.saturating_sub(digits.len())));
        let head = padded[..point].trim_start_matches('0');
        out.push_str(if head.is_empty() { "0" } else { head });
        if padded.len() > point {
            out.push('.');
            out.push_str(&padded[point..]);
        }
    }
    Ok(())
}

fn put_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn canonical_form() {
        let cases = [
            (r#" {"bb":1,"a":[1,2 , {}],"bb":2} "#, r#"{"a": [1, 2, {}], "bb": 2}"#),
            (r#""\u00e9\ud83d\ude00\n\u0001""#, "\"é😀\\n\\u0001\""),
            ("1e2", "100"),
            ("1.50", "1.50"),
            ("-0", "0"),
            ("1.25e1", "12.5"),
            ("12e-3", "0.012"),
            ("[]", "[]"),
            ("null", "null"),
        ];
        for (t, expected) in cases {
            assert_eq!(canonical(t).unwrap(), expected);
            assert_eq!(canonical(expected).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_json() {
        for t in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\",
            "\"\\é\"",
            "\"\\u12\"",
            "\"\\ud800x\"",
            "{}x",
            "'a'",
            "\"\u{1}\"",
            "NaN",
            "[1 2]",
            "{1:2}",
        ] {
            assert!(validate(t).is_err(), "{t}");
        }
        assert!(validate("\"\\u0000\"").is_err());
        assert!(validate(&"[".repeat(100_000)).is_err());
        assert!(validate("1e999999999999").is_err());
    }
}
