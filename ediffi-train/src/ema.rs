//! Exponential moving average of the weights. The average is exported, not the weights of the last step.

use tch::{Kind, Tensor};

use crate::Result;
use crate::error::expect_decay;

/// A running average of parameters.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    /// Whether the start values are those of a trained network, which are worth keeping.
    pub(crate) settled: bool,
    /// Laid out as the parameters are.
    pub(crate) average: Tensor,
}

impl Ema {
    /// Starts at the present values. Fails unless 0 <= `decay` < 1; eDiff-I's is 0.9999 (table 7).
    pub(crate) fn new(decay: f64, weights: &Tensor) -> Result<Self> {
        expect_decay("decay", decay)?;
        let mut average = weights.f_empty_like()?;
        average.f_copy_(weights)?;
        Ok(Self { decay, settled: false, average })
    }

    /// Adds the values after step `step`, counted from 0, whose gradients had this `norm`; where it is not finite, the average stays.
    /// The decay is min(decay, (1 + t) / (10 + t)) in step t, so that the random start values are soon forgotten. After a start from a
    /// trained network it is the full decay from the first step on.
    pub(crate) fn update(&mut self, weights: &Tensor, norm: &Tensor, step: u64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let t = step as f64;
        let decay = if self.settled { self.decay } else { self.decay.min((1.0 + t) / (10.0 + t)) };
        let share = norm.f_isfinite()?.f_to_kind(Kind::Float)?.f_mul_scalar(1.0 - decay)?;
        let _ = self.average.f_lerp_tensor_(weights, &share)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn weights(value: f64) -> Tensor {
        Tensor::from_slice(&[value as f32, -2.0 * value as f32])
    }

    #[test]
    fn the_weights_of_a_trained_network_are_not_forgotten_at_once() {
        let mut ema = Ema::new(0.9, &weights(1.0)).unwrap();
        ema.settled = true;
        ema.update(&weights(3.0), &Tensor::from(1.0), 0).unwrap();
        assert!((ema.average.double_value(&[0]) - 1.2).abs() < 1e-6);
    }

    /// Towards a constant c from a₀, after n updates: c + (a₀ − c) Π dₜ. Steps whose gradients are not finite do not count.
    #[test]
    fn follows_the_closed_form_and_forgets_the_start() {
        for decay in [0.5, 0.9999] {
            let mut ema = Ema::new(decay, &weights(1.0)).unwrap();
            let mut left = 1.0;
            for step in 0..30 {
                ema.update(&weights(3.0), &Tensor::from(f64::from(step as u32)), step).unwrap();
                for norm in [f64::NAN, f64::INFINITY] {
                    ema.update(&weights(3.0), &Tensor::from(norm), step).unwrap();
                }
                let t = step as f64;
                left *= decay.min((1.0 + t) / (10.0 + t));
                let expected = 3.0 + (1.0 - 3.0) * left;
                assert!((ema.average.double_value(&[0]) - expected).abs() < 1e-5, "decay {decay}, step {step}");
                assert!((ema.average.double_value(&[1]) + 2.0 * expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn starts_as_a_copy_that_later_changes_do_not_reach() {
        let mut source = weights(1.0);
        let ema = Ema::new(0.9, &source).unwrap();
        let _ = source.fill_(7.0);
        assert_eq!(ema.average, weights(1.0));
    }

    #[test]
    fn a_decay_that_is_none_is_refused() {
        for decay in [-0.1, 1.0, f64::NAN] {
            assert!(matches!(Ema::new(decay, &weights(1.0)), Err(Error::Setting { field: "decay", .. })), "{decay}");
        }
    }
}
