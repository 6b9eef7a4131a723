//! Small changes to the token stream for syntax that the grammar below does not know.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

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

/// `v FOR SYSTEM_TIME AS OF SAVEPOINT 'name'` is the relation `"@name".v` for the grammar below: one of another database.
pub(super) fn saved_relations(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    const WORDS: [&str; 5] = ["for", "system_time", "as", "of", "savepoint"];
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match saved_at(&tokens, at, &WORDS).zip(name_before(&kept)) {
            Some(((savepoint, after), start)) => {
                let span = kept[start].span;
                let word = |value: String| Token::Word(Word { value, quote_style: Some('"'), keyword: Keyword::NoKeyword });
                let qualified = kept[start..].iter().any(|t| t.token == Token::Period);
                let mut prefix = vec![word(format!("@{savepoint}")), Token::Period];
                if !qualified {
                    prefix.extend([word(String::new()), Token::Period]);
                }
                kept.splice(start..start, prefix.into_iter().map(|token| TokenWithSpan { token, span }));
                at = after;
            }
            None => {
                kept.push(token.clone());
                at += 1;
            }
        }
    }
    kept
}

/// The savepoint's name behind these words, and the place after it.
fn saved_at(tokens: &[TokenWithSpan], at: usize, words: &[&str]) -> Option<(String, usize)> {
    let mut rest = tokens.iter().enumerate().skip(at).filter(|(_, t)| !matches!(t.token, Token::Whitespace(_)));
    for word in words {
        let Token::Word(found) = &rest.next()?.1.token else { return None };
        if found.quote_style.is_some() || !found.value.eq_ignore_ascii_case(word) {
            return None;
        }
    }
    let (place, token) = rest.next()?;
    let name = match &token.token {
        Token::SingleQuotedString(text) => text.clone(),
        Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
        Token::Word(word) => word.value.to_lowercase(),
        _ => return None,
    };
    Some((name, place + 1))
}

/// Where the name begins that these tokens end with.
fn name_before(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut start = None;
    let mut word_next = true;
    for (at, token) in tokens.iter().enumerate().rev() {
        match &token.token {
            Token::Whitespace(_) if start.is_none() => {}
            Token::Word(_) if word_next => (start, word_next) = (Some(at), false),
            Token::Period if !word_next => word_next = true,
            _ => break,
        }
    }
    start
}
