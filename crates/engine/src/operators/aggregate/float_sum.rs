//! Exact sums of floating-point numbers.
//!
//! The sum is kept as an expansion: numbers of growing size that do not overlap and whose exact sum is the exact
//! sum of all that was added (J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997). So taking back
//! what was added gives exactly what was before, in any order, and rounding happens once, when the sum is read.

use millpond_common::{Error, Result, SqlState};
use serde::{Deserialize, Serialize};

/// A sum from which any summand can be taken away again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FloatSum {
    /// Increasing magnitude, not overlapping, none of them zero.
    parts: Vec<f64>,
    /// How many summands are not finite; mostly there are none.
    special: Option<Box<Special>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Special {
    nan: i64,
    positive: i64,
    negative: i64,
}

impl FloatSum {
    /// Adds `value` `weight` times (takes it away if the weight is negative).
    #[inline]
    pub fn add(&mut self, value: f64, weight: i64) -> Result<()> {
        if !value.is_finite() {
            let special = self.special.get_or_insert_default();
            match value {
                v if v.is_nan() => special.nan += weight,
                v if v > 0.0 => special.positive += weight,
                _ => special.negative += weight,
            }
            return Ok(());
        }
        match weight {
            1 => self.grow(value),
            -1 => self.grow(-value),
            _ => {
                let factor = weight as f64;
                let product = value * factor;
                // What rounding the product lost is exact in a fused multiply-add.
                self.grow(value.mul_add(factor, -product))?;
                self.grow(product)
            }
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &FloatSum) -> Result<()> {
        if let Some(theirs) = &other.special {
            let own = self.special.get_or_insert_default();
            own.nan += theirs.nan;
            own.positive += theirs.positive;
            own.negative += theirs.negative;
            if *own.as_ref() == Special::default() {
                self.special = None;
            }
        }
        other.parts.iter().try_for_each(|part| self.grow(*part))
    }

    /// Whether adding it to another sum would change nothing.
    pub fn is_zero(&self) -> bool {
        self.parts.is_empty() && self.special.is_none()
    }

    /// The exact sum, rounded once to the nearest double (ties to even).
    pub fn value(&self) -> f64 {
        if let Some(special) = &self.special {
            match (special.nan != 0, special.positive != 0, special.negative != 0) {
                (true, _, _) | (_, true, true) => return f64::NAN,
                (_, true, _) => return f64::INFINITY,
                (_, _, true) => return f64::NEG_INFINITY,
                _ => {}
            }
        }
        let mut rest = self.parts.iter().rev().copied();
        let Some(mut high) = rest.next() else { return 0.0 };
        while let Some(part) = rest.next() {
            let sum = high + part;
            let low = part - (sum - high);
            high = sum;
            if low != 0.0 {
                // `low` is half a unit of `high` at most. If exactly half, a further part of its sign decides the tie.
                let tie = rest.next().is_some_and(|next| (next > 0.0) == (low > 0.0));
                let up = high + low * 2.0;
                if tie && up - high == low * 2.0 {
                    high = up;
                }
                break;
            }
        }
        high
    }

    /// Approximate bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.parts.capacity() * 8 + self.special.as_ref().map_or(0, |_| size_of::<Special>())
    }

    fn grow(&mut self, value: f64) -> Result<()> {
        if value == 0.0 {
            return Ok(());
        }
        let mut carried = value;
        let mut kept = 0;
        for i in 0..self.parts.len() {
            let part = self.parts[i];
            let (large, small) = if carried.abs() < part.abs() { (part, carried) } else { (carried, part) };
            let sum = large + small;
            let low = small - (sum - large);
            if low != 0.0 {
                self.parts[kept] = low;
                kept += 1;
            }
            carried = sum;
        }
        if !carried.is_finite() {
            return Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
        }
        self.parts.truncate(kept);
        if carried != 0.0 {
            self.parts.push(carried);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sum(values: &[(f64, i64)]) -> f64 {
        let mut s = FloatSum::default();
        values.iter().for_each(|(v, w)| s.add(*v, *w).unwrap());
        s.value()
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        assert_eq!(sum(&[(1e16, 1), (0.1, 1), (1e16, -1)]), 0.1);
        assert_eq!(sum(&[(0.1, 10)]), 1.0);
        assert_eq!(sum(&[(0.1, 3), (0.1, -3)]), 0.0);
        assert_eq!(sum(&[(f64::INFINITY, 1), (2.5, 1), (f64::INFINITY, -1)]), 2.5);
        assert!(sum(&[(f64::INFINITY, 1), (f64::NEG_INFINITY, 1)]).is_nan());
        assert_eq!(sum(&[(1e100, 1), (1.0, 1), (1e-100, 1), (1e100, -1), (1.0, -1)]), 1e-100);
    }

    #[test]
    fn rounding_happens_once_and_in_any_order() {
        // Half a unit above 2^53, and a little more: must round up.
        let values = [(9_007_199_254_740_992.0, 1), (1.0, 1), (1e-30, 1)];
        assert_eq!(sum(&values), 9_007_199_254_740_994.0);
        assert_eq!(sum(&[values[2], values[1], values[0]]), 9_007_199_254_740_994.0);
        assert_eq!(sum(&values[..2]), 9_007_199_254_740_992.0);
    }

    #[test]
    fn overflow_is_an_error() {
        let mut s = FloatSum::default();
        assert!(s.add(f64::MAX, 1).is_ok());
        assert_eq!(s.add(f64::MAX, 1).map_err(|e| e.state()), Err(SqlState::NUMERIC_VALUE_OUT_OF_RANGE));
    }
}
