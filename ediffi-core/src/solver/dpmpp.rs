//! DPM-Solver++, the multistep forms.
//!
//! In EDM's variables `lambda = -ln(sigma)`, and a step from `s` to `t` has `h = lambda_t - lambda_s`. The solution is
//! `x_t = (t / s) x + integral over the step of exp(lambda - lambda_t) D dlambda` (Lu et al. 2022, proposition 4.1);
//! the forms differ in how they extrapolate D from its past. With `theta = (lambda - lambda_s) / h`, the integral is
//! `-phi_1` for `D = 1`, `phi_2` for `D = theta` and `-2 phi_3` for `D = theta^2`, where `phi_1 = exp(-h) - 1`,
//! `phi_2 = phi_1 / h + 1` and `phi_3 = phi_2 / h - 1/2`.

use tch::Tensor;

use super::run::{Run, combine};
use crate::Result;

/// The `h` of an earlier step, and the estimate D that it began with.
type Past = (f64, Tensor);

/// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).
pub(super) fn dpmpp_2m(run: &mut Run<'_>, mut x: Tensor) -> Result<Tensor> {
    let mut past: Option<Past> = None;
    for (i, &[s, t]) in run.sigmas.array_windows().enumerate() {
        let h = (s / t).ln();
        let phi_1 = (-h).exp_m1();
        let d0 = run.denoise(&x, s)?;
        x = combine((t / s, &x), &[(-phi_1, &d0)])?;
        if let Some((h0, d_1)) = &past {
            let r0 = h0 / h;
            let d1 = combine((1.0 / r0, &d0), &[(-1.0 / r0, d_1)])?;
            x = combine((1.0, &x), &[(-0.5 * phi_1, &d1)])?;
        }
        run.report(i, &d0)?;
        past = Some((h, d0));
    }
    run.finish(&x, run.last_sigma())
}

/// DPM-Solver++(3M): the parabola through the last three estimates.
///
/// The first step has one estimate, the second two. With `D1_0 = (D_0 - D_-1) / r0` and `D1_1 = (D_-1 - D_-2) / r1`,
/// the parabola is `D_0 + theta D1 + theta^2 D2`. Widely used implementations weigh `D2` with `-phi_3` where its
/// integral is `-2 phi_3`, and so converge with order 2; this one has the full weight and order 3.
pub(super) fn dpmpp_3m(run: &mut Run<'_>, mut x: Tensor) -> Result<Tensor> {
    let (mut past, mut before): (Option<Past>, Option<Past>) = (None, None);
    for (i, &[s, t]) in run.sigmas.array_windows().enumerate() {
        let h = (s / t).ln();
        let phi_1 = (-h).exp_m1();
        let phi_2 = phi_1 / h + 1.0;
        let phi_3 = phi_2 / h - 0.5;
        let d0 = run.denoise(&x, s)?;
        x = combine((t / s, &x), &[(-phi_1, &d0)])?;
        if let Some((h0, d_1)) = &past {
            let r0 = h0 / h;
            let d1_0 = combine((1.0 / r0, &d0), &[(-1.0 / r0, d_1)])?;
            x = combine((1.0, &x), &[(phi_2, &d1_0)])?;
            if let Some((h1, d_2)) = &before {
                let r1 = h1 / h;
                let d1_1 = combine((1.0 / r1, d_1), &[(-1.0 / r1, d_2)])?;
                let d2 = combine((1.0 / (r0 + r1), &d1_0), &[(-1.0 / (r0 + r1), &d1_1)])?;
                x = combine((1.0, &x), &[(phi_2 * r0 - 2.0 * phi_3, &d2)])?;
            }
        }
        run.report(i, &d0)?;
        before = past.replace((h, d0));
    }
    run.finish(&x, run.last_sigma())
}
