//! Array literals as text: `{1,2,NULL}`.

use std::sync::Arc;

use arrow::array::{ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use datafusion::common::ScalarValue;
use millpond_common::{Error, Result, SqlState, SqlType};

/// The array that a text stands for.
pub fn parse(text: &str, item: &SqlType) -> Result<ScalarValue> {
    let malformed = || Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\""));
    let items = elements(text).ok_or_else(malformed)?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let values =
        cast_with_options(&StringArray::from(items), &item.arrow(), &strict).map_err(|e| crate::cast_error::in_words(Error::from(e)))?;
    let list = ListArray::try_new(Arc::new(item.field("item", true)), OffsetBuffer::from_lengths([values.len()]), values, None)?;
    Ok(ScalarValue::List(Arc::new(list)))
}

/// The elements of an array of one dimension; `None` if it is not one.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(vec![]);
    }
    let mut all = Vec::new();
    let mut chars = inner.chars();
    let (mut item, mut was_quoted, mut inside) = (String::new(), false, false);
    loop {
        match chars.next() {
            Some('\\') => item.push(chars.next()?),
            Some('"') => {
                inside = !inside;
                was_quoted = true;
            }
            Some('{' | '}') if !inside => return None,
            Some(c) if inside || (c != ',' && !(was_quoted && c.is_whitespace())) => item.push(c),
            Some(c) if c != ',' => {}
            end => {
                let bare = item.trim();
                match (was_quoted, bare) {
                    (true, _) => all.push(Some(std::mem::take(&mut item))),
                    (false, "") => return None,
                    (false, bare) => all.push((!bare.eq_ignore_ascii_case("null")).then(|| bare.to_string())),
                }
                item.clear();
                was_quoted = false;
                if end.is_none() {
                    return (!inside).then_some(all);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn elements_as_postgresql_reads_them() {
        let texts = |text| elements(text).map(|all| all.into_iter().map(|e| e.unwrap_or("NULL!".into())).collect::<Vec<_>>());
        assert_eq!(texts("{1, 2 ,NULL}").unwrap(), ["1", "2", "NULL!"]);
        assert_eq!(texts(r#"{"a,b",null,"NULL","q\"x"}"#).unwrap(), ["a,b", "NULL!", "NULL", "q\"x"]);
        assert_eq!(texts("{}").unwrap(), Vec::<String>::new());
        for wrong in ["1,2", "{1,,2}", "{1", "{{1},{2}}", "{\"a}"] {
            assert_eq!(elements(wrong), None, "{wrong}");
        }
        assert!(parse("{1,x}", &SqlType::Integer).is_err());
        assert_eq!(parse("{1,NULL}", &SqlType::Integer).unwrap().data_type(), SqlType::Array(Box::new(SqlType::Integer)).arrow());
    }
}
