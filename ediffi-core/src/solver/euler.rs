//! Euler's rule.

use tch::Tensor;

use super::run::{Run, combine};
use crate::Result;

/// `x_{i+1} = x_i + (t_{i+1} - t_i) d_i`, which is DDIM (Song et al. 2021) in EDM's variables.
pub(super) fn euler(run: &mut Run<'_>, mut x: Tensor) -> Result<Tensor> {
    for (i, &[t, t_next]) in run.sigmas.array_windows().enumerate() {
        let (d, denoised) = run.slope(&x, t)?;
        x = combine((1.0, &x), &[(t_next - t, &d)])?;
        run.report(i, &denoised)?;
    }
    run.finish(&x, run.last_sigma())
}
