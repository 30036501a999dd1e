//! DPM-Solver++, the multistep forms.
//!
//! In EDM's variables `lambda = -ln(sigma)`, and a step from `s` to `t` has `h = lambda_t - lambda_s`. The solution is
//! `x_t = (t / s) x + integral over the step of exp(lambda - lambda_t) D dlambda` (Lu et al. 2022, proposition 4.1);
//! the forms differ in how they extrapolate D from its past. With `theta = (lambda - lambda_s) / h`, the integral is
//! `-phi_1` for `D = 1`, `phi_2` for `D = theta` and `-2 phi_3` for `D = theta^2`, where `phi_1 = exp(-h) - 1`,
//! `phi_2 = phi_1 / h + 1` and `phi_3 = phi_2 / h - 1/2`.

use super::evaluated::{Evaluated, Kept, Next, combine};
use crate::Result;

/// The `h` of an earlier step, and the estimate D that it began with.
type Past = (f64, Kept);

/// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).
#[derive(Debug, Clone, Default)]
pub(super) struct DpmPp2M {
    past: Option<Past>,
}

impl DpmPp2M {
    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let &Evaluated { x, t: s, t_next: t, .. } = evaluated;
        let d0 = &evaluated.estimate.denoised;
        let h = (s / t).ln();
        let phi_1 = (-h).exp_m1();
        let mut x = combine((t / s, x), &[(-phi_1, d0)])?;
        if let Some((h0, d_1)) = &self.past {
            let r0 = h0 / h;
            let d1 = combine((1.0 / r0, d0), &[(-1.0 / r0, d_1)])?;
            x = combine((1.0, &x), &[(-0.5 * phi_1, &d1)])?;
        }
        self.past = Some((h, d0.into()));
        Ok(Next::Reached(x))
    }
}

/// DPM-Solver++(3M): the parabola through the last three estimates.
///
/// The first step has one estimate, the second two. With `D1_0 = (D_0 - D_-1) / r0` and `D1_1 = (D_-1 - D_-2) / r1`,
/// the parabola is `D_0 + theta D1 + theta^2 D2`. Widely used implementations weigh `D2` with `-phi_3` where its
/// integral is `-2 phi_3`, and so converge with order 2; this one has the full weight and order 3.
#[derive(Debug, Clone, Default)]
pub(super) struct DpmPp3M {
    past: Option<Past>,
    before: Option<Past>,
}

impl DpmPp3M {
    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let &Evaluated { x, t: s, t_next: t, .. } = evaluated;
        let d0 = &evaluated.estimate.denoised;
        let h = (s / t).ln();
        let phi_1 = (-h).exp_m1();
        let phi_2 = phi_1 / h + 1.0;
        let phi_3 = phi_2 / h - 0.5;
        let mut x = combine((t / s, x), &[(-phi_1, d0)])?;
        if let Some((h0, d_1)) = &self.past {
            let r0 = h0 / h;
            let d1_0 = combine((1.0 / r0, d0), &[(-1.0 / r0, d_1)])?;
            x = combine((1.0, &x), &[(phi_2, &d1_0)])?;
            if let Some((h1, d_2)) = &self.before {
                let r1 = h1 / h;
                let d1_1 = combine((1.0 / r1, d_1), &[(-1.0 / r1, d_2)])?;
                let d2 = combine((1.0 / (r0 + r1), &d1_0), &[(-1.0 / (r0 + r1), &d1_1)])?;
                x = combine((1.0, &x), &[(phi_2 * r0 - 2.0 * phi_3, &d2)])?;
            }
        }
        self.before = self.past.replace((h, d0.into()));
        Ok(Next::Reached(x))
    }
}
