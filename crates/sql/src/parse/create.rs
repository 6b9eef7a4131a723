//! The statements that PostgreSQL does not have, or that need their parts' own text.

use std::collections::BTreeMap;

use crate::parse::Dialect;
use millpond_common::{Error, Result, SqlState};
use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::Source;
use crate::statement::{AlterView, CreateSource, Drop, DropKind, Name, ShowKind, SourceFormat, StatementKind, fold};

impl Source<'_> {
    /// Our own statements, recognised by their first words.
    pub(super) fn own(&self) -> Result<Option<StatementKind>> {
        if let Some(refused) = self.refuse() {
            return Err(refused);
        }
        let kind = match self.word(0).as_str() {
            "CREATE" if self.word(1) == "SOURCE" => self.create_source(2)?,
            "DROP" if self.word(1) == "SOURCE" => self.drop_source()?,
            "DROP" if self.has_words(1, &["MATERIALIZED", "SOURCE"]) => return Err(self.near_at(2)),
            "ALTER" => match self.alter()? {
                Some(kind) => kind,
                None => return Ok(None),
            },
            "CHECKPOINT" => {
                let texts = self.tokens.iter().skip(1).map(|t| t.token.to_string().to_ascii_uppercase()).collect::<Vec<_>>();
                let full = match texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    [] => false,
                    ["(", "FULL", ")"] => true,
                    _ => return Err(self.near_at(1).with_hint("Write CHECKPOINT, or CHECKPOINT (FULL).")),
                };
                StatementKind::Checkpoint { full }
            }
            "RESTORE" => {
                let at = if self.word(1) == "SAVEPOINT" { 2 } else { 1 };
                let name = self.name_at(at)?;
                if name.schema.is_some() {
                    return Err(self.near_at(at));
                }
                self.nothing_after(at + 1)?;
                StatementKind::RestoreSavepoint(name.name)
            }
            "CANCEL" => self.cancel_job()?,
            "FLUSH" => {
                self.nothing_after(1)?;
                StatementKind::Flush
            }
            "SHOW" => match self.show()? {
                Some(kind) => kind,
                None => return Ok(None),
            },
            "EXPLAIN" => self.explain()?,
            "PREPARE" if self.word(1) != "TRANSACTION" => self.prepare()?,
            "MOVE" => match self.with_first("FETCH").kind()? {
                StatementKind::Fetch { name, count, .. } => StatementKind::Fetch { name, count, skip: true },
                _ => return Err(self.near_at(0)),
            },
            "ABORT" => self.with_first("ROLLBACK").kind()?,
            "TABLE" | "VACUUM" | "ANALYZE" | "REINDEX" | "CLUSTER" | "LISTEN" | "UNLISTEN" | "NOTIFY" | "LOCK" => {
                return self.no_operation();
            }
            "SECURITY" | "LOAD" | "REFRESH" => return self.not_needed(),
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn near_at(&self, at: usize) -> Error {
        match self.tokens.get(at) {
            Some(token) => self.near(token),
            None => Error::new(SqlState::SYNTAX_ERROR, "syntax error at end of input").at(self.end()),
        }
    }

    fn nothing_after(&self, at: usize) -> Result<()> {
        if self.tokens.len() > at { Err(self.near_at(at)) } else { Ok(()) }
    }

    /// Maintenance that Millpond does by itself.
    fn no_operation(&self) -> Result<Option<StatementKind>> {
        Ok(match self.word(0).as_str() {
            "VACUUM" => Some(StatementKind::NoOperation("VACUUM")),
            "ANALYZE" => Some(StatementKind::NoOperation("ANALYZE")),
            "REINDEX" => Some(StatementKind::NoOperation("REINDEX")),
            "UNLISTEN" => Some(StatementKind::NoOperation("UNLISTEN")),
            "TABLE" => None,
            other => {
                return Err(Error::unsupported(
                    format!("{other} is not supported"),
                    "Poll the view: a SELECT sees all that was written before it.",
                ));
            }
        })
    }

    fn not_needed(&self) -> Result<Option<StatementKind>> {
        match self.word(0).as_str() {
            "REFRESH" => Err(Error::unsupported(
                "REFRESH MATERIALIZED VIEW is not supported",
                "A materialized view is always up to date; there is nothing to refresh.",
            )),
            other => Err(Error::unsupported(format!("{other} is not supported"), "Leave the statement out.")),
        }
    }

    fn create_source(&self, from: usize) -> Result<StatementKind> {
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, from);
        let parse = |parser: &mut Parser<'_>| {
            let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            let name = parser.parse_object_name(false)?;
            let (columns, constraints) = match parser.peek_token_ref().token {
                Token::LParen => parser.parse_columns()?,
                _ => (Vec::new(), Vec::new()),
            };
            Ok((if_not_exists, name, columns, constraints))
        };
        let (if_not_exists, name, columns, constraints) = parse(&mut parser).map_err(|e| self.syntax(&e))?;
        let mut options = BTreeMap::new();
        if parser.parse_keyword(Keyword::WITH) {
            options = self.options(&mut parser)?;
        }
        let format = match parser.peek_token_ref().token.to_string().to_uppercase().as_str() {
            "FORMAT" | "ROW" => Some(self.format(&mut parser)?),
            _ => None,
        };
        self.expect_end(&mut parser)?;
        if options.is_empty() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "CREATE SOURCE needs a WITH clause")
                .at(self.end())
                .with_hint("For example: WITH (connector = 'file', path = 'data/*.csv') FORMAT PLAIN ENCODE CSV."));
        }
        let name = self.name(&name)?;
        Ok(StatementKind::CreateSource(CreateSource { name, if_not_exists, columns, constraints, options, format }))
    }

    /// `FORMAT PLAIN ENCODE CSV (header = true)`
    fn format(&self, parser: &mut Parser<'_>) -> Result<SourceFormat> {
        parser.next_token();
        let word = |parser: &mut Parser<'_>| {
            let token = parser.next_token();
            match &token.token {
                Token::Word(w) => Ok(w.value.to_uppercase()),
                _ => Err(self.near(&token)),
            }
        };
        let format = word(parser)?;
        let token = parser.peek_token();
        if word(parser)? != "ENCODE" {
            return Err(self.near(&token).with_hint("Write FORMAT PLAIN ENCODE CSV, JSON or PARQUET."));
        }
        let encode = word(parser)?;
        let options = match parser.peek_token_ref().token {
            Token::LParen => self.options(parser)?,
            _ => BTreeMap::new(),
        };
        Ok(SourceFormat { format, encode, options })
    }

    /// `(name = value, dotted.name = 'value')`
    fn options(&self, parser: &mut Parser<'_>) -> Result<BTreeMap<String, String>> {
        let open = parser.next_token();
        if open.token != Token::LParen {
            return Err(self.near(&open));
        }
        let mut options = BTreeMap::new();
        if parser.consume_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            let first = parser.peek_token();
            let mut name = String::new();
            loop {
                let token = parser.next_token();
                match &token.token {
                    Token::Word(w) => name.push_str(&w.value.to_lowercase()),
                    Token::SingleQuotedString(s) => name.push_str(s),
                    _ => return Err(self.near(&token)),
                }
                if !parser.consume_token(&Token::Period) {
                    break;
                }
                name.push('.');
            }
            let equals = parser.next_token();
            if equals.token != Token::Eq {
                return Err(self.near(&equals));
            }
            let negative = parser.consume_token(&Token::Minus);
            let token = parser.next_token();
            let value = match &token.token {
                Token::Word(w) => w.value.clone(),
                Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => s.clone(),
                Token::Number(n, _) if negative => format!("-{n}"),
                Token::Number(n, _) => n.clone(),
                _ => return Err(self.near(&token)),
            };
            if options.insert(name.clone(), value).is_some() {
                return Err(Error::new(SqlState::SYNTAX_ERROR, format!("option \"{name}\" is given twice")).at(self.position(&first)));
            }
            let next = parser.next_token();
            match next.token {
                Token::Comma => {}
                Token::RParen => return Ok(options),
                _ => return Err(self.near(&next)),
            }
        }
    }

    fn drop_source(&self) -> Result<StatementKind> {
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, 2);
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let names = parser.parse_comma_separated(|p| p.parse_object_name(false)).map_err(|e| self.syntax(&e))?;
        let cascade = parser.parse_keyword(Keyword::CASCADE);
        let _restrict = !cascade && parser.parse_keyword(Keyword::RESTRICT);
        self.expect_end(&mut parser)?;
        let names = names.iter().map(|n| self.name(n)).collect::<Result<Vec<_>>>()?;
        Ok(StatementKind::Drop(Drop { kind: DropKind::Source, names, if_exists, cascade }))
    }

    /// ALTER … RENAME TO, ALTER SYSTEM; the rest of ALTER is refused.
    fn alter(&self) -> Result<Option<StatementKind>> {
        let (kind, mut at) = match (self.word(1).as_str(), self.word(2).as_str()) {
            ("SYSTEM", "SET" | "RESET") => return self.alter_system().map(Some),
            ("TABLE", _) => (DropKind::Table, 2),
            ("SOURCE", _) => (DropKind::Source, 2),
            ("VIEW", _) => (DropKind::View, 2),
            ("MATERIALIZED", "VIEW") => (DropKind::MaterializedView, 3),
            _ => {
                return Err(Error::unsupported(
                    format!("ALTER {} is not supported yet", self.word(1)),
                    "Drop the object and create it again.",
                ));
            }
        };
        let if_exists = self.has_words(at, &["IF", "EXISTS"]);
        at += if if_exists { 2 } else { 0 };
        if self.word(at) == "ONLY" {
            at += 1;
        }
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, at);
        let name = parser.parse_object_name(false).map_err(|e| self.syntax(&e))?;
        if kind == DropKind::MaterializedView
            && let Some(action) = self.alter_view(&mut parser)?
        {
            return Ok(Some(StatementKind::AlterMaterializedView { name: self.name(&name)?, if_exists, action }));
        }
        if !parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
            return Err(Error::unsupported(
                format!("ALTER {} other than RENAME TO is not supported yet", kind.noun().to_uppercase()),
                "Create the object anew with the change, and drop the old one.",
            ));
        }
        let new = parser.parse_identifier().map_err(|e| self.syntax(&e))?;
        self.expect_end(&mut parser)?;
        Ok(Some(StatementKind::Rename { kind, name: self.name(&name)?, if_exists, new_name: fold(&new) }))
    }

    /// `SET (option = value, …)`, `RESET (option, …)`, `RESTART`
    fn alter_view(&self, parser: &mut Parser<'_>) -> Result<Option<AlterView>> {
        let action = if parser.parse_keyword(Keyword::SET) {
            AlterView::Options(self.options(parser)?.into_iter().map(|(name, value)| (name, Some(value))).collect())
        } else if parser.parse_keyword(Keyword::RESET) {
            let names = |parser: &mut Parser<'_>| {
                parser.expect_token(&Token::LParen)?;
                let names = parser.parse_comma_separated(Parser::parse_identifier)?;
                parser.expect_token(&Token::RParen)?;
                Ok(names)
            };
            let names = names(parser).map_err(|e| self.syntax(&e))?;
            AlterView::Options(names.iter().map(|name| (fold(name), None)).collect())
        } else if matches!(&parser.peek_token_ref().token, Token::Word(w) if w.value.eq_ignore_ascii_case("restart")) {
            parser.next_token();
            AlterView::Restart
        } else {
            return Ok(None);
        };
        self.expect_end(parser)?;
        Ok(Some(action))
    }

    /// `CANCEL JOB number`
    fn cancel_job(&self) -> Result<StatementKind> {
        if self.word(1) != "JOB" {
            return Err(self.near_at(1));
        }
        let number = match self.tokens.get(2).map(|t| &t.token) {
            Some(Token::Number(n, _)) => n.parse().map_err(|_| self.near_at(2))?,
            _ => return Err(self.near_at(2).with_hint("SHOW JOBS has the numbers.")),
        };
        self.nothing_after(3)?;
        Ok(StatementKind::CancelJob(number))
    }

    fn alter_system(&self) -> Result<StatementKind> {
        let mut at = 4;
        let mut name = self.tokens.get(3).map(|t| t.token.to_string().to_lowercase()).ok_or_else(|| self.near_at(3))?;
        while self.tokens.get(at).is_some_and(|t| t.token == Token::Period) {
            name = format!("{name}.{}", self.word(at + 1).to_lowercase());
            at += 2;
        }
        if self.word(2) == "RESET" {
            self.nothing_after(at)?;
            return Ok(StatementKind::AlterSystem { name, value: None });
        }
        if !(self.word(at) == "TO" || self.tokens.get(at).is_some_and(|t| t.token == Token::Eq)) {
            return Err(self.near_at(at));
        }
        let token = |at: usize| self.tokens.get(at).map(|t| &t.token);
        let (value, used) = match (token(at + 1), token(at + 2)) {
            (Some(Token::SingleQuotedString(s)), _) => (s.clone(), 1),
            (Some(Token::Word(w)), _) => (w.value.clone(), 1),
            (Some(Token::Number(n, _)), _) => (n.clone(), 1),
            (Some(Token::Minus), Some(Token::Number(n, _))) => (format!("-{n}"), 2),
            _ => return Err(self.near_at(at + 1)),
        };
        self.nothing_after(at + 1 + used)?;
        let value = (!value.eq_ignore_ascii_case("default")).then_some(value);
        Ok(StatementKind::AlterSystem { name, value })
    }

    /// The SHOWs that PostgreSQL does not have; the others fall to the grammar.
    fn show(&self) -> Result<Option<StatementKind>> {
        let (kind, used) = match self.word(1).as_str() {
            "JOBS" => (ShowKind::Jobs, 2),
            "SOURCES" => (ShowKind::Sources, 2),
            "TABLES" => (ShowKind::Tables, 2),
            "VIEWS" => (ShowKind::Views, 2),
            "MATERIALIZED" if self.word(2) == "VIEWS" => (ShowKind::MaterializedViews, 3),
            "CHECKPOINTS" => (ShowKind::Checkpoints, 2),
            "SAVEPOINTS" => (ShowKind::Savepoints, 2),
            "SCHEMAS" => (ShowKind::Schemas, 2),
            "DATABASES" => (ShowKind::Databases, 2),
            "ALL" => (ShowKind::All, 2),
            "COLUMNS" if self.word(2) == "FROM" => (ShowKind::Columns(self.name_at(3)?), self.tokens.len()),
            "CREATE" => {
                let at = if self.has_words(2, &["MATERIALIZED", "VIEW"]) { 4 } else { 3 };
                (ShowKind::Create(self.name_at(at)?), self.tokens.len())
            }
            "TIME" if self.word(2) == "ZONE" => (ShowKind::Variable("timezone".into()), 3),
            "TRANSACTION" if self.has_words(2, &["ISOLATION", "LEVEL"]) => (ShowKind::Variable("transaction_isolation".into()), 4),
            "SESSION" if self.word(2) == "AUTHORIZATION" => (ShowKind::Variable("session_authorization".into()), 3),
            _ => {
                let parts = self.tokens.iter().skip(1).map(|t| t.token.to_string()).collect::<Vec<_>>();
                let well_formed = matches!(self.tokens.get(1).map(|t| &t.token), Some(Token::Word(_)))
                    && (self.tokens.len() == 2 || (self.tokens.len() == 4 && parts.get(1).is_some_and(|p| p == ".")));
                if !well_formed {
                    return Err(self.near_at(if self.tokens.len() > 2 { 2 } else { 1 }));
                }
                (ShowKind::Variable(parts.concat().trim_matches('"').to_lowercase()), self.tokens.len())
            }
        };
        self.nothing_after(used)?;
        Ok(Some(StatementKind::Show(kind)))
    }

    /// `EXPLAIN [ANALYZE] [VERBOSE] statement`, `EXPLAIN (options) statement`
    fn explain(&self) -> Result<StatementKind> {
        let (mut analyze, mut verbose, mut at) = (false, false, 1);
        if self.tokens.get(at).is_some_and(|t| t.token == Token::LParen) && !["SELECT", "WITH", "VALUES"].contains(&self.word(2).as_str()) {
            let Some(close) = self.tokens.iter().position(|t| t.token == Token::RParen) else {
                return Err(self.near_at(self.tokens.len()));
            };
            let mut word = at + 1;
            while word < close {
                let mut end = word;
                while end < close && self.tokens.get(end).is_some_and(|t| t.token != Token::Comma) {
                    end += 1;
                }
                let on = !(end > word + 1 && ["FALSE", "OFF", "0"].contains(&self.word(word + 1).as_str()));
                match self.word(word).as_str() {
                    "ANALYZE" => analyze = on,
                    "VERBOSE" => verbose = on,
                    "COSTS" | "BUFFERS" | "TIMING" | "SUMMARY" | "SETTINGS" | "WAL" => {}
                    "FORMAT" if self.word(word + 1) == "TEXT" => {}
                    "FORMAT" => {
                        return Err(Error::unsupported(
                            format!("EXPLAIN (FORMAT {}) is not supported", self.word(word + 1)),
                            "Use the text format.",
                        ));
                    }
                    _ => {
                        return Err(Error::new(
                            SqlState::SYNTAX_ERROR,
                            format!("unrecognized EXPLAIN option \"{}\"", self.word(word).to_lowercase()),
                        ));
                    }
                }
                word = end + 1;
            }
            at = close + 1;
        } else {
            while matches!(self.word(at).as_str(), "ANALYZE" | "VERBOSE") {
                analyze |= self.word(at) == "ANALYZE";
                verbose |= self.word(at) == "VERBOSE";
                at += 1;
            }
        }
        if analyze && self.has_words(at, &["MATERIALIZED", "VIEW"]) {
            return Err(Error::unsupported(
                "EXPLAIN ANALYZE MATERIALIZED VIEW is not supported yet",
                "Select from millpond.operators: it has the live figures of every operator.",
            ));
        }
        let inner = self.rest(at)?;
        Ok(match inner.kind {
            StatementKind::CreateMaterializedView(create) => StatementKind::ExplainCreateMaterializedView(create),
            StatementKind::Query(_)
            | StatementKind::Insert(_)
            | StatementKind::Update(_)
            | StatementKind::Delete(_)
            | StatementKind::Execute { .. } => StatementKind::Explain { analyze, verbose, statement: Box::new(inner) },
            _ => return Err(self.near_at(at)),
        })
    }

    /// `PREPARE name (types) AS statement`
    fn prepare(&self) -> Result<StatementKind> {
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, 1);
        let head = |parser: &mut Parser<'_>| {
            let name = parser.parse_identifier()?;
            let mut types: Vec<ast::DataType> = Vec::new();
            if parser.consume_token(&Token::LParen) {
                types = parser.parse_comma_separated(Parser::parse_data_type)?;
                parser.expect_token(&Token::RParen)?;
            }
            parser.expect_keyword(Keyword::AS)?;
            Ok((name, types))
        };
        let (name, types) = head(&mut parser).map_err(|e| self.syntax(&e))?;
        // The first AS that is not inside parentheses begins the statement.
        let mut depth = 0;
        let at = self.tokens.iter().position(|t| {
            match t.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(&t.token, Token::Word(w) if w.keyword == Keyword::AS)
        });
        let statement = Box::new(self.rest(at.unwrap_or(0) + 1)?);
        Ok(StatementKind::Prepare { name: fold(&name), types, statement })
    }

    fn name_at(&self, at: usize) -> Result<Name> {
        let dialect = Dialect;
        let mut parser = self.parser(&dialect, at);
        let name = parser.parse_object_name(false).map_err(|e| self.syntax(&e))?;
        self.expect_end(&mut parser)?;
        self.name(&name)
    }

    /// A dotted name, with its position.
    pub(super) fn name(&self, name: &ast::ObjectName) -> Result<Name> {
        let parts = name.0.iter().filter_map(|p| p.as_ident().cloned()).collect::<Vec<_>>();
        let mut folded = crate::catalog::name_of(&parts)?;
        if let Some(first) = parts.first() {
            folded.position = self.positions.character(first.span.start.line, first.span.start.column);
        }
        Ok(folded)
    }

    /// The text after the first AS outside parentheses: a view's query.
    pub(super) fn text_after_as(&self) -> String {
        let mut depth = 0;
        let at = self.tokens.iter().position(|t| {
            match t.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && w.keyword == Keyword::AS)
        });
        self.text(at.map_or(0, |a| a + 1), self.tokens.len())
    }
}
