//! A DataFusion context as Millpond wants it.

use datafusion::execution::SessionStateBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::functions;

/// A DataFusion context with Millpond's configuration and functions, and no tables.
pub fn base_context() -> SessionContext {
    let mut config = SessionConfig::new().with_information_schema(false).with_create_default_catalog_and_schema(true);
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    options.execution.enable_ansi_mode = true;
    options.execution.time_zone = Some("UTC".into());
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.filter_null_join_keys = false;
    // It takes the first groups by a key although the order is that of an expression over it, such as -k: wrong rows.
    options.optimizer.enable_topk_aggregation = false;
    options.explain.logical_plan_only = false;
    let state = SessionStateBuilder::new().with_config(config).with_default_features();
    // Pushing filters down in physical plans, it finds columns by their names: over an outer join of two inputs that have a column
    // of one name, a filter lands on the wrong one. Logical plans push filters down, too. The second rule of that kind is for filters
    // that operators make while they run; no leaf of ours takes them, and without it operators keep them.
    let rules = PhysicalOptimizer::new().rules.into_iter().filter(|rule| rule.name() != "FilterPushdown").collect();
    let state = state.with_physical_optimizer_rules(rules).build();
    let context = SessionContext::new_with_state(state);
    functions::register(&context);
    context
}
