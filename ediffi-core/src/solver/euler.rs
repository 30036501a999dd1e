//! Euler's rule.

use super::evaluated::{Evaluated, Next, combine};
use crate::Result;

/// `x_{i+1} = x_i + (t_{i+1} - t_i) d_i`, which is DDIM (Song et al. 2021) in EDM's variables.
pub(super) fn advance(evaluated: &Evaluated<'_>) -> Result<Next> {
    let &Evaluated { x, t, t_next, .. } = evaluated;
    let d = evaluated.slope()?;
    Ok(Next::Reached(combine((1.0, x), &[(t_next - t, &d)])?))
}
