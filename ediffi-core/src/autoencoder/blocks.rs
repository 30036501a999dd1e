//! What encoder and decoder are made of, and the middle that both have.

use tch::Tensor;

use super::attention::{Attention, AttentionWeights};
use super::config::{AutoencoderConfig, EPS};
use crate::Result;
use crate::nn::{Activation, Around, Conv2d, GroupNorm, add_to, channels_last};
use crate::weights::Scope;

/// One layer of a way down or up.
#[derive(Debug)]
pub(super) enum Layer {
    /// A residual block.
    Residual(Box<Residual>),
    /// Attention.
    Attention(Attention),
    /// Halves the sides. Zeros are appended at the bottom and on the right alone, so that a side of 2n becomes n.
    Down(Conv2d),
    /// Repeats every pixel in 2×2, then a convolution.
    Up(Conv2d),
}

impl Layer {
    pub(super) fn forward(&self, h: &Tensor) -> Result<Tensor> {
        match self {
            Self::Residual(block) => block.forward(h),
            Self::Attention(attention) => attention.forward(h),
            Self::Down(conv) => conv.forward(&h.f_constant_pad_nd([0, 1, 0, 1])?),
            Self::Up(conv) => {
                let (_, _, height, width) = h.size4()?;
                conv.forward(&channels_last(&h.f_upsample_nearest2d([2 * height, 2 * width], None, None)?)?)
            }
        }
    }
}

/// Norm, convolution, norm, convolution, and the input added. No noise level enters.
#[derive(Debug)]
pub(super) struct Residual {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    activation: Activation,
}

impl Residual {
    fn new(mut scope: Scope<'_>, inputs: i64, outputs: i64, config: &AutoencoderConfig) -> Result<Self> {
        let shortcut = || Conv2d::new(scope.at("conv_shortcut"), inputs, outputs, 1);
        Ok(Self {
            shortcut: (inputs != outputs).then(shortcut).transpose()?,
            norm1: GroupNorm::new(scope.at("norm1"), inputs, config.groups, EPS)?,
            conv1: Conv2d::new(scope.at("conv1"), inputs, outputs, 3)?,
            norm2: GroupNorm::new(scope.at("norm2"), outputs, config.groups, EPS)?,
            conv2: Conv2d::zeroed(scope.at("conv2"), outputs, outputs, 3)?,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let activated = Around { activation: Some(self.activation), ..Around::default() };
        let h = self.conv1.forward(&self.norm1.forward_in(x, &activated)?)?;
        let h = self.conv2.forward(&self.norm2.forward_in(&h, &activated)?)?;
        match &self.shortcut {
            Some(shortcut) => add_to(shortcut.forward(x)?, &h),
            None => add_to(h, x),
        }
    }
}

/// The layers of a network while they are laid out, with their names.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    scope: Scope<'a>,
    config: &'a AutoencoderConfig,
    channels: i64,
    layers: Vec<(String, Layer)>,
}

impl<'a> Layers<'a> {
    /// None, below `scope`, for maps of `channels` channels.
    pub(super) fn new(scope: Scope<'a>, config: &'a AutoencoderConfig, channels: i64) -> Self {
        Self { scope, config, channels, layers: Vec::new() }
    }

    /// Adds a residual block that gives `outputs` channels.
    pub(super) fn residual(&mut self, name: String, outputs: i64) -> Result<()> {
        let block = Residual::new(self.scope.at(&name), self.channels, outputs, self.config)?;
        self.layers.push((name, Layer::Residual(Box::new(block))));
        self.channels = outputs;
        Ok(())
    }

    /// Adds a halving of the sides.
    pub(super) fn down(&mut self, name: String) -> Result<()> {
        let conv = Conv2d::unpadded(self.scope.at(&format!("{name}.conv")), self.channels, self.channels, 3, 2)?;
        self.layers.push((name, Layer::Down(conv)));
        Ok(())
    }

    /// Adds a doubling of the sides.
    pub(super) fn up(&mut self, name: String) -> Result<()> {
        let conv = Conv2d::new(self.scope.at(&format!("{name}.conv")), self.channels, self.channels, 3)?;
        self.layers.push((name, Layer::Up(conv)));
        Ok(())
    }

    /// Adds the middle: two residual blocks with attention between.
    pub(super) fn middle(&mut self, weights: AttentionWeights) -> Result<()> {
        let channels = self.channels;
        self.residual("mid_block.resnets.0".to_owned(), channels)?;
        if self.config.middle_attention {
            let name = "mid_block.attentions.0".to_owned();
            let attention = Attention::new(self.scope.at(&name), channels, self.config.groups, weights)?;
            self.layers.push((name, Layer::Attention(attention)));
        }
        self.residual("mid_block.resnets.1".to_owned(), channels)
    }

    pub(super) fn finish(self) -> Vec<(String, Layer)> {
        self.layers
    }
}
