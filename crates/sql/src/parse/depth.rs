//! How deep the tree of a statement can become, from its tokens. The parser's own limit counts what is nested in parentheses; a
//! chain of operators, of joins or of UNIONs is as deep as it is long, and all that walks over it needs stack for each link.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// More is refused. A thread of the server has room for several times as much (`STACK_BYTES` in `millpond/src/main.rs`).
pub(super) const DEPTH_MAX: usize = 2000;

/// One parenthesis or CASE.
#[derive(Default)]
struct Level {
    /// Links of the expression that is being read.
    operators: usize,
    /// Joins and set operations: they span clauses.
    relations: usize,
    /// In a FROM clause a comma is a join, behind WITH a query over the one before.
    from: bool,
    /// It is a CASE.
    case: bool,
    /// Links of all levels around it.
    above: usize,
}

/// The most links that any path through the statement's tree can have, or somewhat more.
pub(super) fn depth(tokens: &[TokenWithSpan]) -> usize {
    let (mut around, mut level, mut deepest) = (Vec::<Level>::new(), Level::default(), 0);
    // Behind an operator a word is a name, whatever it is.
    let mut is_operand = false;
    for token in tokens {
        let word = match &token.token {
            Token::Word(w) if w.quote_style.is_none() => w.value.to_ascii_uppercase(),
            _ => String::new(),
        };
        let word = if is_operand && !["CASE", "DISTINCT"].contains(&word.as_str()) { String::new() } else { word };
        is_operand = false;
        match (&token.token, word.as_str()) {
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, "CASE") => {
                let above = level.above + level.operators + level.relations + 1;
                around.push(std::mem::replace(&mut level, Level { above, case: word == "CASE", ..Level::default() }));
            }
            (Token::RParen | Token::RBracket | Token::RBrace, _) if !level.case => level = around.pop().unwrap_or_default(),
            (_, "END") if level.case => level = around.pop().unwrap_or_default(),
            (Token::Comma, _) => (level.operators, level.relations) = (0, level.relations + usize::from(level.from)),
            (_, "UNION" | "EXCEPT" | "INTERSECT" | "JOIN") => (level.operators, level.relations) = (0, level.relations + 1),
            // Queries of a WITH read each other.
            (_, "FROM" | "USING" | "WITH") => (level.operators, level.from) = (0, true),
            (_, "SELECT" | "WHERE" | "HAVING" | "GROUP" | "ORDER" | "SET" | "VALUES" | "RETURNING" | "LIMIT" | "OFFSET") => {
                (level.operators, level.from) = (0, false);
            }
            (_, "ON" | "WHEN" | "THEN" | "ELSE") => level.operators = 0,
            (
                _,
                "AND" | "OR" | "NOT" | "IS" | "ISNULL" | "NOTNULL" | "IN" | "LIKE" | "ILIKE" | "SIMILAR" | "BETWEEN" | "COLLATE" | "AT",
            ) => {
                level.operators += 1;
                // IS DISTINCT FROM is not the clause.
                is_operand = true;
            }
            (_, "DISTINCT") => is_operand = true,
            (Token::Word(_) | Token::Number(..) | Token::Period | Token::Placeholder(_), _) => {}
            (Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_), _) => {}
            _ => {
                level.operators += 1;
                is_operand = true;
            }
        }
        deepest = deepest.max(level.above + level.operators + level.relations);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Dialect;
    use sqlparser::tokenizer::Tokenizer;

    #[test]
    fn chains_count_and_lists_do_not() {
        let of = |sql: &str| {
            let tokens = Tokenizer::new(&Dialect, sql).tokenize_with_location().expect("these are tokens");
            depth(&tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect::<Vec<_>>())
        };
        let rows = |sql: &str| sql.repeat(100);
        assert_eq!(of("SELECT 1"), 0);
        assert_eq!(of(&format!("SELECT 1{}", rows("+1"))), 100);
        assert_eq!(of(&format!("SELECT a FROM t WHERE a <> 1{}", rows(" AND a <> 1"))), 201);
        assert_eq!(of(&format!("SELECT 1{}", rows(" UNION SELECT 1 + 1"))), 101);
        assert_eq!(of(&format!("SELECT 1 FROM t{}", rows(" JOIN t ON a = b"))), 101);
        assert_eq!(of(&format!("SELECT 1 FROM t{}", rows(", t"))), 100);
        assert_eq!(of(&format!("WITH a AS (SELECT 1){} SELECT 1", rows(", b AS (SELECT a FROM a)"))), 101);
        assert_eq!(of(&format!("SELECT a IN (1{})", rows(", -1"))), 3);
        assert_eq!(of(&format!("INSERT INTO t VALUES (1){}", rows(", (1, 'a', -1)"))), 2);
        assert_eq!(of(&format!("SELECT {}1{}", rows("("), rows(")"))), 100);
        assert_eq!(of(&format!("SELECT CASE{} END", rows(" WHEN a = 1 THEN 2"))), 2);
        assert_eq!(of(&format!("SELECT {}1{}", rows("CASE WHEN a THEN 1 ELSE "), rows(" END"))), 100);
        assert_eq!(of(&format!("SELECT a IS DISTINCT FROM b{} FROM t", rows(" AND a IS DISTINCT FROM b"))), 201);
        assert_eq!(of(&format!("SELECT 1{}", rows(" + limit"))), 100);
        assert_eq!(of(&format!("SELECT 1{}", rows(" + CASE WHEN a THEN 1 ELSE 2 END"))), 101);
        of(") END ) COMMIT CASE )) END ] (");
    }
}
