//! The residual block.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::resample::Resample;
use crate::Result;
use crate::nn::{Activation, Around, Conv2d, Linear, MapNorm, Norm, add_to, chunks};
use crate::unet::pass::{Block, Pass};
use crate::weights::Scope;

/// How the noise embedding enters a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modulation {
    /// It scales and shifts the second norm: (1 + scale) · norm(h) + shift (Dhariwal & Nichol 2021, equation 3, AdaGN).
    ScaleShift,
    /// It is added before the second norm (Ho et al. 2020).
    Add,
}

/// The dimensions and choices of a residual block.
#[derive(Debug, Clone, Copy)]
pub struct ResBlockConfig {
    /// Channels that come in.
    pub inputs: i64,
    /// Channels that go out.
    pub outputs: i64,
    /// Width of the noise embedding.
    pub embedding_width: i64,
    /// The norms.
    pub norm: Norm,
    /// Their epsilon.
    pub eps: f64,
    /// The nonlinearity after each norm.
    pub activation: Activation,
    /// How the noise embedding enters.
    pub modulation: Modulation,
    /// The change of resolution inside.
    pub resample: Resample,
    /// What the sum at the end is divided by.
    pub divisor: f64,
    /// Names of the projection of the noise embedding, and of the convolution that fits the input to the output's channels.
    pub names: [&'static str; 2],
}

/// Norm, convolution, norm, convolution, and the input added (ADM, Dhariwal & Nichol 2021).
#[derive(Debug)]
pub struct ResBlock {
    norm1: MapNorm,
    conv1: Conv2d,
    embedding: Linear,
    norm2: MapNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    activation: Activation,
    modulation: Modulation,
    resample: Resample,
    divisor: f64,
}

impl ResBlock {
    /// Builds the block; its last convolution starts at zero.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, config: ResBlockConfig) -> Result<Self> {
        let ResBlockConfig { inputs, outputs, embedding_width, norm, eps, activation, modulation, .. } = config;
        let [embedding, shortcut] = config.names;
        let embedded = if modulation == Modulation::ScaleShift { 2 * outputs } else { outputs };
        Ok(Self {
            norm1: MapNorm::new(scope.at("norm1"), norm, inputs, eps)?,
            conv1: Conv2d::new(scope.at("conv1"), inputs, outputs, 3)?,
            embedding: Linear::new(scope.at(embedding), embedding_width, embedded)?,
            norm2: MapNorm::new(scope.at("norm2"), norm, outputs, eps)?,
            conv2: Conv2d::zeroed(scope.at("conv2"), outputs, outputs, 3)?,
            shortcut: (inputs != outputs).then(|| Conv2d::new(scope.at(shortcut), inputs, outputs, 1)).transpose()?,
            activation,
            modulation,
            resample: config.resample,
            divisor: config.divisor,
        })
    }
}

impl Block for ResBlock {
    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let activated = Around { activation: Some(self.activation), ..Around::default() };
        let h = self.resample.apply(&self.norm1.forward_in(&x, &activated)?)?;
        let h = self.conv1.forward(&h)?;
        let embedded = self.embedding.forward(pass.embedding)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let h = match self.modulation {
            Modulation::ScaleShift => {
                let [scale, shift] = chunks(&embedded, 1)?;
                self.norm2.forward_in(&h, &Around { modulation: Some([&scale, &shift]), ..activated })?
            }
            Modulation::Add => self.norm2.forward_in(&h, &Around { added: Some(&embedded), ..activated })?,
        };
        let h = self.conv2.forward(&h)?;
        let x = self.resample.apply(&x)?;
        // oneDNN could add within the convolution, but takes longer then than both do one after the other.
        let sum = match &self.shortcut {
            Some(shortcut) => add_to(shortcut.forward(&x)?, &h)?,
            None => add_to(h, &x)?,
        };
        // A division that changes nothing would still take its time.
        if self.divisor == 1.0 { Ok(sum) } else { Ok(sum.f_div_scalar(self.divisor)?) }
    }
}
