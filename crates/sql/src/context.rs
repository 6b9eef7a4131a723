//! placeholder
/// A DataFusion context with Millpond's configuration and functions, and no tables.
pub fn base_context() -> datafusion::prelude::SessionContext { datafusion::prelude::SessionContext::new() }
