//! sqlparser's statements as ours.

use std::collections::BTreeMap;

use millpond_common::{Error, Result, SqlState};
use sqlparser::ast;

use super::Source;
use crate::statement::{
    CommentTarget, CreateMaterializedView, CreateTable, CreateView, DiscardKind, Drop, DropKind, FetchCount, Isolation, ShowKind,
    StatementKind, fold,
};

impl Source<'_> {
    /// The statement in our words; what has none is refused by name.
    pub(super) fn convert(&self, statement: ast::Statement) -> Result<StatementKind> {
        use ast::Statement as S;
        Ok(match statement {
            S::Query(query) => StatementKind::Query(query),
            S::Insert(insert) => StatementKind::Insert(Box::new(insert)),
            S::Update(update) => StatementKind::Update(Box::new(update)),
            S::Delete(delete) => StatementKind::Delete(Box::new(delete)),
            S::Truncate(truncate) => {
                let names = truncate.table_names.iter().map(|t| self.name(&t.name)).collect::<Result<_>>()?;
                let cascade = matches!(truncate.cascade, Some(ast::CascadeOption::Cascade));
                StatementKind::Truncate { names, if_exists: truncate.if_exists, cascade }
            }
            S::CreateTable(create) => self.create_table(create)?,
            S::CreateView(create) => self.create_view(create)?,
            S::CreateSchema { schema_name, if_not_exists, .. } => {
                let name = match schema_name {
                    ast::SchemaName::Simple(name) | ast::SchemaName::NamedAuthorization(name, _) => self.name(&name)?.name,
                    ast::SchemaName::UnnamedAuthorization(ident) => fold(&ident),
                };
                StatementKind::CreateSchema { name, if_not_exists }
            }
            S::Drop { object_type, if_exists, names, cascade, .. } => {
                let kind = match object_type {
                    ast::ObjectType::Table => DropKind::Table,
                    ast::ObjectType::View => DropKind::View,
                    ast::ObjectType::MaterializedView => DropKind::MaterializedView,
                    ast::ObjectType::Schema => DropKind::Schema,
                    other => return Err(Error::unsupported(format!("DROP {other} is not supported"), "There are no such objects.")),
                };
                let names = names.iter().map(|n| self.name(n)).collect::<Result<_>>()?;
                StatementKind::Drop(Drop { kind, names, if_exists, cascade })
            }
            S::Comment { object_type, object_name, comment, .. } => self.comment(object_type, &object_name, comment)?,
            S::StartTransaction { modes, .. } => {
                let (isolation, read_only) = transaction_modes(&modes);
                StatementKind::Begin { isolation, read_only }
            }
            S::Commit { chain, .. } => StatementKind::Commit { chain },
            S::Rollback { savepoint: Some(name), .. } => StatementKind::RollbackTo(fold(&name)),
            S::Rollback { chain, .. } => StatementKind::Rollback { chain },
            S::Savepoint { name } => StatementKind::Savepoint(fold(&name)),
            S::ReleaseSavepoint { name } => StatementKind::Release(fold(&name)),
            S::Set(set) => self.set(set)?,
            S::Reset(reset) => StatementKind::Reset(match reset.reset {
                ast::Reset::ALL => None,
                ast::Reset::ConfigurationParameter(name) => Some(setting_name(&name)),
            }),
            S::ShowVariable { variable } => {
                StatementKind::Show(ShowKind::Variable(variable.iter().map(fold).collect::<Vec<_>>().join(".")))
            }
            S::Discard { object_type } => StatementKind::Discard(match object_type {
                ast::DiscardObject::ALL => DiscardKind::All,
                ast::DiscardObject::PLANS => DiscardKind::Plans,
                ast::DiscardObject::SEQUENCES => DiscardKind::Sequences,
                ast::DiscardObject::TEMP => DiscardKind::Temp,
            }),
            S::Deallocate { name, .. } => StatementKind::Deallocate(all_or(&name)),
            S::Execute { name: Some(name), parameters, .. } => {
                StatementKind::Execute { name: self.name(&name)?.name, arguments: parameters }
            }
            S::Declare { stmts } => declare(stmts)?,
            S::Fetch { name, direction, .. } => StatementKind::Fetch { name: fold(&name), count: fetch_count(direction)?, skip: false },
            S::Close { cursor } => StatementKind::Close(match cursor {
                ast::CloseCursor::All => None,
                ast::CloseCursor::Specific { name } => Some(fold(&name)),
            }),
            other => {
                let words = [self.word(0), self.word(1)].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
                let _ = other;
                return Err(Error::unsupported(format!("{words} is not supported"), "docs/ lists the statements that there are."));
            }
        })
    }

    fn create_table(&self, create: ast::CreateTable) -> Result<StatementKind> {
        if create.temporary {
            return Err(Error::unsupported("temporary tables are not supported yet", "Create an ordinary table, and drop it afterwards."));
        }
        if create.or_replace {
            return Err(Error::unsupported("CREATE OR REPLACE TABLE is not supported", "Use DROP TABLE IF EXISTS, then CREATE TABLE."));
        }
        if !matches!(create.table_options, ast::CreateTableOptions::None) {
            return Err(Error::unsupported(
                "CREATE TABLE ... WITH is not supported yet",
                "CREATE SOURCE reads a connector; a materialized view over it keeps its rows.",
            ));
        }
        if create.inherits.is_some() || create.partition_by.is_some() || create.partition_of.is_some() || create.like.is_some() {
            return Err(Error::unsupported(
                "INHERITS, PARTITION BY, PARTITION OF and LIKE in CREATE TABLE are not supported",
                "Rows are distributed by the primary key without it; write the columns out.",
            ));
        }
        Ok(StatementKind::CreateTable(CreateTable {
            name: self.name(&create.name)?,
            if_not_exists: create.if_not_exists,
            columns: create.columns,
            constraints: create.constraints,
            query: create.query,
        }))
    }

    fn create_view(&self, create: ast::CreateView) -> Result<StatementKind> {
        if create.temporary {
            return Err(Error::unsupported("temporary views are not supported yet", "Create an ordinary view, and drop it afterwards."));
        }
        let name = self.name(&create.name)?;
        let columns = create.columns.into_iter().map(|c| c.name).collect();
        let query_text = self.text_after_as();
        if !create.materialized {
            return Ok(StatementKind::CreateView(CreateView {
                or_replace: create.or_replace,
                if_not_exists: create.if_not_exists,
                name,
                columns,
                query: create.query,
                query_text,
            }));
        }
        if create.or_replace && create.if_not_exists {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "OR REPLACE and IF NOT EXISTS contradict each other"));
        }
        let options = match create.options {
            ast::CreateTableOptions::None => BTreeMap::new(),
            ast::CreateTableOptions::With(options) => options.iter().filter_map(option).collect(),
            _ => return Err(Error::new(SqlState::SYNTAX_ERROR, "options of a materialized view are written WITH (name = value)")),
        };
        Ok(StatementKind::CreateMaterializedView(CreateMaterializedView {
            name,
            or_replace: create.or_replace,
            if_not_exists: create.if_not_exists,
            columns,
            options,
            query: create.query,
            query_text,
        }))
    }

    fn comment(&self, object: ast::CommentObject, name: &ast::ObjectName, comment: Option<String>) -> Result<StatementKind> {
        use ast::CommentObject as O;
        let relation = |kind| Ok::<_, Error>(CommentTarget::Relation(kind, self.name(name)?));
        let target = match object {
            O::Table => relation(DropKind::Table)?,
            O::View => relation(DropKind::View)?,
            O::MaterializedView => relation(DropKind::MaterializedView)?,
            O::Schema => CommentTarget::Schema(self.name(name)?.name),
            O::Database => CommentTarget::Database,
            O::Column => {
                let mut parts = name.0.clone();
                let column = parts.pop().and_then(|p| p.as_ident().map(fold)).unwrap_or_default();
                if parts.is_empty() {
                    return Err(Error::new(SqlState::SYNTAX_ERROR, "column name must be qualified"));
                }
                CommentTarget::Column(self.name(&ast::ObjectName(parts))?, column)
            }
            other => return Err(Error::unsupported(format!("COMMENT ON {other} is not supported"), "There are no such objects.")),
        };
        Ok(StatementKind::Comment { target, comment })
    }

    fn set(&self, set: ast::Set) -> Result<StatementKind> {
        use ast::Set as S;
        Ok(match set {
            S::SingleAssignment { scope, variable, values, .. } => {
                let name = setting_name(&variable);
                let local = matches!(scope, Some(ast::ContextModifier::Local));
                StatementKind::Set { name, value: setting_value(&values), local }
            }
            S::SetTimeZone { local, value } => {
                let value = setting_value(std::slice::from_ref(&value)).filter(|v| !v.eq_ignore_ascii_case("local"));
                StatementKind::Set { name: "timezone".into(), value, local }
            }
            S::SetNames { charset_name, .. } => {
                StatementKind::Set { name: "client_encoding".into(), value: Some(charset_name.value), local: false }
            }
            S::SetNamesDefault {} => StatementKind::Set { name: "client_encoding".into(), value: None, local: false },
            S::SetTransaction { modes, session, .. } => {
                let (isolation, read_only) = transaction_modes(&modes);
                StatementKind::SetTransaction { session, isolation, read_only }
            }
            S::SetRole { role_name, .. } => StatementKind::Set { name: "role".into(), value: role_name.map(|r| fold(&r)), local: false },
            _ => return Err(Error::unsupported("this form of SET is not supported", "Use SET name = value.")),
        })
    }
}

fn option(option: &ast::SqlOption) -> Option<(String, String)> {
    match option {
        ast::SqlOption::KeyValue { key, value } => {
            Some((key.value.to_lowercase(), setting_value(std::slice::from_ref(value)).unwrap_or_default()))
        }
        ast::SqlOption::Ident(ident) => Some((ident.value.to_lowercase(), "true".into())),
        other => Some((other.to_string(), String::new())),
    }
}

fn setting_name(name: &ast::ObjectName) -> String {
    name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.to_lowercase()).collect::<Vec<_>>().join(".")
}

/// The text of a setting's value; `None` for DEFAULT.
fn setting_value(values: &[ast::Expr]) -> Option<String> {
    let texts = values
        .iter()
        .map(|value| match value {
            ast::Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.value.to_string()),
            ast::Expr::Identifier(ident) => ident.value.clone(),
            ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => format!("-{expr}"),
            ast::Expr::Interval(interval) => interval.value.to_string().trim_matches('\'').to_string(),
            other => other.to_string(),
        })
        .collect::<Vec<_>>();
    match texts.as_slice() {
        [one] if one.eq_ignore_ascii_case("default") => None,
        _ => Some(texts.join(", ")),
    }
}

fn transaction_modes(modes: &[ast::TransactionMode]) -> (Option<Isolation>, Option<bool>) {
    use ast::{TransactionAccessMode as A, TransactionIsolationLevel as I, TransactionMode as M};
    let (mut isolation, mut read_only) = (None, None);
    for mode in modes {
        match mode {
            M::AccessMode(A::ReadOnly) => read_only = Some(true),
            M::AccessMode(A::ReadWrite) => read_only = Some(false),
            M::IsolationLevel(I::ReadUncommitted) => isolation = Some(Isolation::ReadUncommitted),
            M::IsolationLevel(I::ReadCommitted) => isolation = Some(Isolation::ReadCommitted),
            M::IsolationLevel(I::RepeatableRead | I::Snapshot) => isolation = Some(Isolation::RepeatableRead),
            M::IsolationLevel(I::Serializable) => isolation = Some(Isolation::Serializable),
        }
    }
    (isolation, read_only)
}

fn all_or(name: &ast::Ident) -> Option<String> {
    let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
    (!all).then(|| fold(name))
}

fn declare(mut statements: Vec<ast::Declare>) -> Result<StatementKind> {
    let declare = statements.pop().ok_or_else(|| Error::new(SqlState::SYNTAX_ERROR, "DECLARE without a cursor"))?;
    let (Some(name), Some(query)) = (declare.names.first(), declare.for_query) else {
        return Err(Error::unsupported("only DECLARE name CURSOR FOR query is supported", "Declare a cursor for a query."));
    };
    if declare.scroll == Some(true) {
        return Err(Error::unsupported("SCROLL cursors are not supported", "Declare the cursor again to start from its first row."));
    }
    Ok(StatementKind::DeclareCursor { name: fold(name), hold: declare.hold == Some(true), query })
}

fn fetch_count(direction: ast::FetchDirection) -> Result<FetchCount> {
    use ast::FetchDirection as D;
    let number = |value: &ast::ValueWithSpan| {
        value
            .value
            .to_string()
            .parse::<u64>()
            .map_err(|_| Error::unsupported("cursors only move forward", "FETCH a positive number of rows."))
    };
    Ok(match direction {
        D::Next | D::Forward { limit: None } => FetchCount::Rows(1),
        D::Count { limit } | D::Forward { limit: Some(limit) } => FetchCount::Rows(number(&limit)?),
        D::All | D::ForwardAll => FetchCount::All,
        _ => return Err(Error::unsupported("cursors only move forward", "Use FETCH NEXT, FETCH n or FETCH ALL.")),
    })
}
