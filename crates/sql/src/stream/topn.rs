//! ORDER BY … LIMIT, DISTINCT ON, ROW_NUMBER(): all are the first rows of a partition.

use std::sync::Arc;

use arrow_schema::Schema;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, DistinctOn, Expr, ExprSchemable, FetchType, Filter, Limit, LogicalPlan, Operator as Op, SkipType, SortExpr, Window,
    WindowFunctionDefinition,
};
use millpond_common::Result;
use millpond_plan::{Operator, SortKey};

use super::build::{Builder, position, stream_field, stream_schema};
use super::expr::convert;
use super::{not_yet, refuse};
use crate::error::from_datafusion;

impl Builder<'_> {
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<usize> {
        let constant = || refuse("LIMIT or OFFSET that is not a constant", "Write a number.");
        let skip = match limit.get_skip_type().map_err(from_datafusion)? {
            SkipType::Literal(n) => n as u64,
            SkipType::UnsupportedExpr => return Err(constant()),
        };
        let fetch = match limit.get_fetch_type().map_err(from_datafusion)? {
            FetchType::Literal(n) => n.map(|n| n as u64),
            FetchType::UnsupportedExpr => return Err(constant()),
        };
        if skip == 0 && fetch.is_none() {
            return self.build(&limit.input);
        }
        // The order stands below, perhaps under projections that keep it.
        let mut projections = Vec::new();
        let mut input = limit.input.as_ref();
        loop {
            match input {
                LogicalPlan::Projection(p) if !matches!(p.input.as_ref(), LogicalPlan::TableScan(_)) => {
                    projections.push(p);
                    input = p.input.as_ref();
                }
                LogicalPlan::SubqueryAlias(alias) => input = alias.input.as_ref(),
                LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                    let mut node = self.first_rows(&sort.expr, &sort.input, skip, fetch)?;
                    for projection in projections.into_iter().rev() {
                        node = self.projection(projection, node)?;
                    }
                    return Ok(node);
                }
                _ => return self.first_rows(&[], &limit.input, skip, fetch),
            }
        }
    }

    /// The first rows of a plan in an order.
    pub(super) fn first_rows(&mut self, order: &[SortExpr], plan: &LogicalPlan, offset: u64, limit: Option<u64>) -> Result<usize> {
        let input = self.build(plan)?;
        self.top(input, plan, &[], order, offset, limit, None)
    }

    /// TopN over a built plan; the columns that only the order needs go again. With `row_number`, a column of that
    /// schema position's type is added.
    #[allow(clippy::too_many_arguments)] // each is one part of the operator
    fn top(
        &mut self,
        input: usize,
        plan: &LogicalPlan,
        partition: &[Expr],
        order: &[SortExpr],
        offset: u64,
        limit: Option<u64>,
        row_number: Option<arrow_schema::Field>,
    ) -> Result<usize> {
        let schema = plan.schema();
        let own = self.schema(input);
        let width = own.fields().len();
        let all = partition.iter().chain(order.iter().map(|s| &s.expr)).collect::<Vec<_>>();
        let exprs = all.iter().map(|e| convert(e, schema, |c| c)).collect::<Result<Vec<_>>>()?;
        let fields = all
            .iter()
            .map(|e| e.to_field(schema.as_ref()).map(|(_, f)| stream_field(&f)).map_err(from_datafusion))
            .collect::<Result<Vec<_>>>()?;
        let key = self.key(input);
        let (extended, positions) = self.with_columns(input, &exprs, &fields)?;
        let (partition, sorted) = positions.split_at(partition.len());
        let keys = sorted
            .iter()
            .zip(order)
            .map(|(column, s)| SortKey { column: *column, descending: !s.asc, nulls_first: s.nulls_first })
            .collect::<Vec<_>>();
        let mut names = self.schema(extended).fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
        let extended_width = names.len();
        names.extend(row_number.clone());
        let unique = match (limit, key, &row_number) {
            (Some(1), _, _) if !partition.is_empty() => Some(partition.to_vec()),
            (_, Some(key), _) => Some(key),
            (_, None, Some(_)) => Some(partition.iter().copied().chain([extended_width]).collect()),
            _ => None,
        };
        let operator = Operator::TopN { partition: partition.to_vec(), order: keys, offset, limit, row_number: row_number.is_some() };
        let node = self.push(operator, vec![extended], Arc::new(Schema::new(names.clone())), false, unique);
        if extended_width == width {
            return Ok(node);
        }
        let mut columns = (0..width).collect::<Vec<_>>();
        if row_number.is_some() {
            columns.push(extended_width);
        }
        let fields = columns.iter().filter_map(|c| names.get(*c).cloned()).collect::<Vec<_>>();
        self.select(node, &columns, Arc::new(Schema::new(fields)))
    }

    /// The first row for each value of the ON expressions.
    pub(super) fn distinct_on(&mut self, distinct: &DistinctOn) -> Result<usize> {
        let input = self.build(&distinct.input)?;
        let order = distinct.sort_expr.clone().unwrap_or_default();
        let top = self.top(input, &distinct.input, &distinct.on_expr, &order, 0, Some(1), None)?;
        let schema = distinct.input.schema();
        let exprs = distinct.select_expr.iter().map(|e| convert(e, schema, |c| c)).collect::<Result<Vec<_>>>()?;
        self.project(top, exprs, stream_schema(&distinct.schema))
    }

    /// A window with ROW_NUMBER() and nothing else, perhaps limited to the first rows.
    pub(super) fn row_number(&mut self, window: &Window, limit: Option<u64>) -> Result<usize> {
        let hint = "ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...) can be maintained, best with a filter on it; others work when you select from the view.";
        let [only] = window.window_expr.as_slice() else {
            return Err(not_yet("several window functions in one query", hint));
        };
        let mut expr = only;
        while let Expr::Alias(alias) = expr {
            expr = &alias.expr;
        }
        let Expr::WindowFunction(function) = expr else { return Err(not_yet(format!("the window function {only}"), hint)) };
        let name = match &function.fun {
            WindowFunctionDefinition::WindowUDF(udf) => udf.name().to_string(),
            WindowFunctionDefinition::AggregateUDF(udf) => udf.name().to_string(),
        };
        if name != "row_number" {
            return Err(not_yet(format!("the window function {name}"), hint));
        }
        let input = self.build(&window.input)?;
        let field = window.schema.fields().last().map(|f| stream_field(f));
        let params = &function.params;
        self.top(input, &window.input, &params.partition_by, &params.order_by, 0, limit, field)
    }

    /// `WHERE row_number <= n` over such a window: only those rows are kept in state.
    pub(super) fn filtered_row_number(&mut self, filter: &Filter) -> Result<Option<usize>> {
        let mut input = filter.input.as_ref();
        while let LogicalPlan::SubqueryAlias(alias) = input {
            input = alias.input.as_ref();
        }
        // The filter's columns through projections that only rename.
        let mut projection = None;
        if let LogicalPlan::Projection(p) = input {
            let mut below = p.input.as_ref();
            while let LogicalPlan::SubqueryAlias(alias) = below {
                below = alias.input.as_ref();
            }
            if matches!(below, LogicalPlan::Window(_)) {
                projection = Some(p);
                input = below;
            }
        }
        let LogicalPlan::Window(window) = input else { return Ok(None) };
        let number = window.schema.fields().len() - 1;
        let number = match projection {
            None => number,
            Some(p) => {
                let found = p.expr.iter().position(|e| {
                    let mut e = e;
                    while let Expr::Alias(alias) = e {
                        e = &alias.expr;
                    }
                    let e = if let Expr::Cast(cast) = e { cast.expr.as_ref() } else { e };
                    matches!(e, Expr::Column(c) if position(&window.schema, c).is_ok_and(|at| at == number))
                });
                match found {
                    Some(at) => at,
                    None => return Ok(None),
                }
            }
        };
        let mut limit: Option<u64> = None;
        let mut rest = Vec::new();
        for term in split_conjunction(&filter.predicate) {
            match bound(term, &|c| position(filter.input.schema(), c).is_ok_and(|at| at == number)) {
                Some((n, exact)) => {
                    limit = Some(limit.map_or(n, |l| l.min(n)));
                    if !exact {
                        rest.push(term.clone());
                    }
                }
                None => rest.push(term.clone()),
            }
        }
        let Some(limit) = limit else { return Ok(None) };
        let mut node = self.row_number(window, Some(limit))?;
        if let Some(p) = projection {
            node = self.projection(p, node)?;
        }
        if let Some(predicate) = conjunction(rest) {
            let predicate = convert(&predicate, filter.input.schema(), |c| c)?;
            node = self.push_filter(node, predicate);
        }
        Ok(Some(node))
    }
}

/// `n` if the term says that the row number is at most n; and whether it says no more than that.
fn bound(term: &Expr, is_number: &dyn Fn(&Column) -> bool) -> Option<(u64, bool)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = term else { return None };
    let column = |e: &Expr| match e {
        Expr::Column(c) => is_number(c),
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(c) if is_number(c)),
        _ => false,
    };
    let (op, value) = match (column(left), column(right)) {
        (true, false) => (*op, literal(right)?),
        (false, true) => (op.swap()?, literal(left)?),
        _ => return None,
    };
    match op {
        Op::LtEq => Some((u64::try_from(value).ok()?, true)),
        Op::Lt => Some((u64::try_from(value - 1).ok()?, true)),
        Op::Eq => Some((u64::try_from(value).ok()?, value == 1)),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int32(Some(n)) => Some((*n).into()),
        ScalarValue::Int64(Some(n)) => Some((*n).into()),
        ScalarValue::UInt64(Some(n)) => Some((*n).into()),
        ScalarValue::UInt32(Some(n)) => Some((*n).into()),
        _ => None,
    }
}
