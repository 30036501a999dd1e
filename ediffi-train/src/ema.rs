//! Exponential moving average of the weights: what is shipped is the average, not the last step.

use tch::Tensor;

use crate::Result;

/// A running average of parameters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    pub(crate) average: Vec<(String, Tensor)>,
}

impl Ema {
    /// Starts at the present values. eDiff-I's decay is 0.9999 (table 7).
    ///
    /// # Errors
    /// A device without room.
    pub fn new(decay: f64, parameters: &[(String, Tensor)]) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let average = parameters
            .iter()
            .map(|(name, p)| {
                let mut average = p.f_detach()?.f_empty_like()?;
                average.f_copy_(p)?;
                Ok((name.clone(), average))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { decay, average })
    }

    /// Takes in the values after step `step`, counted from 0. Early steps weigh more, (1 + t) / (10 + t) until that
    /// exceeds the decay, so that the start values are soon forgotten.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn update(&mut self, parameters: &[(String, Tensor)], step: u64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let t = step as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        for ((_, average), (_, parameter)) in self.average.iter_mut().zip(parameters) {
            let _ = average.f_lerp_(parameter, 1.0 - decay)?;
        }
        Ok(())
    }

    /// The averages, by name.
    #[must_use]
    pub fn average(&self) -> &[(String, Tensor)] {
        &self.average
    }
}
