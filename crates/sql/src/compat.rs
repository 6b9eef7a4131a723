//! Rewrites of PostgreSQL's own idioms that the planner has no form for.
//!
//! psql, drivers and BI tools ask the catalog in a dialect that few people write by hand: qualified operators and
//! types, casts to `regclass`, array subqueries, `= ANY ('{…}')`. [`rewrite`] turns a parsed statement into one that
//! means the same and that DataFusion plans. What touches user data is only rewritten where the meaning is equal in
//! every case; the freer rewrites ([`subqueries`]) are reserved for statements that read the system catalog.

mod casts;
mod precedence;
mod quantified;
mod rows;
mod subqueries;
mod tables;

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableFactor, VisitMut,
    VisitorMut,
};
use sqlparser::ast::{DataType, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Value, visit_relations};

/// Rewrites `statement` in place.
pub fn rewrite(statement: &mut Statement) {
    let system = reads_system_catalog(statement);
    let mut rewriter = Rewriter { system, scopes: Vec::new() };
    let _ = statement.visit(&mut rewriter);
    if let Statement::Query(query) = statement
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        casts::name_beside_wildcard(select);
    }
}

/// The same for an expression of user data that stands alone, such as a stored default.
pub fn rewrite_expr(expr: &mut Expr) {
    let _ = expr.visit(&mut Rewriter { system: false, scopes: Vec::new() });
}

/// Whether any relation of the statement belongs to PostgreSQL's catalog.
fn reads_system_catalog(statement: &Statement) -> bool {
    visit_relations(statement, |name| if is_system_relation(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }).is_break()
}

fn is_system_relation(name: &ObjectName) -> bool {
    match name_parts(name).as_slice() {
        [table] => table.starts_with("pg_"),
        [.., schema, _] => schema == "pg_catalog" || schema == "information_schema",
        [] => false,
    }
}

/// The parts of a name, folded as PostgreSQL folds them.
fn name_parts(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .filter_map(ObjectNamePart::as_ident)
        .map(|i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() })
        .collect()
}

/// Removes a leading `pg_catalog.`, or `information_schema.` where `also_information_schema`.
fn strip_schema(name: &mut ObjectName, also_information_schema: bool) {
    let parts = name_parts(name);
    if parts.len() == 2 && (parts[0] == "pg_catalog" || (also_information_schema && parts[0] == "information_schema")) {
        name.0.remove(0);
    }
}

/// A call of a function by its plain name.
fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(function(name, args))
}

fn function(name: &str, args: Vec<Expr>) -> Function {
    Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

/// The plain name and the arguments of a function call that has neither clauses nor named arguments.
fn as_call(expr: &Expr) -> Option<(String, Vec<&Expr>)> {
    let Expr::Function(f) = expr else { return None };
    let FunctionArguments::List(list) = &f.args else { return None };
    let args: Option<Vec<&Expr>> =
        list.args.iter().map(|a| if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = a { Some(e) } else { None }).collect();
    Some((name_parts(&f.name).pop()?, args?))
}

fn string(value: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(value.to_string()))
}

/// A literal string, without the parentheses and text casts around it.
fn as_string(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => as_string(inner),
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => Some(s),
            _ => None,
        },
        _ => None,
    }
}

fn null_text() -> Expr {
    casts::cast(Expr::value(Value::Null), DataType::Text)
}

struct Rewriter {
    /// The statement reads the system catalog: rewrites that only hold there are allowed.
    system: bool,
    /// For each SELECT around the current expression, its relations by the name that columns are qualified with.
    scopes: Vec<Vec<(String, ObjectName)>>,
}

impl Rewriter {
    fn relation_of(&self, qualifier: &str) -> Option<&ObjectName> {
        self.scopes.iter().rev().flatten().find(|(name, _)| name == qualifier).map(|(_, relation)| relation)
    }

    /// Columns that every table of PostgreSQL has and no relation here.
    fn hidden_column(&self, parts: &[Ident]) -> Option<Expr> {
        let [qualifier, column] = parts else { return None };
        match column.value.as_str() {
            "tableoid" => {
                let relation = self.relation_of(&qualifier.value)?;
                Some(call("millpond_regclass_oid", vec![string(&relation.to_string())]))
            }
            "xmin" if self.relation_of(&qualifier.value).is_some_and(is_system_relation) => {
                Some(Expr::value(Value::Number("0".into(), false)))
            }
            _ => None,
        }
    }
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.scopes.push(tables::named_relations(select));
        casts::name_outputs(select);
        if self.system {
            subqueries::prune_empty(select);
            subqueries::count_exists(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.scopes.pop();
        tables::set_returning(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if self.system {
            subqueries::wide_numbers(query);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        tables::rewrite_factor(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        rows::rewrite(expr);
        if self.system {
            if let Some(constant) = subqueries::constant(expr) {
                *expr = constant;
            }
            subqueries::drop_foreign_types(expr);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        precedence::distinct_from(expr);
        match expr {
            Expr::Collate { expr: inner, collation } => {
                // Text is compared by bytes here, which is what these collations mean.
                let known = name_parts(collation)
                    .pop()
                    .is_some_and(|c| matches!(c.as_str(), "default" | "C" | "c" | "POSIX" | "posix" | "ucs_basic"));
                if known {
                    *expr = (**inner).clone();
                }
            }
            Expr::BinaryOp { left, op, right } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = quantified::plain_operator(parts)
                {
                    *op = plain;
                }
                casts::compare_as_oids(left, op, right);
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => quantified::rewrite(expr),
            Expr::Cast { .. } | Expr::TypedString { .. } => casts::rewrite(expr),
            Expr::CompoundIdentifier(parts) => {
                if let Some(replacement) = self.hidden_column(parts) {
                    *expr = replacement;
                }
            }
            Expr::Function(f) => {
                strip_schema(&mut f.name, true);
                if let Some(replacement) = casts::local_time(f).or_else(|| subqueries::array(f)) {
                    *expr = replacement;
                }
            }
            // A field of a composite value, or the only user there is.
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                    *expr = call("get_field", vec![(**root).clone(), string(&field.value)]);
                }
            }
            Expr::Identifier(name) if name.quote_style.is_none() => match name.value.to_ascii_lowercase().as_str() {
                "current_role" => *expr = call("current_user", vec![]),
                "current_schema" => *expr = call("current_schema", vec![]),
                _ => {}
            },
            Expr::Subquery(query) if self.system => {
                if let Some(condition) = subqueries::at_most_one_row(query) {
                    *expr = subqueries::only_if(condition, expr.clone());
                }
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("timezone", vec![(**time_zone).clone(), (**timestamp).clone()]);
            }
            Expr::Interval(interval) => {
                if let Some(text) = casts::interval_text(interval) {
                    *expr = casts::cast(string(&text), DataType::Interval { fields: None, precision: None });
                }
            }
            Expr::SimilarTo { .. } => quantified::similar_to(expr),
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                quantified::backslash_escape(pattern, escape_char)
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::rewrite;
    use crate::parse::Dialect;
    use sqlparser::parser::Parser;

    fn rewritten(sql: &str) -> String {
        let mut statement = Parser::parse_sql(&Dialect, sql).unwrap().remove(0);
        rewrite(&mut statement);
        statement.to_string()
    }

    #[test]
    fn qualified_operators_types_and_functions() {
        assert_eq!(
            rewritten("SELECT pg_catalog.lower(x) AS a FROM t WHERE x OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default"),
            "SELECT lower(x) AS a FROM t WHERE x ~ '^(a)$'"
        );
        assert_eq!(rewritten("SELECT CAST(x AS pg_catalog.int4) AS a FROM t"), "SELECT CAST(x AS INT4) AS a FROM t");
    }

    #[test]
    fn object_names_and_numbers() {
        assert_eq!(rewritten("SELECT 1 AS a FROM t WHERE r = 'x'::regclass"), "SELECT 1 AS a FROM t WHERE r = millpond_regclass_oid('x')");
        assert_eq!(rewritten("SELECT o::regclass::text AS a FROM t"), "SELECT millpond_regclass_text(o) AS a FROM t");
        assert_eq!(rewritten("SELECT c.oid::pg_catalog.regclass FROM t c"), "SELECT millpond_regclass(c.oid) AS \"oid\u{1}0\" FROM t c");
        assert_eq!(rewritten("SELECT '5'::oid"), "SELECT millpond_oid('5') AS \"oid\"");
    }

    #[test]
    fn rows() {
        assert_eq!(rewritten("SELECT 1 AS x FROM t WHERE (a, b) = (c, 2)"), "SELECT 1 AS x FROM t WHERE ((a = c) AND (b = 2))");
        assert_eq!(rewritten("SELECT 1 AS x FROM t WHERE (a, b) <> (c, 2)"), "SELECT 1 AS x FROM t WHERE ((a <> c) OR (b <> 2))");
        assert_eq!(
            rewritten("SELECT 1 AS x FROM t WHERE (a, b, c) <= (1, 2, 3)"),
            "SELECT 1 AS x FROM t WHERE ((a < 1) OR ((a = 1) AND ((b < 2) OR ((b = 2) AND (c <= 3)))))"
        );
        assert_eq!(
            rewritten("SELECT 1 AS x FROM t WHERE (a, b) NOT IN ((1, 2), (3, 4))"),
            "SELECT 1 AS x FROM t WHERE (NOT (((a = 1) AND (b = 2)) OR ((a = 3) AND (b = 4))))"
        );
    }

    #[test]
    fn quantified_comparisons() {
        assert_eq!(rewritten("SELECT a FROM t WHERE k = ANY ('{r,v}')"), "SELECT a FROM t WHERE k IN ('r', 'v')");
        assert_eq!(rewritten("SELECT a FROM t WHERE k = ANY (ARRAY['r', 'v'])"), "SELECT a FROM t WHERE k IN ('r', 'v')");
        assert_eq!(rewritten("SELECT a FROM t WHERE k = ANY (SELECT b FROM u)"), "SELECT a FROM t WHERE k IN (SELECT b FROM u)");
        assert_eq!(rewritten("SELECT a FROM t WHERE k <> ALL ('{r}')"), "SELECT a FROM t WHERE k NOT IN ('r')");
    }

    #[test]
    fn parameters_and_arrays() {
        assert_eq!(
            rewritten("SELECT $1::oid[] AS a, $2::regclass AS b"),
            "SELECT $1::oid[] AS a, millpond_regclass_oid(CAST($2 AS TEXT)) AS b"
        );
        assert_eq!(rewritten("SELECT '{1,NULL}'::INT[] AS a"), "SELECT CAST(ARRAY['1', NULL] AS INT[]) AS a");
    }

    #[test]
    fn array_subqueries() {
        assert_eq!(
            rewritten("SELECT ARRAY(SELECT b FROM u WHERE u.x = t.x ORDER BY 1) AS l FROM t"),
            "SELECT millpond_array_or_empty((SELECT array_agg(b ORDER BY b) FROM u WHERE u.x = t.x)) AS l FROM t"
        );
    }

    #[test]
    fn catalog_subqueries_return_one_row() {
        assert_eq!(
            rewritten("SELECT (SELECT d.adbin FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND a.atthasdef) AS x FROM pg_attribute a"),
            "SELECT CASE WHEN a.atthasdef THEN (SELECT first_value(d.adbin) FROM pg_attrdef d WHERE d.adrelid = a.attrelid) END AS x FROM pg_attribute a"
        );
    }

    #[test]
    fn escapes_in_patterns() {
        assert_eq!(
            rewritten("SELECT a FROM t WHERE a LIKE 'x/_%' ESCAPE '/'"),
            "SELECT a FROM t WHERE a LIKE millpond_like_pattern('x/_%', '/')"
        );
    }

    #[test]
    fn user_data_keeps_its_scalar_subqueries() {
        let sql = "SELECT (SELECT b FROM u WHERE u.x = t.x) AS l FROM t";
        assert_eq!(rewritten(sql), sql);
    }
}
