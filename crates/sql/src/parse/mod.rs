//! Text to statements: sqlparser's PostgreSQL grammar, with Millpond's own statements parsed beside it.
//! The client's text is cut into tokens once, so that every position is one in that text.

mod convert;
mod create;
mod depth;
mod dialect;
mod position;
mod refuse;
mod words;

use millpond_common::{Error, Result, SqlState};
use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub(crate) use dialect::Dialect;
pub use position::Positions;

use crate::statement::{Statement, StatementKind};

/// How deeply expressions and queries may nest.
const RECURSION_MAX: usize = 120;

/// Splits a client's text at its semicolons and parses each statement. Text without a statement gives none.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    let positions = Positions::new(sql);
    let dialect = Dialect;
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|e| {
        let at = positions.character(e.location.line, e.location.column);
        let rest = sql.chars().skip(at.saturating_sub(1)).collect::<String>();
        let message = match e.message.to_ascii_lowercase() {
            m if m.contains("unterminated") && m.contains("comment") => "unterminated /* comment".to_string(),
            _ if rest.starts_with('"') => format!("unterminated quoted identifier at or near \"{rest}\""),
            m if m.contains("unterminated") => format!("unterminated quoted string at or near \"{rest}\""),
            _ => format!("syntax error at or near \"{}\"", rest.split_whitespace().next().unwrap_or_default()),
        };
        Error::new(SqlState::SYNTAX_ERROR, message).at(at.max(1))
    })?;
    let tokens = words::saved_relations(words::table_function_arguments(positions.flatten(tokens)));
    split(tokens).into_iter().map(|tokens| Source { sql, positions: &positions, tokens }.statement()).collect()
}

/// Parses one query, such as a stored view's.
pub fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    match parse(sql)?.pop().map(|s| s.kind) {
        Some(StatementKind::Query(query)) => Ok(query),
        _ => Err(Error::internal(format!("stored text is not a query: {sql}"))),
    }
}

/// Parses one scalar expression, such as a stored default.
pub fn parse_expr(sql: &str) -> Result<ast::Expr> {
    let dialect = Dialect;
    let positions = Positions::new(sql);
    Parser::new(&dialect)
        .with_recursion_limit(RECURSION_MAX)
        .try_with_sql(sql)
        .and_then(|mut parser| {
            let mut expr = parser.parse_expr()?;
            parser.expect_token(&Token::EOF)?;
            crate::compat::rewrite_expr(&mut expr);
            Ok(expr)
        })
        .map_err(|e| syntax_error(&e, &positions))
}

/// Cuts at semicolons that are not inside parentheses; drops what holds no token.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut statements = vec![Vec::new()];
    for token in tokens {
        match token.token {
            Token::SemiColon => statements.push(Vec::new()),
            Token::EOF => {}
            _ => {
                if let Some(last) = statements.last_mut() {
                    last.push(token);
                }
            }
        }
    }
    statements.retain(|tokens| tokens.iter().any(|t| !matches!(t.token, Token::Whitespace(_))));
    statements
}

/// The tokens of one statement, with the client's whole text behind them.
pub(crate) struct Source<'a> {
    sql: &'a str,
    positions: &'a Positions,
    tokens: Vec<TokenWithSpan>,
}

impl<'a> Source<'a> {
    fn statement(mut self) -> Result<Statement> {
        self.tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
        let depth = depth::depth(&self.tokens);
        if depth > depth::DEPTH_MAX {
            return Err(too_deep());
        }
        let text = self.text(0, self.tokens.len());
        let offset = self.tokens.first().map_or(0, |t| self.position(t).saturating_sub(1));
        let kind = self.kind()?;
        Ok(Statement { text, offset, depth, kind })
    }

    /// What the statement asks for: our own statements first, by their words, then PostgreSQL's.
    fn kind(&self) -> Result<StatementKind> {
        if let Some(kind) = self.own()? {
            return Ok(kind);
        }
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, 0);
        let mut statement = parser.parse_statement().map_err(|e| self.syntax(&e))?;
        self.expect_end(&mut parser)?;
        refuse::check_joins(&statement)?;
        crate::compat::rewrite(&mut statement);
        self.convert(statement)
    }

    /// The same statement with another first word.
    fn with_first(&self, word: &str) -> Source<'_> {
        let mut tokens = self.tokens.clone();
        if let Some(first) = tokens.first_mut() {
            first.token = Token::make_keyword(word);
        }
        Source { sql: self.sql, positions: self.positions, tokens }
    }

    /// A parser that begins at a token.
    fn parser<'d>(&self, dialect: &'d Dialect, from: usize) -> Parser<'d> {
        let tokens = self.tokens.get(from..).unwrap_or_default().to_vec();
        Parser::new(dialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens)
    }

    /// The statement that begins at a token, with its own text.
    fn rest(&self, from: usize) -> Result<Statement> {
        let tokens = self.tokens.get(from..).unwrap_or_default().to_vec();
        if tokens.is_empty() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "syntax error at end of input").at(self.end()));
        }
        Source { sql: self.sql, positions: self.positions, tokens }.statement()
    }

    fn expect_end(&self, parser: &mut Parser<'_>) -> Result<()> {
        let next = parser.peek_token();
        match next.token {
            Token::EOF => Ok(()),
            _ => Err(self.near(&next)),
        }
    }

    /// The text of the tokens `from..to`.
    fn text(&self, from: usize, to: usize) -> String {
        let (Some(first), Some(last)) = (self.tokens.get(from), self.tokens.get(to.saturating_sub(1))) else { return String::new() };
        let start = self.positions.byte(first.span.start.line, first.span.start.column);
        let end = self.positions.byte(last.span.end.line, last.span.end.column);
        self.sql.get(start..end).unwrap_or_default().trim().to_string()
    }

    fn position(&self, token: &TokenWithSpan) -> usize {
        self.positions.character(token.span.start.line, token.span.start.column)
    }

    fn end(&self) -> usize {
        self.sql.chars().count() + 1
    }

    /// `syntax error at or near` this token.
    fn near(&self, token: &TokenWithSpan) -> Error {
        match &token.token {
            Token::EOF => Error::new(SqlState::SYNTAX_ERROR, "syntax error at end of input").at(self.end()),
            other => Error::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{other}\"")).at(self.position(token)),
        }
    }

    fn syntax(&self, error: &ParserError) -> Error {
        syntax_error(error, self.positions)
    }

    /// The word at a position of the statement, in upper case; empty for other tokens and quoted identifiers.
    fn word(&self, at: usize) -> String {
        match self.tokens.get(at).map(|t| &t.token) {
            Some(Token::Word(w)) if w.quote_style.is_none() => w.value.to_uppercase(),
            _ => String::new(),
        }
    }

    /// Whether the statement has these words from `at` on.
    fn has_words(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, w)| self.word(at + i) == *w)
    }
}

fn too_deep() -> Error {
    Error::new(SqlState("54001"), "stack depth limit exceeded")
        .with_hint("The statement nests too deeply, or has too long a chain of operators; split it up. A list, x IN (…), may be long.")
}

/// sqlparser's error as PostgreSQL says it: it names what was found and where.
fn syntax_error(error: &ParserError, positions: &Positions) -> Error {
    let message = match error {
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => m.as_str(),
        ParserError::RecursionLimitExceeded => {
            return too_deep();
        }
    };
    let (text, at) = match message.rfind(" at Line: ") {
        Some(cut) => {
            let mut numbers = message[cut..].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
            let line = numbers.next().unwrap_or(0);
            let column = numbers.next().unwrap_or(0);
            (&message[..cut], (line > 0).then(|| positions.character(line, column)))
        }
        None => (message, None),
    };
    let found = text.rfind("found: ").map(|i| text[i + 7..].trim());
    let error = match found {
        Some("EOF") => return Error::new(SqlState::SYNTAX_ERROR, "syntax error at end of input").at(positions.end()),
        Some(found) => Error::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{found}\"")),
        None => Error::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")),
    };
    match at {
        Some(at) => error.at(at),
        None => error,
    }
}
