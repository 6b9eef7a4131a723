//! What is not there yet, or never will be: refused by name at parse time, never parsed and ignored.

use std::ops::ControlFlow;

use millpond_common::{Error, Result};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, Visit, Visitor};

use super::Source;

impl Source<'_> {
    /// Constructs that come later, told by their words.
    pub(super) fn refuse(&self) -> Option<Error> {
        let not_yet = |what: &str, hint: &str| Some(Error::unsupported(format!("{what} is not supported yet"), hint));
        let second = self.word(1);
        let object = match second.as_str() {
            "OR" => self.word(3),
            "UNIQUE" | "TEMP" | "TEMPORARY" | "UNLOGGED" => self.word(2),
            _ => second.clone(),
        };
        match (self.word(0).as_str(), object.as_str()) {
            ("CREATE" | "DROP" | "ALTER", "SINK") => {
                not_yet("CREATE SINK", "Read the view over the PostgreSQL protocol instead; sinks come in a later version.")
            }
            ("CREATE" | "DROP" | "ALTER", "INDEX") => not_yet(
                "CREATE INDEX",
                "Lookups by primary key need no index; declare a PRIMARY KEY, or create a materialized view grouped by the columns.",
            ),
            ("CREATE" | "DROP" | "ALTER", "FUNCTION" | "PROCEDURE" | "AGGREGATE") => {
                not_yet(&format!("{} {object}", self.word(0)), "Write the expression in the query, or put it into a view.")
            }
            ("CREATE" | "DROP" | "ALTER", "SEQUENCE") => not_yet("CREATE SEQUENCE", "Use uuid keys, gen_random_uuid() makes them."),
            ("CREATE" | "DROP" | "ALTER", "TYPE" | "DOMAIN") => not_yet(&format!("CREATE {object}"), "Use text with a CHECK constraint."),
            ("CREATE" | "DROP" | "ALTER", "TRIGGER") => not_yet("CREATE TRIGGER", "A materialized view follows its inputs by itself."),
            ("CREATE" | "DROP" | "ALTER", "CONNECTION" | "SECRET") => {
                not_yet(&format!("CREATE {object}"), "Put the options into the source's WITH clause.")
            }
            ("CREATE" | "DROP", "DATABASE") => {
                not_yet(&format!("{} DATABASE", self.word(0)), "A server has one database; use CREATE SCHEMA.")
            }
            ("CREATE" | "DROP" | "ALTER", "USER" | "ROLE" | "GROUP") | ("GRANT" | "REVOKE", _) => {
                not_yet("role management", "Connections from this machine are accepted under any user name.")
            }
            ("CREATE", "EXTENSION") => not_yet("CREATE EXTENSION", "There are no extensions to load."),
            ("SUBSCRIBE", _) => not_yet("SUBSCRIBE", "Select from the view again; a SELECT sees all that was written before it."),
            ("COPY", _) => not_yet("COPY", "Use INSERT with many rows in VALUES, or CREATE SOURCE with connector = 'file'."),
            ("MERGE", _) => not_yet("MERGE", "Use INSERT ... ON CONFLICT."),
            ("CALL" | "DO", _) => not_yet(&self.word(0), "Send the statements one by one."),
            ("SHOW", "SINKS") => not_yet(&format!("SHOW {object}"), "This comes in a later version."),
            ("CREATE" | "ALTER", _) if self.mentions(&["WATERMARK", "FOR"]) => {
                not_yet("WATERMARK", "Leave the clause out: views are exact without it, late rows correct them.")
            }
            _ if self.mentions(&["EMIT", "ON"]) => {
                not_yet("EMIT ON WINDOW CLOSE", "Leave it out: the view then shows each window's present result, and corrects it.")
            }
            _ if self.mentions(&["FOR", "SYSTEM_TIME"]) => {
                not_yet("FOR SYSTEM_TIME AS OF", "Join the table itself; the view follows its changes.")
            }
            _ => None,
        }
    }

    /// Whether these words stand next to each other anywhere.
    fn mentions(&self, words: &[&str]) -> bool {
        (0..self.tokens.len()).any(|at| self.has_words(at, words))
    }
}

/// Fails for joins whose common columns would be those of the wrong side.
pub(super) fn check_joins(statement: &ast::Statement) -> Result<()> {
    struct Joins;
    impl Visitor for Joins {
        type Break = Error;
        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
            select.from.iter().flat_map(|from| &from.joins).try_for_each(check_join)
        }
        fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<Error> {
            match factor {
                ast::TableFactor::NestedJoin { table_with_joins, .. } => table_with_joins.joins.iter().try_for_each(check_join),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match statement.visit(&mut Joins) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn check_join(join: &ast::Join) -> ControlFlow<Error> {
    let (name, hint, constraint) = match &join.join_operator {
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => ("RIGHT JOIN", "b.k, or write a LEFT JOIN", c),
        JoinOperator::FullOuter(c) => ("FULL JOIN", "coalesce(a.k, b.k)", c),
        _ => return ControlFlow::Continue(()),
    };
    let what = match constraint {
        JoinConstraint::Using(_) => format!("{name} with USING"),
        JoinConstraint::Natural => format!("NATURAL {name}"),
        JoinConstraint::On(_) | JoinConstraint::None => return ControlFlow::Continue(()),
    };
    ControlFlow::Break(Error::unsupported(format!("{what} is not supported yet"), format!("Use ON a.k = b.k, and select {hint}.")))
}
