//! What a session's statements do. A map, from the outside in:
//!
//! - [`database`]: [`Database`], what all sessions share; `records`: its catalog as the store keeps it
//! - [`session`]: [`Session`], one client's connection; [`prepared`]: statements as it holds them; [`response`]: what it
//!   answers; [`cancel`]: how a statement is ended early
//! - `statement`: queries, DML and descriptions; `control`: transactions and settings; `ddl`: CREATE, DROP and the like (`dropping`: which wait for writers);
//!   `jobs`: ALTER MATERIALIZED VIEW, CANCEL JOB; `replace`: CREATE OR REPLACE MATERIALIZED VIEW; `show`: SHOW; `cursor`: cursors and prepared statements by name; `progress`: waiting for a new view
//! - [`block`]: transaction blocks; `transaction`, `locks`: what happens in them; `dml`: INSERT, UPDATE, DELETE, TRUNCATE
//! - `select`: DataFusion over one [`ReadView`](millpond_state::ReadView), whose leaves (`leaf`) are `read` for stored
//!   relations (by key where the filters allow it: `keys`), `source_scan` for sources, and [`system`]: pg_catalog,
//!   information_schema and the relations of the schema `millpond`; `overflow`: integer arithmetic as PostgreSQL has it;
//!   `exists`: EXISTS as a value; `aggregates`: exact where DataFusion's are not
//! - `lookup`: prepared reads of a row by its key, which need no DataFusion; `ready`: other prepared queries, planned once;
//!   `execution`: what each execution brings to such a plan
//! - `saved`: savepoints of the whole database, made and read; `gate`: nothing is written while one takes the database's place
//! - `aside`: planning without holding up other sessions; `access`: what catalog functions know of their session; `error`: errors that several of these share

mod access;
mod aggregates;
mod aside;
pub mod block;
pub mod cancel;
mod control;
mod cursor;
pub mod database;
mod ddl;
mod dml;
mod dropping;
mod error;
mod execution;
mod exists;
#[cfg(test)]
mod fresh;
mod gate;
mod jobs;
mod keys;
mod leaf;
mod locks;
mod lookup;
mod overflow;
pub mod prepared;
mod progress;
mod read;
mod ready;
mod records;
mod replace;
pub mod response;
mod saved;
mod select;
pub mod session;
mod show;
mod source_scan;
mod statement;
pub mod system;
mod transaction;

pub use block::TransactionStatus;
pub use cancel::CancelToken;
pub use database::{CheckpointStorage, DATABASE_NAME, Database, DatabaseOptions, Startup};
pub use prepared::Statement;
pub use response::{Notice, NoticeSink, Response, RowStream};
pub use session::Session;
