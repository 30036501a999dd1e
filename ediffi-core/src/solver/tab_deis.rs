//! t-AB-DEIS: Adams-Bashforth in sigma on a grid of any spacing.

use std::collections::VecDeque;

use super::evaluated::{Evaluated, Kept, Next, combine};
use crate::Result;

/// `x_{i+1} = x_i + sum_j C_ij d_{i-j}` with j = 0..r (Zhang and Chen 2022, t-AB-DEIS): the polynomial
/// through the last slopes, integrated over the step. The degree r grows from 0 to `order` over the first steps.
///
/// `C_ij = integral from t_i to t_{i+1} of prod_{k != j} (tau - t_{i-k}) / (t_{i-j} - t_{i-k}) dtau`.
#[derive(Debug, Clone)]
pub(super) struct TabDeis {
    order: usize,
    /// The noise levels of earlier steps, the newest first, `order` at most.
    times: VecDeque<f64>,
    /// The slopes there.
    slopes: VecDeque<Kept>,
}

impl TabDeis {
    pub(super) fn new(order: usize) -> Self {
        Self { order, times: VecDeque::new(), slopes: VecDeque::new() }
    }

    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let &Evaluated { x, t, t_next, .. } = evaluated;
        self.times.push_front(t);
        self.slopes.push_front(evaluated.slope()?.into());
        let weights = coefficients(self.times.make_contiguous(), t_next);
        let terms: Vec<_> = weights.into_iter().zip(self.slopes.iter().map(|d| &**d)).collect();
        let x = combine((1.0, x), &terms)?;
        // The next step has a slope of its own, and uses so many more.
        self.times.truncate(self.order);
        self.slopes.truncate(self.order);
        Ok(Next::Reached(x))
    }
}

/// The integrals of the Lagrange polynomials of the nodes `times` from `times[0]` to `t_next`, in closed form.
fn coefficients(times: &[f64], t_next: f64) -> Vec<f64> {
    let start = times.first().copied().unwrap_or(t_next);
    let integral = |j: usize, node: f64| {
        // The polynomial's coefficients in tau - start, lowest power first, one factor at a time.
        let mut polynomial = vec![1.0];
        for (_, &other) in times.iter().enumerate().filter(|(k, _)| *k != j) {
            let (root, scale) = (other - start, (node - other).recip());
            let raised = std::iter::once(0.0).chain(polynomial.iter().copied());
            let kept = polynomial.iter().copied().chain(std::iter::once(0.0));
            polynomial = raised.zip(kept).map(|(raised, kept)| (raised - root * kept) * scale).collect();
        }
        let h = t_next - start;
        polynomial.iter().zip(1..).map(|(c, power)| c * h.powi(power) / f64::from(power)).sum()
    };
    times.iter().enumerate().map(|(j, &node)| integral(j, node)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn even_grids_give_the_adams_bashforth_weights() {
        let table: [&[f64]; 4] = [
            &[1.0],
            &[3.0 / 2.0, -1.0 / 2.0],
            &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        ];
        for weights in table {
            let times: Vec<_> = (0..weights.len()).map(|k| 7.0 + 2.0 * k as f64).collect();
            for (got, weight) in coefficients(&times, 5.0).iter().zip(weights) {
                assert!((got - -2.0 * weight).abs() < 1e-12, "{got} {weight}");
            }
        }
    }

    proptest! {
        /// The defining property: a slope that is a polynomial of degree r in sigma is integrated exactly.
        #[test]
        fn polynomials_are_integrated_exactly(
            gaps in prop::collection::vec(0.1..2.0_f64, 2..=4), c in prop::array::uniform4(-1.0..1.0_f64),
        ) {
            let t_next = 0.3;
            let times: Vec<f64> = gaps.iter().scan(t_next, |t, gap| { *t += gap; Some(*t) }).collect();
            let degree = times.len() - 1;
            let slope = |t: f64| (0..=degree).map(|p| c[p] * t.powi(p as i32)).sum::<f64>();
            let primitive = |t: f64| (0..=degree).map(|p| c[p] * t.powi(p as i32 + 1) / (p + 1) as f64).sum::<f64>();
            let exact = primitive(t_next) - primitive(times[0]);
            let got: f64 = coefficients(&times, t_next).iter().zip(&times).map(|(w, t)| w * slope(*t)).sum();
            // The weights of close nodes are large and cancel.
            prop_assert!((got - exact).abs() < 1e-7, "{} {}", got, exact);
        }
    }
}
