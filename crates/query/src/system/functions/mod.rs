//! PostgreSQL's functions about the database, the session and its settings.
//!
//! - [`scalar`]: a function given by a few words and a Rust closure; catalogs are small, so it runs row by row
//! - `names`: names and numbers of objects (`to_regclass`, `format_type`, `quote_ident`)
//! - `objects`: definitions, comments, sizes, visibility, privileges
//! - `session`: who, where, when, and settings
//! - `lists`: functions on arrays that rewritten catalog queries need
//! - `casts`: casts to `regclass` and its kin, whose type depends on what is cast
//! - `sleep`: `pg_sleep`, which waits without holding a thread

mod casts;
mod lists;
mod names;
mod objects;
mod scalar;
mod session;
mod sleep;

use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use millpond_common::Result;

use super::facts::Facts;
use scalar::{Function, SystemFunction};

/// What the functions of a session need of it.
pub trait CatalogAccess: Send + Sync {
    /// The database as the current statement sees it.
    fn facts(&self) -> Arc<Facts>;
    /// Sets a setting of the session (`local`: of the transaction) and returns its new value.
    fn set_config(&self, name: &str, value: Option<&str>, local: bool) -> Result<String>;
}

/// The functions that one row of plain values is enough for.
pub(super) static FUNCTIONS: LazyLock<Vec<Function>> =
    LazyLock::new(|| [names::functions(), objects::functions(), session::functions()].concat());

/// The names of all functions here.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|f| f.name).chain(["pg_sleep"])
}

/// Registers the functions with a session's context.
pub fn register(context: &SessionContext, access: Arc<dyn CatalogAccess>) {
    for function in FUNCTIONS.iter() {
        context.register_udf(ScalarUDF::new_from_impl(SystemFunction::new(function, Arc::clone(&access))));
    }
    for udf in lists::functions().into_iter().chain(casts::functions(&access)) {
        context.register_udf(udf);
    }
    context.register_udf(sleep::function());
}
