//! Real-ESRGAN's two networks, both of 3×3 convolutions alone.

use std::collections::BTreeMap;

use ediffi_core::nn::Conv2d;
use ediffi_core::weights::{Init, Scope, WeightsFile};
use ediffi_core::{Result, interrupt};
use tch::Tensor;

/// Names and shapes of tensors.
type Shapes<'a> = BTreeMap<&'a str, Vec<i64>>;

/// Slope of the leaky ReLU, and how much of a branch is added, in ESRGAN (Wang et al. 2018, section 3.1).
const LEAK: f64 = 0.2;

/// What a file says of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimensions {
    /// `SRVGGNetCompact`: convolutions in a row.
    Compact { features: i64, convolutions: usize, scale: i64 },
    /// `RRDBNet`: residual dense blocks; it enlarges four times.
    Dense { features: i64, growth: i64, blocks: usize },
}

impl Dimensions {
    /// Seen from names and shapes.
    pub(super) fn of(file: &WeightsFile) -> Option<Self> {
        let shape = |shape: &[usize]| shape.iter().map(|&side| side as i64).collect();
        let shapes = file.shapes().map(|(name, sides)| (name, shape(sides))).collect();
        Self::compact(&shapes).or_else(|| Self::dense(&shapes))
    }

    fn compact(shapes: &Shapes<'_>) -> Option<Self> {
        let &[features, 3, 3, 3] = shapes.get("body.0.weight")?.as_slice() else { return None };
        // A convolution, then pairs of a nonlinearity and a convolution.
        let last = (0_usize..)
            .map(|i| 2 * i)
            .take_while(|i| shapes.contains_key(format!("body.{i}.weight").as_str()))
            .last()?;
        let outputs = *shapes.get(format!("body.{last}.weight").as_str())?.first()?;
        let scale = (1..=8).find(|scale| 3 * scale * scale == outputs)?;
        Some(Self::Compact { features, convolutions: (last / 2).checked_sub(1)?, scale })
    }

    fn dense(shapes: &Shapes<'_>) -> Option<Self> {
        let &[features, 3, 3, 3] = shapes.get("conv_first.weight")?.as_slice() else { return None };
        let growth = *shapes.get("body.0.rdb1.conv1.weight")?.first()?;
        let blocks = (0..).take_while(|i| shapes.contains_key(format!("body.{i}.rdb1.conv1.weight").as_str())).count();
        Some(Self::Dense { features, growth, blocks })
    }

    pub(super) fn scale(self) -> i64 {
        match self {
            Self::Compact { scale, .. } => scale,
            Self::Dense { .. } => 4,
        }
    }
}

/// A network.
#[derive(Debug)]
pub(super) enum Network {
    Compact { first: Conv2d, rest: Vec<(Tensor, Conv2d)>, scale: i64 },
    Dense { first: Conv2d, body: Vec<[DenseBlock; 3]>, after: Conv2d, up: Box<[Conv2d; 2]>, last: Box<[Conv2d; 2]> },
}

impl Network {
    pub(super) fn new(mut scope: Scope<'_>, dimensions: Dimensions) -> Result<Self> {
        match dimensions {
            Dimensions::Compact { features, convolutions, scale } => {
                let first = Conv2d::new(scope.at("body.0"), 3, features, 3)?;
                let rest = (1..=convolutions + 1).map(|i| {
                    let slope = scope.at(&format!("body.{}", 2 * i - 1)).weight("weight", &[features], Init::Zeros)?;
                    let outputs = if i <= convolutions { features } else { 3 * scale * scale };
                    Ok((slope, Conv2d::new(scope.at(&format!("body.{}", 2 * i)), features, outputs, 3)?))
                });
                let rest = rest.collect::<Result<_>>()?;
                Ok(Self::Compact { first, rest, scale })
            }
            Dimensions::Dense { features, growth, blocks } => {
                let body = (0..blocks).map(|i| {
                    let mut block =
                        |part: usize| DenseBlock::new(scope.at(&format!("body.{i}.rdb{part}")), features, growth);
                    Ok([block(1)?, block(2)?, block(3)?])
                });
                let body = body.collect::<Result<_>>()?;
                let mut conv = |name: &str, outputs| Conv2d::new(scope.at(name), features, outputs, 3);
                Ok(Self::Dense {
                    body,
                    after: conv("conv_body", features)?,
                    up: Box::new([conv("conv_up1", features)?, conv("conv_up2", features)?]),
                    last: Box::new([conv("conv_hr", features)?, conv("conv_last", 3)?]),
                    first: Conv2d::new(scope.at("conv_first"), 3, features, 3)?,
                })
            }
        }
    }

    /// # Shapes
    /// `x`: [n, 3, h, w] in [0, 1] → [n, 3, scale h, scale w]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Compact { first, rest, scale } => {
                let mut h = convolve(first, x)?;
                for (slope, conv) in rest {
                    h = convolve(conv, &h.f_prelu(&slope.f_to_kind(h.kind())?)?)?;
                }
                // What the network adds to the picture with its pixels repeated.
                Ok(h.f_pixel_shuffle(*scale)?.f_add(&repeated(x, *scale)?)?)
            }
            Self::Dense { first, body, after, up, last } => {
                let shallow = convolve(first, x)?;
                let mut h = shallow.shallow_clone();
                for parts in body {
                    let mut inner = h.shallow_clone();
                    for part in parts {
                        inner = part.forward(&inner)?;
                    }
                    h = inner.f_mul_scalar(LEAK)?.f_add(&h)?;
                }
                h = shallow.f_add(&convolve(after, &h)?)?;
                for conv in up.iter() {
                    h = leaky(&convolve(conv, &repeated(&h, 2)?)?)?;
                }
                let [fine, last] = last.as_ref();
                convolve(last, &leaky(&convolve(fine, &h)?)?)
            }
        }
    }
}

/// Five convolutions, each of which sees what all before it gave.
#[derive(Debug)]
pub(super) struct DenseBlock {
    growing: Vec<Conv2d>,
    last: Conv2d,
}

impl DenseBlock {
    fn new(mut scope: Scope<'_>, features: i64, growth: i64) -> Result<Self> {
        let growing = (0..4).map(|i| {
            let name = format!("conv{}", i + 1);
            Conv2d::new(scope.at(&name), features + i * growth, growth, 3)
        });
        let growing = growing.collect::<Result<_>>()?;
        Ok(Self { growing, last: Conv2d::new(scope.at("conv5"), features + 4 * growth, features, 3)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut all = x.shallow_clone();
        for conv in &self.growing {
            all = Tensor::f_cat(&[&all, &leaky(&convolve(conv, &all)?)?], 1)?;
        }
        Ok(convolve(&self.last, &all)?.f_mul_scalar(LEAK)?.f_add(x)?)
    }
}

/// A convolution, unless the thread is to stop: of a large tile the network takes seconds.
fn convolve(conv: &Conv2d, x: &Tensor) -> Result<Tensor> {
    interrupt::check()?;
    conv.forward(x)
}

fn leaky(x: &Tensor) -> Result<Tensor> {
    // `leaky_relu` of tch has the slope 0.01 and no other.
    Ok(x.f_maximum(&x.f_mul_scalar(LEAK)?)?)
}

fn repeated(x: &Tensor, scale: i64) -> Result<Tensor> {
    let (_, _, height, width) = x.size4()?;
    Ok(x.f_upsample_nearest2d([scale * height, scale * width], None, None)?)
}
