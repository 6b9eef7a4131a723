//! What depends on an order: LIMIT, DISTINCT ON, ROW_NUMBER.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, DistinctOn, Expr, ExprSchemable, FetchType, Limit, LogicalPlan, Operator as Comparison, SkipType, SortExpr, Window,
    WindowFunctionDefinition,
};
use millpond_common::Result;
use millpond_plan::SortKey;

use super::builder::as_column;
use super::expressions::{Scope, strip};
use super::{Translator, unsupported};
use crate::error::from_datafusion;

impl Translator<'_> {
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<usize> {
        let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) = (limit.get_skip_type(), limit.get_fetch_type()) else {
            return Err(unsupported("LIMIT of an expression", "Use a constant."));
        };
        self.limited(&limit.input, skip as u64, fetch.map(|f| f as u64))
    }

    /// A LIMIT is applied where its order is known: below projections, at the sort.
    fn limited(&mut self, plan: &LogicalPlan, skip: u64, fetch: Option<u64>) -> Result<usize> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let within = match (sort.fetch, fetch) {
                    (Some(all), None) => Some((all as u64).saturating_sub(skip)),
                    (Some(all), Some(fetch)) => Some(fetch.min((all as u64).saturating_sub(skip))),
                    (None, fetch) => fetch,
                };
                self.top(&sort.input, &sort.expr, skip, within)
            }
            LogicalPlan::Projection(p) => {
                let input = self.limited(&p.input, skip, fetch)?;
                self.project(input, p.input.schema(), &p.expr, &p.schema)
            }
            LogicalPlan::SubqueryAlias(alias) => self.limited(&alias.input, skip, fetch),
            other => self.top(other, &[], skip, fetch),
        }
    }

    /// The first rows of all.
    pub(super) fn top(&mut self, plan: &LogicalPlan, sort: &[SortExpr], offset: u64, limit: Option<u64>) -> Result<usize> {
        let input = self.node(plan)?;
        let width = self.builder.width(input);
        let (input, order) = self.order(input, plan, sort)?;
        let node = self.builder.top_n(input, vec![], order, offset, limit, None);
        Ok(self.builder.select(node, &(0..width).collect::<Vec<_>>()))
    }

    /// Columns to sort by; those that are computed are added behind the input's.
    fn order(&mut self, input: usize, plan: &LogicalPlan, sort: &[SortExpr]) -> Result<(usize, Vec<SortKey>)> {
        let exprs = sort.iter().map(|s| s.expr.clone()).collect::<Vec<_>>();
        let (input, columns) = self.columns(input, plan, &exprs)?;
        let key = |(column, s): (usize, &SortExpr)| SortKey { column, descending: !s.asc, nulls_first: s.nulls_first };
        Ok((input, columns.into_iter().zip(sort).map(key).collect()))
    }

    fn columns(&mut self, input: usize, plan: &LogicalPlan, exprs: &[Expr]) -> Result<(usize, Vec<usize>)> {
        let schema = plan.schema();
        let scope = Scope::over(&self.builder, input, schema);
        let width = self.builder.width(input);
        let (mut positions, mut more) = (Vec::new(), Vec::new());
        for expr in exprs {
            let converted = scope.convert(expr)?;
            match as_column(&converted) {
                Some(position) => positions.push(position),
                None => {
                    positions.push(width + more.len());
                    more.push((converted, strip(expr).get_type(schema.as_ref()).map_err(from_datafusion)?));
                }
            }
        }
        Ok((self.builder.extend(input, more), positions))
    }

    pub(super) fn distinct_on(&mut self, on: &DistinctOn) -> Result<usize> {
        let input = self.node(&on.input)?;
        let (input, partition) = self.columns(input, &on.input, &on.on_expr)?;
        let (input, order) = self.order(input, &on.input, on.sort_expr.as_deref().unwrap_or_default())?;
        let node = self.builder.top_n(input, partition, order, 0, Some(1), None);
        self.project(node, on.input.schema(), &on.select_expr, &on.schema)
    }

    /// `ROW_NUMBER() OVER (…)`, all rows or the first ones of each partition.
    pub(super) fn window(&mut self, window: &Window, limit: Option<u64>) -> Result<usize> {
        let function = match window.window_expr.as_slice() {
            [one] => match strip(one) {
                Expr::WindowFunction(f) if is_row_number(f) => f,
                other => return Err(unsupported(format!("window function {other}"), "Use ROW_NUMBER(), or an aggregate with GROUP BY.")),
            },
            _ => return Err(unsupported("more than one window function", "Use ROW_NUMBER() alone, in a subquery.")),
        };
        let input = self.node(&window.input)?;
        let width = self.builder.width(input);
        let (input, partition) = self.columns(input, &window.input, &function.params.partition_by)?;
        let (input, order) = self.order(input, &window.input, &function.params.order_by)?;
        let name = window.schema.fields().last().map_or("row_number", |f| f.name().as_str()).to_string();
        let node = self.builder.top_n(input, partition, order, 0, limit, Some(&name));
        let number = self.builder.width(node) - 1;
        let columns = (0..width).chain([number]).collect::<Vec<_>>();
        Ok(self.builder.select(node, &columns))
    }

    /// A filter above `ROW_NUMBER()`: an upper bound makes it a Top-N, and everything is checked again behind it.
    pub(super) fn filtered_window(&mut self, predicate: &Expr, window: &Window) -> Result<usize> {
        let number = window.schema.fields().len().checked_sub(1);
        let bound = |e: &Expr| upper_bound(e, &|column| number.is_some() && window.schema.maybe_index_of_column(column) == number);
        let limit = split_conjunction(predicate).into_iter().filter_map(bound).min();
        let input = self.window(window, limit)?;
        let exact = split_conjunction(predicate).into_iter().filter(|e| bound(e).is_none() || is_equality(e)).collect::<Vec<_>>();
        let mut node = input;
        for rest in exact {
            node = self.filter(node, &window.schema, rest)?;
        }
        Ok(node)
    }
}

fn is_row_number(function: &WindowFunction) -> bool {
    matches!(&function.fun, WindowFunctionDefinition::WindowUDF(f) if f.name() == "row_number") && function.params.filter.is_none()
}

fn is_equality(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Comparison::Eq, .. }))
}

/// `number <= 3`, `number < 4`, `number = 3`, or the same turned round: 3.
fn upper_bound(expr: &Expr, is_number: &dyn Fn(&datafusion::common::Column) -> bool) -> Option<u64> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let bare = |e: &Expr| match strip(e) {
        Expr::Cast(c) => strip(&c.expr).clone(),
        other => other.clone(),
    };
    let (op, value) = match (bare(left), bare(right)) {
        (Expr::Column(c), Expr::Literal(v, _)) if is_number(&c) => (*op, v),
        (Expr::Literal(v, _), Expr::Column(c)) if is_number(&c) => (op.swap()?, v),
        _ => return None,
    };
    let value = match value {
        ScalarValue::UInt64(Some(v)) => v,
        other => u64::try_from(i64::try_from(other.cast_to(&arrow_schema::DataType::Int64).ok()?).ok()?.max(0)).ok()?,
    };
    match op {
        Comparison::LtEq | Comparison::Eq => Some(value),
        Comparison::Lt => Some(value.saturating_sub(1)),
        _ => None,
    }
}
