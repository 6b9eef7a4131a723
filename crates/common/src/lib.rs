//! What every crate of Millpond shares, in the order a reader meets it:
//!
//! - [`ids`]: epochs, relation, job and operator numbers, virtual nodes
//! - [`delta`]: [`Delta`], a batch of weighted rows, the unit that flows everywhere
//! - [`row`]: rows as memory-comparable bytes, the form of keys and of stored rows
//! - [`hash`]: the fixed hash that assigns a row to its virtual node
//! - [`types`]: SQL types and the Arrow fields that carry them
//! - [`relation`]: what state, engine and queries need to know of a table, source or view
//! - [`error`]: the error type, with SQLSTATE, DETAIL and HINT; [`conversion`]: Arrow's errors of casts as PostgreSQL's
//! - [`text`]: values as PostgreSQL prints and reads them, and [`mod@column`], which writes them
//! - [`settings`]: every setting with its default, unit and documentation

pub mod column;
pub mod conversion;
pub mod delta;
pub mod error;
pub mod hash;
pub mod ids;
pub mod relation;
pub mod row;
pub mod settings;
pub mod text;
pub mod types;

pub use delta::Delta;
pub use error::{Error, Result, SqlState};
pub use ids::{Epoch, JobId, RelationId, StateTableId, VNODE_COUNT, Vnode};
pub use relation::RelationSpec;
pub use row::RowCodec;
pub use types::SqlType;
