//! Exponential moving average of the weights. The average is exported, not the weights of the last step.

use tch::Tensor;

use crate::Result;
use crate::error::expect_decay;

/// A running average of parameters.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    /// Whether the start values are those of a trained network, which are worth keeping.
    pub(crate) settled: bool,
    pub(crate) average: Vec<(String, Tensor)>,
}

impl Ema {
    /// Starts at the present values. Fails unless 0 <= `decay` < 1; eDiff-I's is 0.9999 (table 7).
    pub(crate) fn new(decay: f64, parameters: &[(String, Tensor)]) -> Result<Self> {
        expect_decay("decay", decay)?;
        let _no_grad = tch::no_grad_guard();
        let copy = |(name, p): &(String, Tensor)| {
            let mut average = p.f_detach()?.f_empty_like()?;
            average.f_copy_(p)?;
            Ok((name.clone(), average))
        };
        Ok(Self { decay, settled: false, average: parameters.iter().map(copy).collect::<Result<_>>()? })
    }

    /// Adds the values after step `step`, counted from 0. The decay is min(decay, (1 + t) / (10 + t)) in step t, so that the random
    /// start values are soon forgotten. After a start from a trained network it is the full decay from the first step on.
    pub(crate) fn update(&mut self, parameters: &[(String, Tensor)], step: u64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let t = step as f64;
        let decay = if self.settled { self.decay } else { self.decay.min((1.0 + t) / (10.0 + t)) };
        for ((_, average), (_, parameter)) in self.average.iter_mut().zip(parameters) {
            let _ = average.f_lerp_(parameter, 1.0 - decay)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn parameters(value: f64) -> Vec<(String, Tensor)> {
        vec![("w".to_owned(), Tensor::from_slice(&[value as f32, -2.0 * value as f32]))]
    }

    #[test]
    fn the_weights_of_a_trained_network_are_not_forgotten_at_once() {
        let mut ema = Ema::new(0.9, &parameters(1.0)).unwrap();
        ema.settled = true;
        ema.update(&parameters(3.0), 0).unwrap();
        assert!((ema.average[0].1.double_value(&[0]) - 1.2).abs() < 1e-6);
    }

    /// Towards a constant c from a₀, after n updates: c + (a₀ − c) Π dₜ.
    #[test]
    fn follows_the_closed_form_and_forgets_the_start() {
        for decay in [0.5, 0.9999] {
            let mut ema = Ema::new(decay, &parameters(1.0)).unwrap();
            let mut left = 1.0;
            for step in 0..30 {
                ema.update(&parameters(3.0), step).unwrap();
                let t = step as f64;
                left *= decay.min((1.0 + t) / (10.0 + t));
                let expected = 3.0 + (1.0 - 3.0) * left;
                let (name, average) = &ema.average[0];
                assert_eq!(name, "w");
                assert!((average.double_value(&[0]) - expected).abs() < 1e-5, "decay {decay}, step {step}");
                assert!((average.double_value(&[1]) + 2.0 * expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn starts_as_a_copy_that_later_changes_do_not_reach() {
        let mut source = parameters(1.0);
        let ema = Ema::new(0.9, &source).unwrap();
        let _ = source[0].1.fill_(7.0);
        assert_eq!(ema.average[0].1, parameters(1.0)[0].1);
    }

    #[test]
    fn a_decay_that_is_none_is_refused() {
        for decay in [-0.1, 1.0, f64::NAN] {
            assert!(matches!(Ema::new(decay, &[]), Err(Error::Setting { field: "decay", .. })), "{decay}");
        }
    }
}
