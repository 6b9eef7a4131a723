//! The PostgreSQL wire protocol in front of any [`Database`]: framing, start-up, simple and extended
//! query, cancellation, and values in PostgreSQL's binary form. It holds no engine.
//!
//! What a database implements, and values:
//! - [`database`]: the traits that a database implements to be served
//! - [`cancel`]: the handle by which a running statement learns that its client gave up
//! - [`notice`]: messages that reach the client while its statement still runs
//! - [`server`]: [`serve`], the accept loop, limits and shutdown
//! - [`binary`]: values in binary form; their text is [`millpond_common::text`]
//!
//! Inside, in the order in which a connection's bytes meet them: `frame` (bytes to messages), `startup`,
//! `frontend` (strict decoding), `connection` (the session's loop, simple queries), `extended` (prepared statements
//! and portals), `rows` (results), `backend` (what the server says), `io` (what happens while a statement runs),
//! `registry` (who may cancel what), `describe` and `status`.

mod backend;
pub mod binary;
pub mod cancel;
mod connection;
pub mod database;
mod describe;
mod extended;
mod frame;
mod frontend;
mod io;
pub mod notice;
mod registry;
mod rows;
pub mod server;
mod startup;
mod status;

use millpond_common::{column, text};

pub use cancel::CancelHandle;
pub use database::{Database, Response, RowStream, Session, Startup, Statement, TransactionStatus};
pub use describe::oid;
pub use notice::{Notice, NoticeSender};
pub use server::{ServeOptions, serve};
