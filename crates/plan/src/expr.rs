//! DataFusion expressions inside the stored plan.

use datafusion::logical_expr::Expr;
use datafusion_proto::bytes::Serializeable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A DataFusion logical expression over the columns of a node's input, named `c0`, `c1`, … by position
/// (unqualified), so that renaming a relation's columns does not change the plan. Stored in DataFusion's
/// protobuf form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlanExpr(pub Expr);

impl PlanExpr {
    /// The name of the input column at `position` inside an expression.
    pub fn column_name(position: usize) -> String {
        format!("c{position}")
    }

    /// The position that a column name inside an expression stands for.
    pub fn column_position(name: &str) -> Option<usize> {
        name.strip_prefix('c')?.parse().ok()
    }

    /// Its stored form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, datafusion::error::DataFusionError> {
        Ok(self.0.to_bytes()?.to_vec())
    }
}

impl Serialize for PlanExpr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

thread_local! {
    /// The functions that stored expressions may name; see [`with_functions`].
    static REGISTRY: std::cell::RefCell<Option<std::sync::Arc<datafusion::prelude::SessionContext>>> = const { std::cell::RefCell::new(None) };
}

/// Runs `f` with the functions of `context` at hand for decoding stored expressions. Needed around every
/// deserialisation of a plan, as an expression names its functions.
pub fn with_functions<T>(context: std::sync::Arc<datafusion::prelude::SessionContext>, f: impl FnOnce() -> T) -> T {
    let before = REGISTRY.with(|r| r.replace(Some(context)));
    let result = f();
    REGISTRY.with(|r| r.replace(before));
    result
}

impl<'de> Deserialize<'de> for PlanExpr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let context = REGISTRY.with(|r| r.borrow().clone());
        let expr = match context {
            Some(context) => Expr::from_bytes_with_ctx(&bytes, &context.task_ctx()),
            None => Expr::from_bytes(&bytes),
        };
        expr.map(PlanExpr).map_err(serde::de::Error::custom)
    }
}
