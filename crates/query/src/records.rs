//! The catalog's records in the store: what a start needs to know of the time before.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use millpond_common::settings::Settings;
use millpond_common::{Error, JobId, RelationId, Result, SqlState, StateTableId};
use millpond_engine::{JobSpec, state_tables_needed};
use millpond_plan::{StreamPlan, with_functions};
use millpond_sql::{Catalog, RelationKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first byte of every record.
const VERSION: u8 = 1;

const CATALOG: &[u8] = b"catalog";
const INITIALISED: &[u8] = b"initialised";
const JOB: &[u8] = b"job/";
const SETTING: &[u8] = b"setting/";

/// Key and value as the store keeps them.
pub type Record = (Vec<u8>, Vec<u8>);

/// A materialized view's job as it is stored: the plan that runs, not the one that a newer planner would make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredJob {
    /// Its number.
    pub id: JobId,
    /// The view that it maintains.
    pub relation: RelationId,
    /// What it computes.
    pub plan: StreamPlan,
    /// The number of its first state table; the others follow, where they are not listed.
    pub first_state_table: u32,
    /// The numbers of its state tables, where it has some from a view that it has replaced.
    #[serde(default)]
    pub state_tables: Option<Vec<StateTableId>>,
}

impl StoredJob {
    /// Its record.
    pub fn record(&self) -> Result<Record> {
        Ok((job_key(self.id), encode(self)?))
    }

    /// Fails if a later start could not read it: its plan names a function that only sessions have.
    pub fn check_readable(&self, functions: Arc<SessionContext>) -> Result<()> {
        let (_, bytes) = self.record()?;
        let read = with_functions(functions, || decode::<StoredJob>(&bytes));
        read.map(drop).map_err(|e| {
            Error::unsupported("this query cannot be kept as a materialized view", "It may call a function that depends on the session.")
                .with_detail(e.message())
        })
    }

    /// What the engine needs to run it.
    pub fn spec(&self, catalog: &Catalog) -> Result<JobSpec> {
        let relation = catalog.get(self.relation).ok_or_else(|| corrupted("a job has no view"))?;
        let output = relation.spec().ok_or_else(|| corrupted("a job's relation holds no rows"))?;
        let RelationKind::MaterializedView { options, .. } = &relation.kind else { return Err(corrupted("a job maintains no view")) };
        let (name, namespace) = (relation.name.clone(), relation.schema.clone());
        let (plan, options) = (self.plan.clone(), Settings::of_view(options)?);
        Ok(JobSpec { id: self.id, name, namespace, output, plan, state_tables: self.state_tables()?, options })
    }

    /// The numbers of its state tables.
    pub fn state_tables(&self) -> Result<Vec<StateTableId>> {
        if let Some(tables) = &self.state_tables {
            return Ok(tables.clone());
        }
        let first = self.first_state_table;
        Ok((first..first + state_tables_needed(&self.plan)?).map(StateTableId).collect())
    }
}

/// All that the records say.
#[derive(Default)]
pub struct Known {
    /// Schemas and relations.
    pub catalog: Catalog,
    /// Jobs, oldest first.
    pub jobs: Vec<StoredJob>,
    /// What ALTER SYSTEM set.
    pub settings: Vec<(String, String)>,
    /// Whether the script for new databases has run.
    pub initialised: bool,
}

impl Known {
    /// Reads all records. `functions`: those that stored expressions name.
    pub fn read(records: &[Record], functions: Arc<SessionContext>) -> Result<Known> {
        with_functions(functions, || {
            let mut known = Known::default();
            for (key, value) in records {
                if key == CATALOG {
                    known.catalog = decode(value)?;
                } else if key == INITIALISED {
                    known.initialised = true;
                } else if key.starts_with(JOB) {
                    known.jobs.push(decode(value)?);
                } else if let Some(name) = key.strip_prefix(SETTING) {
                    let value: String = decode(value)?;
                    known.settings.push((String::from_utf8_lossy(name).into_owned(), value));
                }
            }
            // A job without its view was being dropped.
            known.jobs.retain(|j| known.catalog.get(j.relation).is_some_and(|r| r.job() == Some(j.id)));
            known.jobs.sort_by_key(|j| j.id);
            Ok(known)
        })
    }
}

/// The record of schemas and relations.
pub fn catalog_record(catalog: &Catalog) -> Result<Record> {
    Ok((CATALOG.to_vec(), encode(catalog)?))
}

/// The record that says that the script for new databases has run.
pub fn initialised_record() -> Record {
    (INITIALISED.to_vec(), vec![VERSION])
}

/// The record of a setting.
pub fn setting_record(name: &str, value: &str) -> Result<Record> {
    Ok((setting_key(name), encode(&value)?))
}

/// The key of a setting's record.
pub fn setting_key(name: &str) -> Vec<u8> {
    [SETTING, name.as_bytes()].concat()
}

/// The key of a job's record. Ordered as jobs are.
pub fn job_key(id: JobId) -> Vec<u8> {
    [JOB, &id.0.to_be_bytes()].concat()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value).map_err(|e| Error::internal(format!("a catalog record cannot be written: {e}")))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|e| corrupted(&e.to_string())),
        Some((version, _)) => Err(corrupted(&format!("version {version} is unknown"))),
        None => Err(corrupted("it is empty")),
    }
}

fn corrupted(why: &str) -> Error {
    Error::new(SqlState::DATA_CORRUPTED, format!("a record of the catalog cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_schema::Schema;
    use millpond_common::SqlType;
    use millpond_sql::{NewRelation, TableDef};

    #[test]
    fn records_survive() {
        let mut catalog = Catalog::new();
        let columns = Arc::new(Schema::new(vec![SqlType::Uuid.field("id", false), SqlType::Varchar(Some(3)).field("v", true)]));
        let kind = RelationKind::Table(TableDef { primary_key: Some(vec![0]), ..TableDef::default() });
        let new = NewRelation { schema: "public".into(), name: "t".into(), kind, columns, depends_on: vec![] };
        let id = catalog.add(new).unwrap();
        catalog.get_mut(id).unwrap().column_comments.insert(1, "two".into());
        let orphan = StoredJob {
            id: JobId(7),
            relation: id,
            plan: StreamPlan { nodes: vec![], key: None, append_only: true },
            first_state_table: 9,
            state_tables: None,
        };
        let records = vec![
            catalog_record(&catalog).unwrap(),
            setting_record("checkpoint_interval", "5s").unwrap(),
            orphan.record().unwrap(),
            initialised_record(),
        ];
        let known = Known::read(&records, Arc::new(SessionContext::new())).unwrap();
        let relation = known.catalog.get(id).unwrap();
        assert_eq!(SqlType::of(relation.columns.field(1)), SqlType::Varchar(Some(3)));
        assert_eq!(relation.column_comments[&1], "two");
        assert_eq!(known.settings, [("checkpoint_interval".to_string(), "5s".to_string())]);
        assert!(known.initialised && known.jobs.is_empty());
        assert!(Known::read(&[(CATALOG.to_vec(), vec![9])], Arc::new(SessionContext::new())).is_err());
    }
}
