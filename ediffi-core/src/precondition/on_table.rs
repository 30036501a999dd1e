//! Networks that are told a timestep of DDPM, by what they predict.

use serde::{Deserialize, Serialize};

use super::coefficients::Precondition;
use crate::timesteps::NoiseTable;

/// The network predicts the noise, and is told a timestep of DDPM: `D(x; sigma) = x - sigma F(x / sqrt(1 + sigma^2); t(sigma))`
/// (EDM, table 1, "iDDPM"; DDPM's own view of `x` keeps its variance, EDM's does not). The network takes fractions of a
/// timestep.
///
/// In JSON it is the name of its table: `"squared-cosine"`, `"linear"` or `"scaled-linear"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epsilon {
    table: NoiseTable,
}

impl Epsilon {
    /// The preconditioning of a network that was trained on the timesteps of `table`.
    #[must_use]
    pub fn new(table: NoiseTable) -> Self {
        Self { table }
    }

    /// The timesteps that the network was trained on.
    #[must_use]
    pub fn timesteps(&self) -> NoiseTable {
        self.table
    }
}

impl Precondition for Epsilon {
    /// 1: all of the noisy image is kept.
    fn c_skip(&self, _sigma: f64) -> f64 {
        1.0
    }

    /// `-sigma`: the predicted noise is subtracted.
    fn c_out(&self, sigma: f64) -> f64 {
        -sigma
    }

    /// `1 / sqrt(1 + sigma^2)`, which makes `x` that of DDPM.
    fn c_in(&self, sigma: f64) -> f64 {
        1_f64.hypot(sigma).recip()
    }

    /// The timestep, with its fraction: [`NoiseTable::timestep`].
    fn c_noise(&self, sigma: f64) -> f64 {
        self.table.timestep(sigma)
    }

    /// `1 / sigma^2`: the loss is the plain squared error of the noise (Ho et al. 2020, equation 14).
    fn loss_weight(&self, sigma: f64) -> f64 {
        sigma.powi(-2)
    }
}

/// The network predicts `v = a n - s y` of the mixture `a y + s n` of DDPM, with `a^2 + s^2 = 1` and `s / a = sigma` (Salimans & Ho 2022,
/// "Progressive Distillation for Fast Sampling of Diffusion Models", appendix D), and is told a timestep: `D(x; sigma) = x / (1 + sigma^2) -
/// sigma / sqrt(1 + sigma^2) F`, which is `a x_t - s v` where `x_t = a x`. Stable Diffusion 2 has it.
///
/// In JSON it is the name of its table: `"scaled-linear"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Velocity {
    table: NoiseTable,
}

impl Velocity {
    /// The preconditioning of a network that was trained on the timesteps of `table`.
    #[must_use]
    pub fn new(table: NoiseTable) -> Self {
        Self { table }
    }

    /// The timesteps that the network was trained on.
    #[must_use]
    pub fn timesteps(&self) -> NoiseTable {
        self.table
    }
}

impl Precondition for Velocity {
    /// `1 / (1 + sigma^2)`.
    fn c_skip(&self, sigma: f64) -> f64 {
        self.c_in(sigma).powi(2)
    }

    /// `-sigma / sqrt(1 + sigma^2)`.
    fn c_out(&self, sigma: f64) -> f64 {
        -sigma / 1_f64.hypot(sigma)
    }

    /// `1 / sqrt(1 + sigma^2)`, which makes `x` that of DDPM.
    fn c_in(&self, sigma: f64) -> f64 {
        1_f64.hypot(sigma).recip()
    }

    /// The timestep, with its fraction: [`NoiseTable::timestep`].
    fn c_noise(&self, sigma: f64) -> f64 {
        self.table.timestep(sigma)
    }

    /// `1 + 1 / sigma^2`: the loss is the plain squared error of `v`.
    fn loss_weight(&self, sigma: f64) -> f64 {
        1.0 + sigma.powi(-2)
    }
}

/// The network predicts the clean image itself, and is told a timestep of DDPM: `D(x; sigma) = F(x / sqrt(1 + sigma^2); t(sigma))`.
///
/// In JSON it is the name of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SampleOnTable {
    table: NoiseTable,
}

impl SampleOnTable {
    /// The preconditioning of a network that was trained on the timesteps of `table`.
    #[must_use]
    pub fn new(table: NoiseTable) -> Self {
        Self { table }
    }

    /// The timesteps that the network was trained on.
    #[must_use]
    pub fn timesteps(&self) -> NoiseTable {
        self.table
    }
}

impl Precondition for SampleOnTable {
    /// 0: nothing of the noisy image is kept.
    fn c_skip(&self, _sigma: f64) -> f64 {
        0.0
    }

    /// 1: the answer is the image.
    fn c_out(&self, _sigma: f64) -> f64 {
        1.0
    }

    /// `1 / sqrt(1 + sigma^2)`, which makes `x` that of DDPM.
    fn c_in(&self, sigma: f64) -> f64 {
        1_f64.hypot(sigma).recip()
    }

    /// The timestep, with its fraction: [`NoiseTable::timestep`].
    fn c_noise(&self, sigma: f64) -> f64 {
        self.table.timestep(sigma)
    }

    /// 1: the loss is the plain squared error of the image.
    fn loss_weight(&self, _sigma: f64) -> f64 {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_prediction_takes_the_noise_away() {
        let epsilon: Epsilon = serde_json::from_str(r#""squared-cosine""#).unwrap();
        // sigma = 0.75: sqrt(1 + sigma^2) = 1.25.
        let got = [epsilon.c_skip(0.75), epsilon.c_out(0.75), epsilon.c_in(0.75), epsilon.loss_weight(0.75)];
        assert_eq!(got, [1.0, -0.75, 0.8, 16.0 / 9.0]);
        assert_eq!(epsilon.c_noise(0.75), NoiseTable::SquaredCosine.timestep(0.75));
        assert_eq!(serde_json::to_string(&epsilon).unwrap(), r#""squared-cosine""#);
        let other: Epsilon = serde_json::from_str(r#""linear""#).unwrap();
        assert_eq!(other.c_noise(0.75), NoiseTable::Linear.timestep(0.75));
        assert!(serde_json::from_str::<Epsilon>(r#""cubic""#).unwrap_err().to_string().contains("squared-cosine"));
    }

    /// sigma = 0.75 mixes 0.8 of the image with 0.6 of the noise: both give the image back from what they predict.
    #[test]
    fn velocity_and_image_on_a_table_give_the_image() {
        let (image, noise) = (0.3, -1.7);
        let x = image + 0.75 * noise;
        let velocity: Velocity = serde_json::from_str(r#""scaled-linear""#).unwrap();
        let on_table = SampleOnTable::new(NoiseTable::Linear);
        let answers: [(&dyn Precondition, f64); 2] = [(&velocity, 0.8 * noise - 0.6 * image), (&on_table, image)];
        for (precondition, answer) in answers {
            let denoised = precondition.c_skip(0.75) * x + precondition.c_out(0.75) * answer;
            assert!((denoised - image).abs() < 1e-12, "{precondition:?}: {denoised}");
            assert_eq!(precondition.c_in(0.75), 0.8);
            // The weight makes the error of the image that of the answer.
            let weight = precondition.loss_weight(0.75) * precondition.c_out(0.75).powi(2);
            assert!((weight - 1.0).abs() < 1e-12, "{precondition:?}: {weight}");
        }
        assert_eq!(velocity.c_noise(0.75), NoiseTable::ScaledLinear.timestep(0.75));
        assert_eq!(on_table.c_noise(0.75), NoiseTable::Linear.timestep(0.75));
        assert_eq!((velocity.timesteps(), on_table.timesteps()), (NoiseTable::ScaledLinear, NoiseTable::Linear));
        assert_eq!(serde_json::to_string(&velocity).unwrap(), r#""scaled-linear""#);
    }
}
