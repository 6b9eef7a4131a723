//! Parts of JSON, found in its text without taking it apart. The text must be JSON: see [`super::json::validate`].

use std::borrow::Cow;

use super::json::unquote;

/// The kind of a value, as `jsonb_typeof` names it.
pub fn kind(json: &str) -> &'static str {
    match json.trim_start().bytes().next() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// The value of a key of an object; of equal keys, the last one's.
pub fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    members(json).filter(|(k, _)| k == key).last().map(|(_, value)| value)
}

/// The element at a place of an array; negative places count from the end.
pub fn element(json: &str, at: i64) -> Option<&str> {
    match usize::try_from(at) {
        Ok(at) => elements(json).nth(at),
        Err(_) => elements(json).count().checked_sub(usize::try_from(at.unsigned_abs()).ok()?).and_then(|at| elements(json).nth(at)),
    }
}

/// What a step of a path leads to: a key of an object, or a place in an array.
pub fn step<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    match kind(json) {
        "object" => member(json, key),
        "array" => element(json, key.trim().parse().ok()?),
        _ => None,
    }
}

/// A value as text: a string without its quotes, nothing for null.
pub fn as_text(json: &str) -> Option<Cow<'_, str>> {
    match kind(json) {
        "null" => None,
        "string" => unquote(json.trim()).ok().map(Cow::Owned),
        _ => Some(json.trim().into()),
    }
}

/// The elements of an array; none of anything else.
pub fn elements(json: &str) -> impl Iterator<Item = &str> {
    let mut inside = Inside::new(json, b'[');
    std::iter::from_fn(move || inside.value())
}

/// Keys and values of an object; none of anything else.
pub fn members(json: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut inside = Inside::new(json, b'{');
    std::iter::from_fn(move || {
        let key = inside.value()?;
        let value = inside.value()?;
        let plain = &key[1..key.len() - 1];
        let key = if plain.contains('\\') { Cow::Owned(unquote(key).ok()?) } else { Cow::Borrowed(plain) };
        Some((key, value))
    })
}

/// Whether `whole` has all that `part` has, as `@>` of jsonb says it.
pub fn contains(whole: &str, part: &str) -> bool {
    let (whole, part) = (whole.trim(), part.trim());
    match (kind(whole), kind(part)) {
        ("object", "object") => members(part).all(|(key, value)| member(whole, &key).is_some_and(|w| contains(w, value))),
        ("array", "array") => elements(part).all(|p| elements(whole).any(|w| contains(w, p))),
        ("object" | "array", "object" | "array") => false,
        _ => whole == part,
    }
}

/// The values inside an object or array, one after the other, keys among them.
struct Inside<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Inside<'a> {
    fn new(json: &'a str, opening: u8) -> Self {
        let text = json.trim();
        let at = if text.as_bytes().first() == Some(&opening) { 1 } else { text.len() };
        Inside { text, at }
    }

    fn value(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')) {
            self.at += 1;
        }
        if matches!(bytes.get(self.at)?, b']' | b'}') {
            return None;
        }
        let start = self.at;
        let (mut depth, mut quoted) = (0usize, false);
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 1,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.text.get(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#" {"a": [1, "x, \"y\"]", {"b" :null}], "b": {"c": {}}, "k\"": 2, "a": [7,{"b":3}]} "#;

    #[test]
    fn parts() {
        assert_eq!(member(JSON, "a"), Some(r#"[7,{"b":3}]"#));
        assert_eq!(member(JSON, "k\""), Some("2"));
        assert_eq!(member(JSON, "c"), None);
        assert_eq!(member("[1]", "a"), None);
        let list = r#"[1, "x, \"y\"]", {"b" :null}]"#;
        assert_eq!(element(list, 1), Some(r#""x, \"y\"]""#));
        assert_eq!(element(list, -1), Some(r#"{"b" :null}"#));
        assert_eq!((element(list, 3), element(list, -4), element("[]", 0), element("{}", 0)), (None, None, None, None));
        assert_eq!(step(list, "2").and_then(|o| step(o, "b")), Some("null"));
        assert_eq!(as_text(r#" "x, \"y\"]" "#).as_deref(), Some("x, \"y\"]"));
        assert_eq!((as_text("null"), as_text(" 1.50 ").as_deref()), (None, Some("1.50")));
        assert_eq!([" {}", "[]", "\"\"", "true", "null", "-1"].map(kind), ["object", "array", "string", "boolean", "null", "number"]);
    }

    #[test]
    fn containment() {
        for (whole, part, expected) in [
            (r#"{"a": 1, "b": [1, 2, {"c": 3}]}"#, r#"{"b": [{"c": 3}, 1]}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 2}"#, false),
            ("[1, 2]", "[2]", true),
            ("[1, 2]", "[[2]]", false),
            ("1", "1", true),
            ("{}", "[]", false),
        ] {
            assert_eq!(contains(whole, part), expected, "{whole} @> {part}");
        }
    }
}
