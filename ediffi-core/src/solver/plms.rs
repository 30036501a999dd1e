//! PLMS: the multistep half of PNDM, the sampler that Stable Diffusion 1 was published with.

use std::collections::VecDeque;

use super::evaluated::{Evaluated, Kept, Next, combine};
use crate::Result;

/// Adams-Bashforth of order 4 on the noise, with the weights of even steps in the timestep (Liu et al. 2022, "Pseudo Numerical Methods for
/// Diffusion Models on Manifolds", equations 12 and 9; the latter is `x' = x + (t' - t) e` in EDM's variables, where the noise `e` is the
/// slope). The first step is evaluated at both ends and takes the mean, as diffusers' `skip_prk_steps`; the next ones grow in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Plms {
    /// The first step, which waits for the slope at its end.
    begun: Option<(Kept, f64)>,
    /// The slopes of earlier steps, the newest first, three at most.
    slopes: VecDeque<Kept>,
}

impl Plms {
    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let &Evaluated { x, t, t_next, .. } = evaluated;
        let e = Kept::from(evaluated.slope()?);
        if let Some((x, h)) = self.begun.take() {
            let [first] = earlier(&self.slopes);
            return Ok(Next::Reached(combine((1.0, &x), &[(0.5 * h, first.unwrap_or(&e)), (0.5 * h, &e)])?));
        }
        let h = t_next - t;
        let [e_1, e_2, e_3] = earlier(&self.slopes);
        let next = match (e_1, e_2, e_3) {
            (None, ..) => {
                let end = combine((1.0, x), &[(h, &e)])?;
                self.begun = Some((x.into(), h));
                Next::Within(end, t_next)
            }
            (Some(e_1), None, _) => Next::Reached(combine((1.0, x), &[(1.5 * h, &e), (-0.5 * h, e_1)])?),
            (Some(e_1), Some(e_2), None) => {
                let w = h / 12.0;
                Next::Reached(combine((1.0, x), &[(23.0 * w, &e), (-16.0 * w, e_1), (5.0 * w, e_2)])?)
            }
            (Some(e_1), Some(e_2), Some(e_3)) => {
                let w = h / 24.0;
                let terms: [(f64, &tch::Tensor); 4] =
                    [(55.0 * w, &e), (-59.0 * w, e_1), (37.0 * w, e_2), (-9.0 * w, e_3)];
                Next::Reached(combine((1.0, x), &terms)?)
            }
        };
        self.slopes.push_front(e);
        self.slopes.truncate(3);
        Ok(next)
    }
}

/// The newest of `slopes`.
fn earlier<const COUNT: usize>(slopes: &VecDeque<Kept>) -> [Option<&tch::Tensor>; COUNT] {
    std::array::from_fn(|index| slopes.get(index).map(|slope| &**slope))
}
