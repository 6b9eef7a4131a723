//! `= ANY`, `<> ALL` and their kin over literal arrays and subqueries; qualified operators; escapes in patterns.

use sqlparser::ast::{BinaryOperator, Expr, Value, ValueWithSpan};

use super::{as_string, call, string};

/// The operator that `OPERATOR(pg_catalog.x)` names.
pub(super) fn plain_operator(parts: &[String]) -> Option<BinaryOperator> {
    use BinaryOperator as B;
    let symbol = match parts {
        [symbol] => symbol,
        [schema, symbol] if schema == "pg_catalog" => symbol,
        _ => return None,
    };
    Some(match symbol.as_str() {
        "=" => B::Eq,
        "<>" | "!=" => B::NotEq,
        "<" => B::Lt,
        "<=" => B::LtEq,
        ">" => B::Gt,
        ">=" => B::GtEq,
        "+" => B::Plus,
        "-" => B::Minus,
        "*" => B::Multiply,
        "/" => B::Divide,
        "||" => B::StringConcat,
        "~" => B::PGRegexMatch,
        "~*" => B::PGRegexIMatch,
        "!~" => B::PGRegexNotMatch,
        "!~*" => B::PGRegexNotIMatch,
        "~~" => B::PGLikeMatch,
        "~~*" => B::PGILikeMatch,
        "!~~" => B::PGNotLikeMatch,
        "!~~*" => B::PGNotILikeMatch,
        _ => return None,
    })
}

/// The elements of an array that is written out: `ARRAY[…]` or `'{…}'`, cast or not.
fn elements(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Array(array) => Some(array.elem.clone()),
        Expr::Nested(inner) => elements(inner),
        Expr::Cast { expr: inner, .. } => elements(inner),
        other => parsed_elements(as_string(other)?),
    }
}

/// The elements of an array that is written as a text.
pub(super) fn parsed_elements(text: &str) -> Option<Vec<Expr>> {
    let item = |i: Option<String>| i.map_or_else(|| Expr::value(Value::Null), |t| string(&t));
    Some(parse_array(text)?.into_iter().map(item).collect())
}

/// The texts in a one-dimensional array literal such as `{a,"b c",NULL}`.
fn parse_array(text: &str) -> Option<Vec<Option<String>>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut item = String::new();
    let (mut inside_quotes, mut quoted) = (false, false);
    let finish = |item: &mut String, quoted: &mut bool| {
        let text = std::mem::take(item);
        let null = !std::mem::take(quoted) && text.eq_ignore_ascii_case("null");
        (!null).then_some(text)
    };
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (inside_quotes, quoted) = (!inside_quotes, true),
            '\\' => item.extend(chars.next()),
            ',' if !inside_quotes => items.push(finish(&mut item, &mut quoted)),
            '{' | '}' if !inside_quotes => return None,
            c if c.is_whitespace() && !inside_quotes && item.is_empty() => {}
            c => item.push(c),
        }
    }
    if quoted || !item.is_empty() || !items.is_empty() {
        items.push(finish(&mut item, &mut quoted));
    }
    Some(items)
}

/// Rewrites one `ANY` or `ALL` whose operands are already rewritten.
pub(super) fn rewrite(expr: &mut Expr) {
    let (left, op, right, any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
        _ => return,
    };
    if let BinaryOperator::PGCustomBinaryOperator(parts) = op
        && let Some(plain) = plain_operator(parts)
    {
        *op = plain;
    }
    let subquery = match right.as_ref() {
        Expr::Subquery(q) => Some(q),
        Expr::Nested(inner) => match inner.as_ref() {
            Expr::Subquery(q) => Some(q),
            _ => None,
        },
        _ => None,
    };
    let membership = match (any, &op) {
        (true, BinaryOperator::Eq) => Some(false),
        (false, BinaryOperator::NotEq) => Some(true),
        _ => None,
    };
    let replacement = match (membership, subquery) {
        (Some(negated), Some(query)) => Some(Expr::InSubquery { expr: left.clone(), subquery: query.clone(), negated }),
        (Some(negated), None) => elements(right).map(|list| {
            if list.is_empty() {
                // Nothing is among no values, not even NULL.
                Expr::value(Value::Boolean(negated))
            } else {
                Expr::InList { expr: left.clone(), list, negated }
            }
        }),
        (None, None) => elements(right).and_then(|list| {
            let join = if any { BinaryOperator::Or } else { BinaryOperator::And };
            let each = list.into_iter().map(|item| Expr::BinaryOp { left: left.clone(), op: op.clone(), right: Box::new(item) });
            let all = each.reduce(|a, b| Expr::BinaryOp { left: Box::new(a), op: join.clone(), right: Box::new(b) })?;
            Some(Expr::Nested(Box::new(all)))
        }),
        (None, Some(_)) => None,
    };
    if let Some(replacement) = replacement {
        *expr = replacement;
    }
}

/// `SIMILAR TO 'pattern'` as a regular expression over the whole text.
pub(super) fn similar_to(expr: &mut Expr) {
    let Expr::SimilarTo { negated, expr: value, pattern, escape_char: None } = expr else { return };
    let Some(pattern) = as_string(pattern) else { return };
    let mut regex = String::from("^(?:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.extend(['\\'].into_iter().chain(chars.next())),
            '.' | '^' | '$' => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    regex.push_str(")$");
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    *expr = Expr::BinaryOp { left: value.clone(), op, right: Box::new(string(&regex)) };
}

/// `LIKE pattern ESCAPE 'c'` with the only escape that DataFusion has.
pub(super) fn backslash_escape(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(character) = escape.take() else { return };
    if !matches!(&character.value, Value::SingleQuotedString(c) if c == "\\") {
        *pattern = call("millpond_like_pattern", vec![pattern.clone(), Expr::Value(character)]);
    }
}

#[cfg(test)]
mod tests {
    use super::parse_array;

    #[test]
    fn array_literals() {
        let texts = |list: &[&str]| Some(list.iter().map(|t| Some(t.to_string())).collect::<Vec<_>>());
        assert_eq!(parse_array("{}"), Some(vec![]));
        assert_eq!(parse_array("{r, v}"), texts(&["r", "v"]));
        assert_eq!(parse_array(r#"{"a,b","c\"d"}"#), texts(&["a,b", "c\"d"]));
        assert_eq!(parse_array(r#"{NULL,"NULL"}"#), Some(vec![None, Some("NULL".to_string())]));
        assert_eq!(parse_array("{{1}}"), None);
    }
}
