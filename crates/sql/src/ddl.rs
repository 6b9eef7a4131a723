//! CREATE statements checked and turned into catalog entries.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use datafusion::common::DFSchema;
use millpond_common::{Error, JobId, Result, SqlState, SqlType};
use sqlparser::ast::{self, ColumnOption, TableConstraint};

use crate::catalog::{NewRelation, RelationKind, SourceDef, TableDef};
use crate::error::from_datafusion;
use crate::planner::{Planner, ViewPlan};
use crate::statement::{CreateMaterializedView, CreateSource, CreateTable, CreateView, fold};
use crate::types::sql_type;

/// How many columns a relation can have, as in PostgreSQL.
const COLUMNS_MAX: usize = 1600;

/// Checks CREATE TABLE and gives the catalog entry. Whether the name is free is for the caller to see.
pub fn create_table(statement: &CreateTable, planner: &Planner<'_>) -> Result<NewRelation> {
    if statement.query.is_some() {
        return Err(Error::unsupported("CREATE TABLE AS is not supported yet", "Create the table, then INSERT INTO it ... SELECT."));
    }
    let mut columns = Columns::new(&statement.columns)?;
    let mut table = TableDef { defaults: vec![None; columns.fields.len()], ..TableDef::default() };
    let mut checks: Vec<(Option<String>, String, ast::Expr)> = Vec::new();
    for (position, column) in statement.columns.iter().enumerate() {
        let name = fold(&column.name);
        for option in &column.options {
            let constraint = option.name.as_ref().map(fold);
            match &option.option {
                ColumnOption::Null | ColumnOption::Comment(_) => {}
                ColumnOption::NotNull => columns.not_null(position),
                ColumnOption::Default(expr) => {
                    let field = columns.field(position)?;
                    check_default(expr, &field, planner)?;
                    if let Some(slot) = table.defaults.get_mut(position) {
                        *slot = Some(expr.to_string());
                    }
                }
                ColumnOption::PrimaryKey(_) => set_primary_key(&mut table, vec![position], constraint, &statement.name.name)?,
                ColumnOption::Check(check) => {
                    checks.push((constraint, format!("{}_{name}_check", statement.name.name), check.expr.as_ref().clone()))
                }
                other => return Err(refused_option(other)),
            }
        }
    }
    for constraint in &statement.constraints {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                let positions = key
                    .columns
                    .iter()
                    .map(|c| match &c.column.expr {
                        ast::Expr::Identifier(ident) => columns.position(&fold(ident)),
                        other => Err(Error::new(SqlState::SYNTAX_ERROR, format!("a primary key consists of columns, not of {other}"))),
                    })
                    .collect::<Result<Vec<_>>>()?;
                set_primary_key(&mut table, positions, key.name.as_ref().map(fold), &statement.name.name)?;
            }
            TableConstraint::Check(check) => {
                checks.push((check.name.as_ref().map(fold), check_name(&statement.name.name, &check.expr), check.expr.as_ref().clone()));
            }
            TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_) => return Err(unique()),
            TableConstraint::ForeignKey(_) => return Err(foreign_key()),
            other => return Err(Error::unsupported(format!("{other} is not supported"), "Leave the constraint out.")),
        }
    }
    for position in table.primary_key.iter().flatten() {
        columns.not_null(*position);
        check_key_type(&columns.field(*position)?)?;
    }
    let schema = Schema::new(columns.fields);
    for (given, fallback, expr) in checks {
        let bound = planner.plan_expr(&expr, &schema, Some(&statement.name.name), &[], None)?;
        expect_boolean(&bound, &schema, &statement.name.name)?;
        let name = given.unwrap_or_else(|| free_name(&fallback, &table.checks));
        if table.checks.iter().any(|(n, _)| n == &name) {
            return Err(Error::new(SqlState::DUPLICATE_OBJECT, format!("check constraint \"{name}\" already exists")));
        }
        table.checks.push((name, expr.to_string()));
    }
    Ok(NewRelation {
        schema: planner.catalog.creation_schema(&statement.name, &planner.search_path)?,
        name: statement.name.name.clone(),
        kind: RelationKind::Table(table),
        columns: Arc::new(schema),
        depends_on: Vec::new(),
    })
}

/// Checks CREATE SOURCE and gives the catalog entry; its columns are empty where the connector knows them.
pub fn create_source(statement: &CreateSource, planner: &Planner<'_>) -> Result<NewRelation> {
    let mut columns = Columns::new(&statement.columns)?;
    for (position, column) in statement.columns.iter().enumerate() {
        for option in &column.options {
            match &option.option {
                ColumnOption::Null | ColumnOption::Comment(_) => {}
                ColumnOption::NotNull => columns.not_null(position),
                other => {
                    return Err(Error::unsupported(
                        format!("{other} on a column of a source is not supported"),
                        "A source stores nothing and checks nothing; put it into a view over it.",
                    ));
                }
            }
        }
    }
    if let Some(constraint) = statement.constraints.first() {
        return Err(Error::unsupported(
            format!("{constraint} on a source is not supported"),
            "A source stores nothing and checks nothing; use a table or a view.",
        ));
    }
    if let Some(format) = &statement.format
        && format.format != "PLAIN"
    {
        return Err(Error::unsupported(format!("FORMAT {} is not supported yet", format.format), "Use FORMAT PLAIN."));
    }
    if !statement.options.contains_key("connector") {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "option \"connector\" is missing")
            .with_hint("Write WITH (connector = 'file', ...) or WITH (connector = 'nexmark', ...)."));
    }
    Ok(NewRelation {
        schema: planner.catalog.creation_schema(&statement.name, &planner.search_path)?,
        name: statement.name.name.clone(),
        kind: RelationKind::Source(SourceDef { options: statement.options.clone(), format: statement.format.clone() }),
        columns: Arc::new(Schema::new(columns.fields)),
        depends_on: Vec::new(),
    })
}

/// Checks CREATE VIEW and gives the catalog entry.
pub fn create_view(statement: &CreateView, planner: &Planner<'_>) -> Result<NewRelation> {
    let (columns, depends_on) = planner.describe_view(&statement.query, &statement.columns)?;
    Ok(NewRelation {
        schema: planner.catalog.creation_schema(&statement.name, &planner.search_path)?,
        name: statement.name.name.clone(),
        kind: RelationKind::View { sql: statement.query_text.clone(), search_path: planner.search_path.clone() },
        columns,
        depends_on,
    })
}

/// Checks and plans CREATE MATERIALIZED VIEW. The entry's job is `JobId(0)`: the caller gives it its number.
pub fn create_materialized_view(statement: &CreateMaterializedView, planner: &Planner<'_>) -> Result<(NewRelation, ViewPlan)> {
    let options = millpond_common::settings::Settings::of_view(&statement.options)?;
    let mut view = planner.plan_view(&statement.query, &statement.columns)?;
    if options.duration("state_ttl").is_some() {
        view.plan = view.plan.expiring();
    }
    let new = NewRelation {
        schema: planner.catalog.creation_schema(&statement.name, &planner.search_path)?,
        name: statement.name.name.clone(),
        kind: RelationKind::MaterializedView {
            sql: statement.query_text.clone(),
            search_path: planner.search_path.clone(),
            job: JobId(0),
            key: view.plan.key.clone(),
            append_only: view.plan.append_only,
            appended: view.plan.append_only && view.plan.key.is_none(),
            options: statement.options.clone(),
        },
        columns: view.schema.clone(),
        depends_on: view.depends_on.clone(),
    };
    Ok((new, view))
}

/// The columns of a definition under construction.
struct Columns {
    fields: Vec<Field>,
}

impl Columns {
    fn new(definitions: &[ast::ColumnDef]) -> Result<Self> {
        let mut fields: Vec<Field> = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let name = fold(&definition.name);
            let at = definition.name.span.start.column as usize;
            if fields.iter().any(|f| f.name() == &name) {
                return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")).at(at.max(1)));
            }
            let sql_type = sql_type(&definition.data_type).map_err(|e| if at > 0 && e.position().is_none() { e.at(at) } else { e })?;
            fields.push(sql_type.field(&name, true));
        }
        if fields.len() > COLUMNS_MAX {
            return Err(Error::new(SqlState("54011"), format!("tables can have at most {COLUMNS_MAX} columns")));
        }
        Ok(Columns { fields })
    }

    fn not_null(&mut self, position: usize) {
        if let Some(field) = self.fields.get_mut(position) {
            *field = field.clone().with_nullable(false);
        }
    }

    fn field(&self, position: usize) -> Result<Field> {
        self.fields.get(position).cloned().ok_or_else(|| Error::internal("a column that is not there"))
    }

    fn position(&self, name: &str) -> Result<usize> {
        self.fields
            .iter()
            .position(|f| f.name() == name)
            .ok_or_else(|| Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" named in key does not exist")))
    }
}

fn set_primary_key(table: &mut TableDef, columns: Vec<usize>, name: Option<String>, relation: &str) -> Result<()> {
    if table.primary_key.is_some() {
        return Err(Error::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("multiple primary keys for table \"{relation}\" are not allowed"),
        ));
    }
    if let Some(twice) = columns.iter().enumerate().find(|(i, c)| columns.iter().take(*i).any(|x| x == *c)) {
        return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column {} appears twice in primary key constraint", twice.1 + 1)));
    }
    table.primary_key = Some(columns);
    table.primary_key_name = Some(name.unwrap_or_else(|| format!("{relation}_pkey")));
    Ok(())
}

fn check_key_type(field: &Field) -> Result<()> {
    match SqlType::of(field) {
        SqlType::Json | SqlType::Interval | SqlType::Array(_) => Err(Error::unsupported(
            format!("a primary key column of type {} is not supported", SqlType::of(field).name()),
            "Use a column whose equal values have one form, such as text, a number, a date or a uuid.",
        )),
        _ => Ok(()),
    }
}

/// A default is a constant expression of the column's type.
fn check_default(expr: &ast::Expr, field: &Field, planner: &Planner<'_>) -> Result<()> {
    let sql_type = SqlType::of(field);
    let value = planner.plan_expr(expr, &Schema::empty(), None, &[], Some(&sql_type)).and_then(|value| {
        let row =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &RecordBatchOptions::new().with_row_count(Some(1)))?;
        let physical = planner.context.create_physical_expr(value, &DFSchema::empty()).map_err(from_datafusion)?;
        crate::checked_arithmetic(physical).evaluate(&row).map_err(from_datafusion)
    });
    value.map(|_| ()).map_err(|e| match e.state() {
        SqlState::UNDEFINED_COLUMN => {
            Error::unsupported("cannot use column reference in DEFAULT expression", "Use constants and functions only.")
        }
        SqlState::DATATYPE_MISMATCH => Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("column \"{}\" is of type {} but the default expression is of another type", field.name(), sql_type.name()),
        )
        .with_hint("You will need to rewrite or cast the expression."),
        _ => e,
    })
}

fn expect_boolean(expr: &datafusion::logical_expr::Expr, schema: &Schema, relation: &str) -> Result<()> {
    use datafusion::logical_expr::ExprSchemable;
    let qualified = DFSchema::try_from_qualified_schema(relation, schema).map_err(from_datafusion)?;
    match expr.get_type(&qualified).map_err(from_datafusion)? {
        arrow_schema::DataType::Boolean => Ok(()),
        other => Err(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("argument of CHECK must be type boolean, not type {}", crate::types::postgres_name(&other)),
        )),
    }
}

/// The name of a CHECK that was given none: with its column, if it has just one.
fn check_name(table: &str, expr: &ast::Expr) -> String {
    let mut columns = Vec::new();
    let _ = ast::visit_expressions(expr, |e| {
        let name = match e {
            ast::Expr::Identifier(ident) => fold(ident),
            ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold).unwrap_or_default(),
            _ => return std::ops::ControlFlow::<()>::Continue(()),
        };
        if !columns.contains(&name) {
            columns.push(name);
        }
        std::ops::ControlFlow::Continue(())
    });
    match columns.as_slice() {
        [column] => format!("{table}_{column}_check"),
        _ => format!("{table}_check"),
    }
}

fn free_name(base: &str, taken: &[(String, String)]) -> String {
    let is_free = |name: &str| !taken.iter().any(|(n, _)| n == name);
    if is_free(base) {
        return base.to_string();
    }
    (1..).map(|n| format!("{base}{n}")).find(|n| is_free(n)).unwrap_or_default()
}

fn unique() -> Error {
    Error::unsupported(
        "UNIQUE constraints are not supported yet",
        "Make the columns the PRIMARY KEY, or find duplicates with a materialized view: GROUP BY ... HAVING count(*) > 1.",
    )
}

fn foreign_key() -> Error {
    Error::unsupported(
        "FOREIGN KEY constraints are not supported yet",
        "Leave it out; a materialized view with an anti join shows rows whose partner is missing.",
    )
}

fn refused_option(option: &ColumnOption) -> Error {
    match option {
        ColumnOption::Unique(_) => unique(),
        ColumnOption::ForeignKey(_) => foreign_key(),
        ColumnOption::Generated { .. } | ColumnOption::Identity(_) => Error::unsupported(
            "GENERATED columns are not supported yet",
            "Compute the value in a view, or use uuid DEFAULT gen_random_uuid() for keys.",
        ),
        ColumnOption::Collation(_) => {
            Error::unsupported("COLLATE is not supported", "Text is ordered by its bytes, as with COLLATE \"C\".")
        }
        other => Error::unsupported(format!("column option {other} is not supported"), "Leave it out."),
    }
}
