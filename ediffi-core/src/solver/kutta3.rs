//! Kutta's third-order rule, the sampler of the paper.

use tch::Tensor;

use super::run::{Run, combine};
use crate::Result;

/// Kutta's third-order Runge-Kutta rule on the slope `d` (eDiff-I, appendix, table 7: DEIS, "3-kutta").
///
/// The nodes are 0, 1/2 and 1; the second stage starts from `d_1 / 2`, the third from `-d_1 + 2 d_2`; the weights are
/// 1/6, 4/6 and 1/6.
pub(super) fn kutta3(run: &mut Run<'_>, mut x: Tensor) -> Result<Tensor> {
    for (i, &[t, t_next]) in run.sigmas.array_windows().enumerate() {
        let h = t_next - t;
        let (d1, denoised) = run.slope(&x, t)?;
        let (d2, _) = run.slope(&combine((1.0, &x), &[(0.5 * h, &d1)])?, t + 0.5 * h)?;
        let (d3, _) = run.slope(&combine((1.0, &x), &[(-h, &d1), (2.0 * h, &d2)])?, t_next)?;
        x = combine((1.0, &x), &[(h / 6.0, &d1), (4.0 * h / 6.0, &d2), (h / 6.0, &d3)])?;
        run.report(i, &denoised)?;
    }
    run.finish(&x, run.last_sigma())
}
