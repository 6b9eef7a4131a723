//! SHOW: settings, and lists of what there is.

use arrow_schema::SchemaRef;
use millpond_common::settings::{self, SETTINGS};
use millpond_common::{Result, SqlType};
use millpond_sql::RelationKind;
use millpond_sql::catalog::Relation;
use millpond_sql::statement::ShowKind;

use crate::block::isolation_name;
use crate::database::DATABASE_NAME;
use crate::response::{Response, text_schema};
use crate::session::{Scope, Session};

/// The columns of a list. SHOW of a setting has the setting's name as its column.
fn names(kind: &ShowKind) -> Result<Vec<&'static str>> {
    Ok(match kind {
        ShowKind::Variable(name) => vec![settings::find(name)?.name],
        ShowKind::All => vec!["name", "setting", "description"],
        ShowKind::Tables | ShowKind::Views | ShowKind::MaterializedViews => vec!["schema", "name", "comment"],
        ShowKind::Schemas | ShowKind::Databases => vec!["name"],
        ShowKind::Columns(_) => vec!["name", "type", "nullable", "key", "comment"],
        ShowKind::Create(_) => vec!["name", "create_sql"],
        // Queries of system relations; see `prepared`.
        ShowKind::Jobs | ShowKind::Sources | ShowKind::Checkpoints | ShowKind::Savepoints => vec![],
    })
}

/// The columns of a SHOW.
pub fn columns(kind: &ShowKind) -> Result<SchemaRef> {
    Ok(text_schema(&names(kind)?))
}

impl Session {
    /// SHOW.
    pub(crate) fn show(&self, kind: &ShowKind, scope: &Scope) -> Result<Response> {
        let listed = |of: fn(&RelationKind) -> bool| {
            let relations = scope.catalog.relations().filter(|r| of(&r.kind));
            let mut rows = relations.map(|r| vec![Some(r.schema.clone()), Some(r.name.clone()), r.comment.clone()]).collect::<Vec<_>>();
            rows.sort();
            rows
        };
        let rows = match kind {
            ShowKind::Variable(name) => vec![vec![Some(self.setting(name)?)]],
            ShowKind::All => {
                let row = |s: &settings::Setting| {
                    Ok(vec![Some(s.name.to_string()), Some(self.setting(s.name)?), Some(s.description.to_string())])
                };
                SETTINGS.iter().map(row).collect::<Result<_>>()?
            }
            ShowKind::Tables => listed(|k| matches!(k, RelationKind::Table(_))),
            ShowKind::Views => listed(|k| matches!(k, RelationKind::View { .. })),
            ShowKind::MaterializedViews => listed(|k| matches!(k, RelationKind::MaterializedView { .. })),
            ShowKind::Schemas => scope.catalog.schemas().map(|s| vec![Some(s.name.clone())]).collect(),
            ShowKind::Databases => vec![vec![Some(DATABASE_NAME.to_string())]],
            ShowKind::Columns(name) => describe_columns(scope.catalog.find(name, &scope.search_path)?),
            ShowKind::Create(name) => {
                let relation = scope.catalog.find(name, &scope.search_path)?;
                vec![vec![Some(format!("{}.{}", relation.schema, relation.name)), Some(create_sql(relation))]]
            }
            ShowKind::Jobs | ShowKind::Sources | ShowKind::Checkpoints | ShowKind::Savepoints => vec![],
        };
        Response::text(&names(kind)?, rows, "SHOW")
    }

    /// A setting as SHOW prints it.
    fn setting(&self, name: &str) -> Result<String> {
        let setting = settings::find(name)?;
        if setting.name == "transaction_isolation" {
            return match &self.block {
                Some(block) if block.explicit => Ok(isolation_name(block.isolation).to_string()),
                _ => self.settings.get("default_transaction_isolation"),
            };
        }
        self.settings.get(setting.name)
    }
}

fn describe_columns(relation: &Relation) -> Vec<Vec<Option<String>>> {
    let key = match &relation.kind {
        RelationKind::Table(table) => table.primary_key.clone().unwrap_or_default(),
        _ => vec![],
    };
    let yes = |b: bool| Some(if b { "yes" } else { "no" }.to_string());
    let row = |(i, field): (usize, &std::sync::Arc<arrow_schema::Field>)| {
        vec![
            Some(field.name().clone()),
            Some(SqlType::of(field).name()),
            yes(field.is_nullable()),
            yes(key.contains(&i)),
            relation.column_comments.get(&i).cloned(),
        ]
    };
    relation.columns.fields().iter().enumerate().map(row).collect()
}

/// A statement that creates the relation anew.
fn create_sql(relation: &Relation) -> String {
    let name = match relation.schema.as_str() {
        "public" => quote(&relation.name),
        schema => format!("{}.{}", quote(schema), quote(&relation.name)),
    };
    match &relation.kind {
        RelationKind::View { sql, .. } => format!("CREATE VIEW {name} AS {sql}"),
        RelationKind::MaterializedView { sql, options, .. } => {
            let options = options.iter().map(|(k, v)| format!("{k} = {}", literal(v))).collect::<Vec<_>>().join(", ");
            let with = if options.is_empty() { options } else { format!(" WITH ({options})") };
            format!("CREATE MATERIALIZED VIEW {name}{with} AS {sql}")
        }
        RelationKind::Table(table) => {
            let mut lines = column_lines(relation, &table.defaults);
            if let Some(key) = &table.primary_key {
                let columns = key.iter().filter_map(|c| relation.columns.fields().get(*c)).map(|f| quote(f.name())).collect::<Vec<_>>();
                lines.push(format!("    PRIMARY KEY ({})", columns.join(", ")));
            }
            lines.extend(table.checks.iter().map(|(name, check)| format!("    CONSTRAINT {} CHECK ({check})", quote(name))));
            format!("CREATE TABLE {name} (\n{}\n)", lines.join(",\n"))
        }
        RelationKind::Source(source) => {
            let options = source.options.iter().map(|(k, v)| format!("{k} = {}", literal(v))).collect::<Vec<_>>().join(", ");
            let format = source.format.as_ref().map(|f| {
                let options = f.options.iter().map(|(k, v)| format!("{k} = {}", literal(v))).collect::<Vec<_>>().join(", ");
                let options = if options.is_empty() { options } else { format!(" ({options})") };
                format!(" FORMAT {} ENCODE {}{options}", f.format, f.encode)
            });
            let columns = column_lines(relation, &[]).join(",\n");
            format!("CREATE SOURCE {name} (\n{columns}\n) WITH ({options}){}", format.unwrap_or_default())
        }
    }
}

fn column_lines(relation: &Relation, defaults: &[Option<String>]) -> Vec<String> {
    let line = |(i, field): (usize, &std::sync::Arc<arrow_schema::Field>)| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        let default = defaults.get(i).cloned().flatten().map(|d| format!(" DEFAULT {d}")).unwrap_or_default();
        format!("    {} {}{not_null}{default}", quote(field.name()), SqlType::of(field).name())
    };
    relation.columns.fields().iter().enumerate().map(line).collect()
}

fn quote(name: &str) -> String {
    crate::system::facts::quote_ident(name)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
