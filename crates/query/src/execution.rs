//! What one execution brings to a plan that can be executed many times: the rows that it reads and the values of its
//! parameters. Leaves and parameters of the plan look for both in a [`Slot`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use millpond_common::SqlType;
use millpond_state::ReadView;
use parking_lot::RwLock;

/// One execution of a plan.
pub struct Execution {
    /// The rows of all relations.
    pub view: ReadView,
    /// The values of `$1`, `$2`, …
    pub parameters: Vec<ScalarValue>,
}

/// Where a plan finds its execution, of which there is one at a time.
#[derive(Default)]
pub struct Slot(RwLock<Option<Arc<Execution>>>);

impl Slot {
    /// The slot of a plan without parameters, which reads one view.
    pub fn of(view: ReadView) -> Arc<Slot> {
        let slot = Slot::default();
        slot.fill(Execution { view, parameters: vec![] });
        Arc::new(slot)
    }

    /// An execution begins.
    pub fn fill(&self, execution: Execution) {
        *self.0.write() = Some(Arc::new(execution));
    }

    /// The execution has ended: what it read is let go.
    pub fn clear(&self) {
        *self.0.write() = None;
    }

    /// The present execution.
    pub fn get(&self) -> Result<Arc<Execution>> {
        match &*self.0.read() {
            Some(execution) => Ok(Arc::clone(execution)),
            None => exec_err!("the plan's execution has ended"),
        }
    }
}

/// A parameter in a physical plan: a function without arguments, whose value is that of the execution.
struct Parameter {
    /// From 0.
    at: usize,
    name: String,
    data_type: DataType,
    slot: Arc<Slot>,
    signature: Signature,
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at && Arc::ptr_eq(&self.slot, &other.slot)
    }
}

impl Eq for Parameter {}

impl Hash for Parameter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.at.hash(state);
    }
}

impl ScalarUDFImpl for Parameter {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.name.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.slot.get()?.parameters.get(self.at) {
            Some(value) => Ok(ColumnarValue::Scalar(value.clone())),
            None => exec_err!("there is no parameter {}", self.name),
        }
    }
}

/// The parameter that an expression is, from 0, and its type: before a plan is physical, or in one.
pub fn parameter(expr: &Expr) -> Option<(usize, &DataType)> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: Some(field) }) => Some((place(id)?, field.data_type())),
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref::<Parameter>().map(|p| (p.at, &p.data_type)),
        _ => None,
    }
}

fn place(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// The plan with the types of its parameters known everywhere.
pub fn with_types(plan: LogicalPlan, types: &[SqlType]) -> Result<LogicalPlan> {
    each_parameter(plan, |at, placeholder| match types.get(at) {
        Some(of) => Ok(Expr::Placeholder(Placeholder { field: Some(Arc::new(of.field("parameter", true))), ..placeholder })),
        None => exec_err!("there is no parameter {}", placeholder.id),
    })
}

/// The plan with parameters that look for their values in the slot.
pub fn with_slot(plan: LogicalPlan, slot: &Arc<Slot>) -> Result<LogicalPlan> {
    each_parameter(plan, |at, Placeholder { id, field }| {
        let Some(field) = field else { return exec_err!("the type of {id} is not known") };
        let (data_type, slot) = (field.data_type().clone(), Arc::clone(slot));
        // Not a constant for the planner: the value differs with each execution.
        let signature = Signature::nullary(Volatility::Volatile);
        let function = ScalarUDF::from(Parameter { at, name: id, data_type, slot, signature });
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![])))
    })
}

fn each_parameter(plan: LogicalPlan, f: impl Fn(usize, Placeholder) -> Result<Expr>) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|e| match e {
                Expr::Placeholder(placeholder) => match place(&placeholder.id) {
                    Some(at) => Ok(Transformed::yes(f(at, placeholder)?)),
                    None => exec_err!("there is no parameter {}", placeholder.id),
                },
                other => Ok(Transformed::no(other)),
            })?;
            Ok(expr.update_data(|e| name.restore(e)))
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(replaced.data)
}
