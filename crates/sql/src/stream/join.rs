//! Joins of every kind.

use std::sync::Arc;

use arrow_schema::{Field, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, cast, lit};
use millpond_common::Result;
use millpond_plan::{JoinKind, Operator, PlanExpr};

use super::build::{Builder, Key, stream_field, stream_schema};
use super::expr::{column_expr, convert};
use super::not_yet;
use crate::error::from_datafusion;

/// A join with its sides in our order: the side whose rows come out of semi and anti joins is the left one.
struct Sides<'p> {
    left: &'p LogicalPlan,
    right: &'p LogicalPlan,
    on: Vec<(&'p Expr, &'p Expr)>,
    filter: Option<&'p Expr>,
    null_equals_null: bool,
}

impl Builder<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<usize> {
        let swapped = matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
        let (left, right) = if swapped { (&join.right, &join.left) } else { (&join.left, &join.right) };
        let sides = Sides {
            left,
            right,
            on: join.on.iter().map(|(l, r)| if swapped { (r, l) } else { (l, r) }).collect(),
            filter: join.filter.as_ref(),
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
        };
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi | JoinType::RightSemi => JoinKind::LeftSemi,
            JoinType::LeftAnti | JoinType::RightAnti => JoinKind::LeftAnti,
            JoinType::LeftMark | JoinType::RightMark => return self.mark_join(&sides, join),
        };
        let joined = self.one_join(kind, &sides)?;
        match join.null_aware && kind == JoinKind::LeftAnti {
            true => self.not_in(joined, &sides),
            false => Ok(joined),
        }
    }

    fn one_join(&mut self, kind: JoinKind, sides: &Sides<'_>) -> Result<usize> {
        let left_schema = sides.left.schema();
        let right_schema = sides.right.schema();
        let (mut left_keys, mut right_keys) = (Vec::new(), Vec::new());
        let (mut left_fields, mut right_fields) = (Vec::new(), Vec::new());
        for (l, r) in &sides.on {
            let (l_type, r_type) = (field_of(l, left_schema)?, field_of(r, right_schema)?);
            // Type coercion has made them equal but for nullability and metadata.
            let r_expr = match l_type.data_type() == r_type.data_type() {
                true => (*r).clone(),
                false => cast((*r).clone(), l_type.data_type().clone()),
            };
            left_keys.push(convert(l, left_schema, |c| c)?);
            right_keys.push(convert(&r_expr, right_schema, |c| c)?);
            right_fields.push(r_type.with_data_type(l_type.data_type().clone()));
            left_fields.push(l_type);
        }
        let left = self.build(sides.left)?;
        let left_width = left_schema.fields().len();
        let (left, left_on) = self.with_columns(left, &left_keys, &left_fields)?;
        let right = self.build(sides.right)?;
        let right_width = right_schema.fields().len();
        let (right, right_on) = self.with_columns(right, &right_keys, &right_fields)?;
        let (left_full, right_full) = (self.schema(left), self.schema(right));
        let shift = left_full.fields().len();
        let filter = match sides.filter {
            None => None,
            Some(filter) => {
                let both = left_schema.join(right_schema).map_err(from_datafusion)?;
                let split = left_schema.fields().len();
                Some(convert(filter, &both, |c| if c < split { c } else { shift + c - split })?)
            }
        };
        let on = left_on.iter().copied().zip(right_on.iter().copied()).collect::<Vec<_>>();
        let left_only = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let key = join_key(kind, &on, self.key(left), self.key(right), shift);
        let append_only = matches!(kind, JoinKind::Inner | JoinKind::LeftSemi) && self.append_only(left) && self.append_only(right);
        let mut fields = left_full.fields().iter().cloned().collect::<Vec<_>>();
        if !left_only {
            fields.extend(right_full.fields().iter().cloned());
        }
        let operator = Operator::Join { kind, on, null_equals_null: sides.null_equals_null, filter, numbered: true };
        let node = self.push(operator, vec![left, right], Arc::new(Schema::new(fields.clone())), append_only, key);
        let mut columns = (0..left_width).collect::<Vec<_>>();
        if !left_only {
            columns.extend(shift..shift + right_width);
        }
        if columns.is_empty() {
            return Ok(node);
        }
        let kept = columns.iter().filter_map(|c| fields.get(*c).cloned()).collect::<Vec<_>>();
        self.select(node, &columns, Arc::new(Schema::new(kept)))
    }

    /// A mark join adds to each left row whether it has a partner: those of the semi join have, those of the anti
    /// join do not.
    fn mark_join(&mut self, sides: &Sides<'_>, join: &Join) -> Result<usize> {
        let schema = stream_schema(&join.schema);
        let width = schema.fields().len() - 1;
        let marked = |builder: &mut Self, kind, mark: bool| {
            let rows = builder.one_join(kind, sides)?;
            let mut exprs = (0..width).map(|c| PlanExpr(column_expr(c))).collect::<Vec<_>>();
            exprs.push(PlanExpr(lit(mark)));
            builder.project(rows, exprs, schema.clone())
        };
        let with = marked(self, JoinKind::LeftSemi, true)?;
        let without = marked(self, JoinKind::LeftAnti, false)?;
        // Each left row is in one of the two.
        let key = self.key(with);
        Ok(self.push(Operator::Union, vec![with, without], schema, false, key))
    }

    /// `x NOT IN (subquery)` is NULL, not true, if x is NULL and the subquery is not empty, or if the subquery has a
    /// NULL. Where both can be, two more anti joins take those rows away.
    fn not_in(&mut self, joined: usize, sides: &Sides<'_>) -> Result<usize> {
        let [(left_key, right_key)] = sides.on.as_slice() else {
            return Err(not_yet("NOT IN of several columns", "Use NOT EXISTS."));
        };
        let (left_schema, right_schema) = (sides.left.schema(), sides.right.schema());
        let nullable = |e: &Expr, s: &DFSchema| e.nullable(s).map_err(from_datafusion);
        let (left_nulls, right_nulls) = (nullable(left_key, left_schema)?, nullable(right_key, right_schema)?);
        if (left_nulls || right_nulls) && sides.filter.is_some() {
            return Err(not_yet("a correlated NOT IN whose values can be NULL", "Use NOT EXISTS, which does not treat NULL in this way."));
        }
        let mut node = joined;
        let schema = self.schema(joined);
        let (split, width) = (left_schema.fields().len(), schema.fields().len());
        let anti = |builder: &mut Self, left: usize, filter: Expr| {
            let right = builder.build(sides.right)?;
            let both = left_schema.join(right_schema).map_err(from_datafusion)?;
            let filter = convert(&filter, &both, |c| if c < split { c } else { width + c - split })?;
            let key = builder.key(left);
            let operator =
                Operator::Join { kind: JoinKind::LeftAnti, on: Vec::new(), null_equals_null: false, filter: Some(filter), numbered: true };
            Ok::<_, millpond_common::Error>(builder.push(operator, vec![left, right], schema.clone(), false, key))
        };
        if right_nulls {
            node = anti(self, node, Expr::IsNull(Box::new((*right_key).clone())))?;
        }
        if left_nulls {
            node = anti(self, node, Expr::IsNull(Box::new((*left_key).clone())))?;
        }
        Ok(node)
    }
}

fn field_of(expr: &Expr, schema: &DFSchema) -> Result<Field> {
    let (_, field) = expr.to_field(schema).map_err(from_datafusion)?;
    Ok(stream_field(&field))
}

/// Columns that are unique in the result, from those that are unique in the inputs. A side whose key is among the
/// columns joined on adds at most one partner, so that the other side's key alone is enough.
fn join_key(kind: JoinKind, on: &[(usize, usize)], left: Key, right: Key, shift: usize) -> Key {
    let right_is_unique = right.as_ref().is_some_and(|k| k.iter().all(|c| on.iter().any(|(_, r)| r == c)));
    let left_is_unique = left.as_ref().is_some_and(|k| k.iter().all(|c| on.iter().any(|(l, _)| l == c)));
    let shifted = |k: &Vec<usize>| k.iter().map(|c| c + shift).collect::<Vec<_>>();
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => left,
        JoinKind::Inner | JoinKind::Left if right_is_unique => left,
        JoinKind::Inner | JoinKind::Right if left_is_unique => right.as_ref().map(shifted),
        JoinKind::Inner | JoinKind::Left | JoinKind::Right => match (left, right) {
            (Some(l), Some(r)) => Some(l.into_iter().chain(shifted(&r)).collect()),
            _ => None,
        },
        JoinKind::Full => None,
    }
}
