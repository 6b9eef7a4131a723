//! SQL in, plans out: parsing, names, types, and the way from DataFusion's logical plan to a stream plan.
//! No I/O and no threads; everything here is a function of its arguments.
//!
//! In the order in which a statement meets it:
//!
//! - [`parse`](mod@parse): text to [`Statement`]s, with PostgreSQL's syntax errors
//! - [`statement`]: what a statement asks for
//! - [`catalog`]: schemas and relations, and who depends on whom
//! - [`compat`]: what clients of PostgreSQL ask of its catalogs, in words that the planner knows
//! - [`planner`]: names resolved and types known: queries and expressions as DataFusion's logical plans
//! - [`rewrite`]: what PostgreSQL means where DataFusion would mean something else
//! - [`ddl`]: CREATE statements checked and turned into catalog entries
//! - [`stream`]: a logical plan as a [`StreamPlan`](millpond_plan::StreamPlan), or why it cannot be one
//! - [`set_operations`]: INTERSECT ALL and EXCEPT ALL; [`scalar_subquery`]: one row at most
//! - [`functions`]: the functions that DataFusion does not have, and [`context::base_context`]
//! - [`arithmetic`]: physical expressions that fail on overflow instead of wrapping around
//! - [`error`]: DataFusion's errors in PostgreSQL's words

pub mod arithmetic;
pub mod catalog;
pub mod compat;
pub mod context;
pub mod ddl;
pub mod error;
pub mod functions;
pub mod parse;
pub mod planner;
pub mod rewrite;
pub mod scalar_subquery;
pub mod set_operations;
pub mod statement;
pub mod stream;
pub mod types;

pub use arithmetic::checked_arithmetic;
pub use catalog::{Catalog, NewRelation, Relation, RelationKind, SourceDef, TableDef};
pub use context::base_context;
pub use ddl::{create_materialized_view, create_source, create_table, create_view};
pub use functions::fault::set_fault_injection;
pub use parse::parse;
pub use planner::{BoundQuery, Planner, RelationRef, RelationSource, SavedCatalogs, SystemRelations, ViewPlan};
pub use sqlparser::ast;
pub use statement::{Name, Statement, StatementKind};
