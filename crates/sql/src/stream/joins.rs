//! Joins: keys become columns, right-handed kinds are turned round, mark joins are two joins.

use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, lit};
use millpond_common::Result;
use millpond_plan::{AggregateCall, AggregateFunction, JoinKind};

use super::builder::{as_column, column};
use super::expressions::Scope;
use super::{Translator, unsupported};
use crate::error::from_datafusion;

/// The two sides of a join, ready: nodes with key columns, and how many columns are the plan's own.
struct Sides {
    left: usize,
    right: usize,
    left_width: usize,
    right_width: usize,
    on: Vec<(usize, usize)>,
}

impl Translator<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<usize> {
        let nulls = join.null_equality == NullEquality::NullEqualsNull;
        let flipped = || join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect::<Vec<_>>();
        let (left, right) = (join.left.as_ref(), join.right.as_ref());
        match join.join_type {
            JoinType::Inner => self.plain(JoinKind::Inner, join, nulls),
            JoinType::Left => self.plain(JoinKind::Left, join, nulls),
            JoinType::Right => self.plain(JoinKind::Right, join, nulls),
            JoinType::Full => self.plain(JoinKind::Full, join, nulls),
            JoinType::LeftAnti if join.null_aware => self.not_in(join),
            JoinType::LeftSemi => self.one_sided(JoinKind::LeftSemi, left, right, &join.on, join.filter.as_ref(), nulls),
            JoinType::LeftAnti => self.one_sided(JoinKind::LeftAnti, left, right, &join.on, join.filter.as_ref(), nulls),
            JoinType::RightSemi => self.one_sided(JoinKind::LeftSemi, right, left, &flipped(), join.filter.as_ref(), nulls),
            JoinType::RightAnti => self.one_sided(JoinKind::LeftAnti, right, left, &flipped(), join.filter.as_ref(), nulls),
            JoinType::LeftMark => self.mark(left, right, &join.on, join.filter.as_ref(), nulls),
            JoinType::RightMark => self.mark(right, left, &flipped(), join.filter.as_ref(), nulls),
        }
    }

    /// Joins with the columns of both sides.
    fn plain(&mut self, kind: JoinKind, join: &Join, nulls: bool) -> Result<usize> {
        let sides = self.sides(&join.left, &join.right, &join.on)?;
        let filter = self.residual(join.filter.as_ref(), join.left.schema(), join.right.schema(), &sides)?;
        let first_right = self.builder.width(sides.left);
        let node = self.builder.join(kind, [sides.left, sides.right], sides.on, nulls, filter);
        let own = (0..sides.left_width).chain(first_right..first_right + sides.right_width).collect::<Vec<_>>();
        Ok(self.builder.select(node, &own))
    }

    /// Semi and anti joins: rows of the left side.
    fn one_sided(
        &mut self, kind: JoinKind, left: &LogicalPlan, right: &LogicalPlan, on: &[(Expr, Expr)], filter: Option<&Expr>, nulls: bool,
    ) -> Result<usize> {
        let sides = self.sides(left, right, on)?;
        let filter = self.residual(filter, left.schema(), right.schema(), &sides)?;
        let node = self.builder.join(kind, [sides.left, sides.right], sides.on, nulls, filter);
        Ok(self.builder.select(node, &(0..sides.left_width).collect::<Vec<_>>()))
    }

    /// Every left row once, with a column that tells whether it has a match: the rows that have, and those that have not.
    fn mark(&mut self, left: &LogicalPlan, right: &LogicalPlan, on: &[(Expr, Expr)], filter: Option<&Expr>, nulls: bool) -> Result<usize> {
        let sides = self.sides(left, right, on)?;
        let filter = self.residual(filter, left.schema(), right.schema(), &sides)?;
        let mut parts = Vec::new();
        for (kind, found) in [(JoinKind::LeftSemi, true), (JoinKind::LeftAnti, false)] {
            let node = self.builder.join(kind, [sides.left, sides.right], sides.on.clone(), nulls, filter.clone());
            let node = self.builder.select(node, &(0..sides.left_width).collect::<Vec<_>>());
            parts.push(self.builder.extend(node, vec![(lit(found), arrow_schema::DataType::Boolean)]));
        }
        Ok(self.builder.union_like(parts))
    }

    /// `NOT IN`: no row at all if the right side has a NULL, and no row whose own key is NULL, unless the right side is empty.
    fn not_in(&mut self, join: &Join) -> Result<usize> {
        let ([(_, _)], None) = (join.on.as_slice(), &join.filter) else {
            return Err(unsupported("this form of NOT IN", "Use NOT EXISTS."));
        };
        let sides = self.sides(&join.left, &join.right, &join.on)?;
        let Some((left_key, right_key)) = sides.on.first().copied() else {
            return Err(unsupported("this form of NOT IN", "Use NOT EXISTS."));
        };
        let call = |argument| AggregateCall { function: AggregateFunction::Count, argument, distinct: false, filter: None };
        let count = |name: &str| arrow_schema::Field::new(name, arrow_schema::DataType::Int64, true);
        let schema = std::sync::Arc::new(arrow_schema::Schema::new(vec![count("rows"), count("keys")]));
        let counts = self.builder.aggregate(sides.right, vec![], vec![call(None), call(Some(right_key))], schema);
        let unmatched = self.builder.join(JoinKind::LeftAnti, [sides.left, sides.right], sides.on, false, None);
        let (rows, keys) = (self.builder.width(unmatched), self.builder.width(unmatched) + 1);
        let with_counts = self.builder.join(JoinKind::Inner, [unmatched, counts], vec![], false, None);
        let no_rows = column(rows).eq(lit(0i64));
        let no_nulls = column(rows).eq(column(keys)).and(column(left_key).is_not_null());
        let kept = self.builder.filter(with_counts, no_rows.or(no_nulls));
        Ok(self.builder.select(kept, &(0..sides.left_width).collect::<Vec<_>>()))
    }

    /// Both inputs, with a column for each key that is not one already.
    fn sides(&mut self, left: &LogicalPlan, right: &LogicalPlan, on: &[(Expr, Expr)]) -> Result<Sides> {
        let (mut left_node, mut right_node) = (self.node(left)?, self.node(right)?);
        let (left_width, right_width) = (self.builder.width(left_node), self.builder.width(right_node));
        let lefts = on.iter().map(|(l, _)| l.clone()).collect::<Vec<_>>();
        let rights = on.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>();
        let lefts = self.keys(&mut left_node, left.schema(), &lefts)?;
        let rights = self.keys(&mut right_node, right.schema(), &rights)?;
        let on = lefts.into_iter().zip(rights).collect::<Vec<_>>();
        for (l, r) in &on {
            let data_type = |node: usize, c: usize| self.builder.schema(node).fields().get(c).map(|f| f.data_type().clone());
            if data_type(left_node, *l) != data_type(right_node, *r) {
                return Err(unsupported("a join of columns of different types", "Cast one of them."));
            }
        }
        Ok(Sides { left: left_node, right: right_node, left_width, right_width, on })
    }

    fn keys(&mut self, node: &mut usize, schema: &DFSchema, exprs: &[Expr]) -> Result<Vec<usize>> {
        let scope = Scope::over(&self.builder, *node, schema);
        let width = self.builder.width(*node);
        let (mut positions, mut more) = (Vec::new(), Vec::new());
        for expr in exprs {
            let converted = scope.convert(expr)?;
            match as_column(&converted) {
                Some(position) => positions.push(position),
                None => {
                    positions.push(width + more.len());
                    more.push((converted, expr.get_type(schema).map_err(from_datafusion)?));
                }
            }
        }
        *node = self.builder.extend(*node, more);
        Ok(positions)
    }

    fn residual(&self, filter: Option<&Expr>, left: &DFSchema, right: &DFSchema, sides: &Sides) -> Result<Option<Expr>> {
        let scope = Scope::both(left, right, self.builder.width(sides.left));
        filter.map(|f| scope.convert(f)).transpose()
    }
}
