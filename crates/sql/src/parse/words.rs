//! Small changes to the token stream for syntax that the grammar below does not know.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// `TUMBLE(TABLE s, …)` is the standard's way to write `TUMBLE(s, …)`: drops the word TABLE there.
pub(super) fn table_function_arguments(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |token: &TokenWithSpan, words: &[&str]| match &token.token {
        Token::Word(w) => w.quote_style.is_none() && words.iter().any(|x| w.value.eq_ignore_ascii_case(x)),
        _ => false,
    };
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if is(&token, &["table"]) {
            let mut before = kept.iter().rev().filter(|t| !matches!(t.token, Token::Whitespace(_)));
            let after_parenthesis = before.next().is_some_and(|t| t.token == Token::LParen);
            if after_parenthesis && before.next().is_some_and(|t| is(t, &["tumble", "hop", "session"])) {
                continue;
            }
        }
        kept.push(token);
    }
    kept
}
