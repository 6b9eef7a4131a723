//! How EXPLAIN prints a plan.

use std::fmt;

use crate::{AggregateCall, AggregateFunction, JoinKind, Node, Operator, PlanExpr, StreamPlan};

impl fmt::Display for StreamPlan {
    /// One line per operator, inputs indented below it, the root first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tree(&|_| String::new()))
    }
}

impl StreamPlan {
    /// One line per operator, inputs indented below it, the root first; each with a note behind it. What has several readers comes again, without
    /// its inputs.
    pub fn tree(&self, note: &dyn Fn(usize) -> String) -> String {
        let mut text = String::new();
        if let Some(root) = self.nodes.len().checked_sub(1) {
            self.write_node(&mut text, &mut vec![false; self.nodes.len()], root, 0, note);
        }
        text
    }

    fn write_node(&self, text: &mut String, written: &mut [bool], at: usize, depth: usize, note: &dyn Fn(usize) -> String) {
        let (Some(node), Some(written_here)) = (self.nodes.get(at), written.get_mut(at)) else { return };
        let again = std::mem::replace(written_here, true) && !node.inputs.is_empty();
        let shared = if again { " (the same as above)" } else { "" };
        text.push_str(&format!("{:indent$}{}{shared}{}\n", "", self.describe(node), note(at), indent = depth * 2));
        if !again {
            node.inputs.iter().for_each(|input| self.write_node(text, written, *input, depth + 1, note));
        }
    }

    /// One line for a node, with the names of its input's columns.
    pub fn describe(&self, node: &Node) -> String {
        let expires = match (&node.operator, node.expires.as_slice()) {
            (_, []) => "",
            (Operator::Aggregate { .. }, _) => " expires=[group]",
            (Operator::Join { .. }, [0]) => " expires=[left row]",
            (Operator::Join { .. }, [1]) => " expires=[right row]",
            _ => " expires=[row]",
        };
        format!("{}{expires}", self.describe_operator(node))
    }

    fn describe_operator(&self, node: &Node) -> String {
        let input = |port: usize| node.inputs.get(port).and_then(|i| self.nodes.get(*i));
        let name = |port: usize, column: usize| -> String {
            let field = input(port).and_then(|n| n.schema.fields().get(column).map(|f| f.name().clone()));
            field.unwrap_or_else(|| format!("c{column}"))
        };
        let names = |port: usize, columns: &[usize]| columns.iter().map(|c| name(port, *c)).collect::<Vec<_>>().join(", ");
        let left_width = input(0).map_or(0, |n| n.schema.fields().len());
        let expr = |e: &PlanExpr| rename(e, &|c| if c < left_width { name(0, c) } else { name(1, c - left_width) });
        match &node.operator {
            Operator::Scan { relation, .. } => {
                format!(
                    "Scan relation={} columns=[{}]",
                    relation.0,
                    node.schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
                )
            }
            Operator::Values { .. } => "Values".into(),
            Operator::Filter { predicate } => format!("Filter {}", expr(predicate)),
            Operator::Project { exprs } => {
                let items = exprs.iter().zip(node.schema.fields()).map(|(e, field)| {
                    let text = expr(e);
                    if &text == field.name() { text } else { format!("{text} AS {}", field.name()) }
                });
                format!("Project [{}]", items.collect::<Vec<_>>().join(", "))
            }
            Operator::Unnest { columns } => format!("Unnest [{}]", names(0, columns)),
            Operator::Union => "Union".into(),
            Operator::Join { kind, on, filter, .. } => {
                let on = on.iter().map(|(l, r)| format!("{} = {}", name(0, *l), name(1, *r))).collect::<Vec<_>>().join(" AND ");
                let filter = filter.as_ref().map(|e| format!(" filter={}", expr(e))).unwrap_or_default();
                let kind = match kind {
                    JoinKind::Inner => "Inner",
                    JoinKind::Left => "Left",
                    JoinKind::Right => "Right",
                    JoinKind::Full => "Full",
                    JoinKind::LeftSemi => "Semi",
                    JoinKind::LeftAnti => "Anti",
                };
                format!("{kind}Join on=[{on}]{filter}")
            }
            Operator::Aggregate { group, calls } => {
                let calls = calls.iter().map(|c| describe_call(c, &|column| name(0, column))).collect::<Vec<_>>().join(", ");
                format!("Aggregate group=[{}] calls=[{calls}]", names(0, group))
            }
            Operator::Distinct => "Distinct".into(),
            Operator::TopN { partition, order, offset, limit, row_number } => {
                let order = order
                    .iter()
                    .map(|k| format!("{}{}", name(0, k.column), if k.descending { " DESC" } else { "" }))
                    .collect::<Vec<_>>()
                    .join(", ");
                let limit = limit.map(|l| format!(" limit={l}")).unwrap_or_default();
                let offset = if *offset > 0 { format!(" offset={offset}") } else { String::new() };
                format!(
                    "TopN partition=[{}] order=[{order}]{limit}{offset}{}",
                    names(0, partition),
                    if *row_number { " row_number" } else { "" }
                )
            }
        }
    }
}

fn describe_call(call: &AggregateCall, name: &dyn Fn(usize) -> String) -> String {
    let function = match call.function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
    };
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let argument = call.argument.map_or("*".to_string(), name);
    let filter = call.filter.map(|c| format!(" FILTER ({})", name(c))).unwrap_or_default();
    format!("{function}({distinct}{argument}){filter}")
}

/// The expression's text with its columns under their own names.
fn rename(expr: &PlanExpr, name: &dyn Fn(usize) -> String) -> String {
    use datafusion::common::Column;
    use datafusion::common::tree_node::{Transformed, TreeNode};
    use datafusion::logical_expr::Expr;
    let renamed = expr.0.clone().transform(|e| {
        Ok(match &e {
            Expr::Column(c) => match PlanExpr::column_position(&c.name) {
                Some(position) => Transformed::yes(Expr::Column(Column::new_unqualified(name(position)))),
                None => Transformed::no(e),
            },
            _ => Transformed::no(e),
        })
    });
    match renamed {
        Ok(t) => t.data.to_string(),
        Err(_) => expr.0.to_string(),
    }
}
