//! Kutta's third-order rule, the sampler of the paper.

use super::evaluated::{Evaluated, Kept, Next, combine};
use crate::Result;

/// Kutta's third-order Runge-Kutta rule on the slope `d` (eDiff-I, appendix, table 7: DEIS, "3-kutta").
///
/// The nodes are 0, 1/2 and 1; the second stage starts from `d_1 / 2`, the third from `-d_1 + 2 d_2`; the weights are
/// 1/6, 4/6 and 1/6. Each variant waits for the slope of its stage.
#[derive(Debug, Clone, Default)]
pub(super) enum Kutta3 {
    #[default]
    First,
    Second {
        x: Kept,
        h: f64,
        d1: Kept,
    },
    Third {
        x: Kept,
        h: f64,
        d1: Kept,
        d2: Kept,
    },
}

impl Kutta3 {
    pub(super) fn advance(&mut self, evaluated: &Evaluated<'_>) -> Result<Next> {
        let &Evaluated { t, t_next, .. } = evaluated;
        let d = Kept::from(evaluated.slope()?);
        match std::mem::take(self) {
            Self::First => {
                let (x, h, d1) = (Kept::from(evaluated.x), t_next - t, d);
                let second = combine((1.0, &x), &[(0.5 * h, &d1)])?;
                *self = Self::Second { x, h, d1 };
                Ok(Next::Within(second, t + 0.5 * h))
            }
            Self::Second { x, h, d1 } => {
                let d2 = d;
                let third = combine((1.0, &x), &[(-h, &d1), (2.0 * h, &d2)])?;
                *self = Self::Third { x, h, d1, d2 };
                Ok(Next::Within(third, t_next))
            }
            Self::Third { x, h, d1, d2 } => {
                let d3 = d;
                let x = combine((1.0, &x), &[(h / 6.0, &d1), (4.0 * h / 6.0, &d2), (h / 6.0, &d3)])?;
                Ok(Next::Reached(x))
            }
        }
    }
}
