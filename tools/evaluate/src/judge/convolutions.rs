//! The first judge's network: a small convolutional detector.

use ediffi_core::Result;
use ediffi_core::nn::{Conv2d, GroupNorm, Linear, channels_last};
use ediffi_core::weights::Scope;
use tch::{Kind, Tensor};

use super::network::{CELLS, COLOURS, CONCEPTS, FEATURES, Output, RARE, STYLES};

const FIRST: i64 = 24;
const FINE: i64 = 48;
const DEEP: i64 = FEATURES;
const GROUPS: i64 = 8;
const EPS: f64 = 1e-5;

/// A convolution, a group norm and SiLU.
#[derive(Debug)]
struct Layer {
    conv: Conv2d,
    norm: GroupNorm,
}

impl Layer {
    fn new(mut scope: Scope<'_>, inputs: i64, outputs: i64, stride: i64) -> Result<Self> {
        let conv = Conv2d::strided(scope.at("conv"), inputs, outputs, 3, stride)?;
        Ok(Self { conv, norm: GroupNorm::new(scope.at("norm"), outputs, GROUPS, EPS)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(&self.conv.forward(x)?)?.f_silu()?)
    }
}

/// The network.
#[derive(Debug)]
pub struct Convolutions {
    stem: Layer,
    down: Layer,
    fine: Layer,
    deeper: Layer,
    deep: Layer,
    whole: Linear,
    up: Conv2d,
    merged: Layer,
    maps: Conv2d,
    style_map: Conv2d,
    rare: Tensor,
    style: Linear,
    background: Linear,
}

impl Convolutions {
    /// Builds it from parameters.
    pub fn new(mut scope: Scope<'_>) -> Result<Self> {
        let maps = CONCEPTS + 4 + COLOURS;
        Ok(Self {
            stem: Layer::new(scope.at("stem"), 3, FIRST, 2)?,
            down: Layer::new(scope.at("down"), FIRST, FINE, 2)?,
            fine: Layer::new(scope.at("fine"), FINE, FINE, 1)?,
            deeper: Layer::new(scope.at("deeper"), FINE, DEEP, 2)?,
            deep: Layer::new(scope.at("deep"), DEEP, DEEP, 1)?,
            whole: Linear::new(scope.at("whole"), DEEP, DEEP)?,
            up: Conv2d::new(scope.at("up"), DEEP, FINE, 1)?,
            merged: Layer::new(scope.at("merged"), FINE, DEEP, 1)?,
            maps: Conv2d::new(scope.at("maps"), DEEP, maps, 1)?,
            style_map: Conv2d::zeroed(scope.at("style_map"), DEEP, STYLES, 1)?,
            rare: Tensor::f_from_slice(&[RARE as f32])?,
            style: Linear::new(scope.at("style"), 2 * DEEP, STYLES)?,
            background: Linear::new(scope.at("background"), 2 * DEEP, COLOURS)?,
        })
    }

    /// # Shapes
    /// `pictures`: [n, 3, 64, 64] in [-1, 1]
    pub fn forward(&self, pictures: &Tensor) -> Result<Output> {
        let x = self.down.forward(&self.stem.forward(&channels_last(pictures)?)?)?;
        let fine = x.f_add(&self.fine.forward(&x)?)?;
        let x = self.deeper.forward(&fine)?;
        let x = x.f_add(&self.deep.forward(&x)?)?;
        let mean = |x: &Tensor| x.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        let whole = self.whole.forward(&mean(&x)?)?;
        let x = x.f_add(&whole.f_unsqueeze(-1)?.f_unsqueeze(-1)?)?.f_silu()?;
        let up = self.up.forward(&x)?.f_upsample_nearest2d([CELLS, CELLS], None, None)?;
        let merged = self.merged.forward(&fine.f_add(&up)?)?;
        let maps = self.maps.forward(&merged)?;
        let features = mean(&merged)?;
        let both = Tensor::f_cat(&[&mean(&x)?, &features], 1)?;
        let part = |start, length| maps.f_narrow(1, start, length);
        Ok(Output {
            heat: part(0, CONCEPTS)?.f_add(&self.rare)?,
            boxes: part(CONCEPTS, 4)?,
            colour: part(CONCEPTS + 4, COLOURS)?,
            styles: self.style_map.forward(&merged)?,
            style: self.style.forward(&both)?,
            background: self.background.forward(&both)?,
            features,
        })
    }
}
