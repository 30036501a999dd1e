//! Queries, keys and values of the pixels.

use tch::Tensor;

use crate::Result;
use crate::nn::{Linear, chunks};
use crate::weights::Scope;

/// What an attention layer makes of the pixels. Files hold a map for each.
#[derive(Debug)]
pub(super) enum Pixels {
    /// Queries: the layer sees the text alone.
    Q(Linear),
    /// Queries, keys and values, whose maps may change: they are being trained.
    Apart([Linear; 3]),
    /// The same in one map, made of maps that do not change.
    Joined(Linear),
}

impl Pixels {
    /// Of `width` channels; `map` builds each of the maps `to_q`, `to_k` and `to_v` from its scope and its two widths.
    pub(super) fn new(
        mut scope: Scope<'_>,
        width: i64,
        see_pixels: bool,
        map: impl Fn(Scope<'_>, i64, i64) -> Result<Linear>,
    ) -> Result<Self> {
        let is_fixed = scope.is_fixed();
        let mut map = |name: &str| map(scope.at(name), width, width);
        if !see_pixels {
            return Ok(Self::Q(map("to_q")?));
        }
        let maps = [map("to_q")?, map("to_k")?, map("to_v")?];
        // The three are dropped before the next layer is read.
        Ok(if is_fixed { Self::Joined(Linear::joined(&maps)?) } else { Self::Apart(maps) })
    }

    /// Queries, and keys and values if the layer sees the pixels.
    ///
    /// # Shapes
    /// `pixels`: [n, pixels, width] → the same each
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<(Tensor, Option<[Tensor; 2]>)> {
        let [q, k, v] = match self {
            Self::Q(q) => return Ok((q.forward(pixels)?, None)),
            Self::Apart([q, k, v]) => [q.forward(pixels)?, k.forward(pixels)?, v.forward(pixels)?],
            Self::Joined(qkv) => chunks(&qkv.forward(pixels)?, -1)?,
        };
        Ok((q, Some([k, v])))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::weights::Fresh;

    #[test]
    fn maps_that_do_not_change_are_joined_and_give_the_same() {
        const WIDTH: i64 = 32;
        let pixels = (Tensor::arange(2 * 12 * WIDTH, (Kind::Float, Device::Cpu)) * 1.7).sin().view([2, 12, WIDTH]);
        for see_pixels in [true, false] {
            let apart =
                Pixels::new(Scope::root(&mut Fresh::new(1, Device::Cpu)), WIDTH, see_pixels, Linear::new).unwrap();
            let joined =
                Pixels::new(Scope::root(&mut Fresh::new(1, Device::Cpu).fixed()), WIDTH, see_pixels, Linear::new)
                    .unwrap();
            assert_eq!(matches!(apart, Pixels::Apart(_)), see_pixels);
            assert_eq!(matches!(joined, Pixels::Joined(_)), see_pixels);
            let [(q, own), (q_joined, own_joined)] = [&apart, &joined].map(|maps| maps.forward(&pixels).unwrap());
            assert!(q.allclose(&q_joined, 1e-5, 1e-6, false));
            assert_eq!((own.is_some(), own_joined.is_some()), (see_pixels, see_pixels));
            for (a, b) in own.into_iter().flatten().zip(own_joined.into_iter().flatten()) {
                assert!(a.allclose(&b, 1e-5, 1e-6, false) && !a.allclose(&q, 1e-1, 1e-1, false));
            }
        }
    }
}
