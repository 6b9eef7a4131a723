//! placeholder
use millpond_common::{Error, Result};
use crate::catalog::NewRelation;
use crate::planner::{Planner, ViewPlan};
use crate::statement::*;
/// Checks CREATE TABLE and gives the catalog entry.
pub fn create_table(_statement: &CreateTable, _planner: &Planner<'_>) -> Result<NewRelation> { Err(Error::internal("not yet")) }
/// Checks CREATE SOURCE and gives the catalog entry; its columns are empty where the connector knows them.
pub fn create_source(_statement: &CreateSource, _planner: &Planner<'_>) -> Result<NewRelation> { Err(Error::internal("not yet")) }
/// Checks CREATE VIEW and gives the catalog entry.
pub fn create_view(_statement: &CreateView, _planner: &Planner<'_>) -> Result<NewRelation> { Err(Error::internal("not yet")) }
/// Checks and plans CREATE MATERIALIZED VIEW. The entry's kind has JobId(0): the caller sets the job's number.
pub fn create_materialized_view(_statement: &CreateMaterializedView, _planner: &Planner<'_>) -> Result<(NewRelation, ViewPlan)> { Err(Error::internal("not yet")) }
