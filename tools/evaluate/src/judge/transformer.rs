//! The second judge's network: a small transformer over the cells of the picture (Dosovitskiy et al. 2020, arXiv:2010.11929) behind two
//! convolutions (Xiao et al. 2021, arXiv:2106.14881). It shares no layer and no way to look with the first.

use ediffi_core::Result;
use ediffi_core::nn::{Conv2d, GroupNorm, LayerNorm, Linear, attend, channels_last, merge_heads, split_heads};
use ediffi_core::weights::{Init, Scope};
use tch::{Kind, Tensor};

use super::network::{CELLS, COLOURS, CONCEPTS, FEATURES, Output, RARE, STYLES};

const FIRST: i64 = 32;
const WIDTH: i64 = 96;
const HEADS: i64 = 4;
const BLOCKS: i64 = 4;
const GROUPS: i64 = 8;
const EPS: f64 = 1e-5;
/// Standard deviation that the embeddings of the positions start with.
const POSITIONS: f64 = 0.02;

/// Attention of all cells to each other, and a perceptron, each behind a norm and added.
#[derive(Debug)]
struct Block {
    before_attention: LayerNorm,
    packed: Linear,
    out: Linear,
    before_perceptron: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Block {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        Ok(Self {
            before_attention: LayerNorm::new(scope.at("before_attention"), WIDTH, EPS)?,
            packed: Linear::new(scope.at("packed"), WIDTH, 3 * WIDTH)?,
            out: Linear::zeroed(scope.at("out"), WIDTH, WIDTH)?,
            before_perceptron: LayerNorm::new(scope.at("before_perceptron"), WIDTH, EPS)?,
            wide: Linear::new(scope.at("wide"), WIDTH, 3 * WIDTH)?,
            narrow: Linear::zeroed(scope.at("narrow"), 3 * WIDTH, WIDTH)?,
        })
    }

    /// # Shapes
    /// `x`: [n, cells, width] → the same
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let packed = self.packed.forward(&self.before_attention.forward(x)?)?;
        let part = |number: i64| split_heads(&packed.f_narrow(2, number * WIDTH, WIDTH)?, HEADS);
        let seen = merge_heads(&attend(&part(0)?, &part(1)?, &part(2)?)?)?;
        let x = x.f_add(&self.out.forward(&seen)?)?;
        let wide = self.wide.forward(&self.before_perceptron.forward(&x)?)?.f_silu()?;
        Ok(x.f_add(&self.narrow.forward(&wide)?)?)
    }
}

/// The network.
#[derive(Debug)]
pub struct Transformer {
    stem: Conv2d,
    norm: GroupNorm,
    down: Conv2d,
    positions: Tensor,
    blocks: Vec<Block>,
    last: LayerNorm,
    merged: Linear,
    maps: Linear,
    style_map: Linear,
    rare: Tensor,
    style: Linear,
    background: Linear,
}

impl Transformer {
    /// Builds it from parameters.
    pub fn new(mut scope: Scope<'_>) -> Result<Self> {
        let maps = CONCEPTS + 4 + COLOURS;
        Ok(Self {
            stem: Conv2d::strided(scope.at("stem"), 3, FIRST, 3, 2)?,
            norm: GroupNorm::new(scope.at("norm"), FIRST, GROUPS, EPS)?,
            down: Conv2d::strided(scope.at("down"), FIRST, WIDTH, 3, 2)?,
            positions: scope.weight("positions", &[1, CELLS * CELLS, WIDTH], Init::Normal { std: POSITIONS })?,
            blocks: (0..BLOCKS)
                .map(|number| Block::new(scope.at(&format!("blocks.{number}"))))
                .collect::<Result<_>>()?,
            last: LayerNorm::new(scope.at("last"), WIDTH, EPS)?,
            merged: Linear::new(scope.at("merged"), WIDTH, FEATURES)?,
            maps: Linear::new(scope.at("maps"), FEATURES, maps)?,
            style_map: Linear::zeroed(scope.at("style_map"), FEATURES, STYLES)?,
            rare: Tensor::f_from_slice(&[RARE as f32])?,
            style: Linear::new(scope.at("style"), WIDTH + FEATURES, STYLES)?,
            background: Linear::new(scope.at("background"), WIDTH + FEATURES, COLOURS)?,
        })
    }

    /// # Shapes
    /// `pictures`: [n, 3, 64, 64] in [-1, 1]
    pub fn forward(&self, pictures: &Tensor) -> Result<Output> {
        let x = self.norm.forward(&self.stem.forward(&channels_last(pictures)?)?)?.f_silu()?;
        let x = self.down.forward(&x)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let mut x = x.f_add(&self.positions)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let x = self.last.forward(&x)?;
        let merged = self.merged.forward(&x)?.f_silu()?;
        let rows = x.size3()?.0;
        let map = |cells: &Tensor| cells.f_transpose(1, 2)?.f_reshape([rows, -1, CELLS, CELLS]);
        let maps = map(&self.maps.forward(&merged)?)?;
        let mean = |x: &Tensor| x.f_mean_dim([1_i64].as_slice(), false, Kind::Float);
        let features = mean(&merged)?;
        let both = Tensor::f_cat(&[&mean(&x)?, &features], 1)?;
        let part = |start, length| maps.f_narrow(1, start, length);
        Ok(Output {
            heat: part(0, CONCEPTS)?.f_add(&self.rare)?,
            boxes: part(CONCEPTS, 4)?,
            colour: part(CONCEPTS + 4, COLOURS)?,
            styles: map(&self.style_map.forward(&merged)?)?,
            style: self.style.forward(&both)?,
            background: self.background.forward(&both)?,
            features,
        })
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::weights::Fresh;
    use tch::Device;

    use super::*;

    #[test]
    fn rows_of_a_batch_know_nothing_of_each_other() {
        let network = Transformer::new(Scope::root(&mut Fresh::new(1, Device::Cpu))).unwrap();
        let pictures =
            (Tensor::arange(2 * 3 * 64 * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().reshape([2, 3, 64, 64]);
        let both = network.forward(&pictures).unwrap();
        let alone = network.forward(&pictures.narrow(0, 1, 1)).unwrap();
        assert_eq!(both.heat.size(), [2, CONCEPTS, CELLS, CELLS]);
        assert_eq!((both.styles.size(), both.features.size()), (vec![2, STYLES, CELLS, CELLS], vec![2, FEATURES]));
        assert!((both.heat.narrow(0, 1, 1) - alone.heat).abs().max().double_value(&[]) < 1e-5);
    }
}
