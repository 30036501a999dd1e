//! Convolution over feature maps, and their memory order.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use super::packed::{PackedWeight, packs};
use crate::Result;
use crate::runtime::tf32_is_allowed;
use crate::weights::{Init, Lent, Role, Scope};

/// The same feature map with channels innermost in memory, as libtorch's fast convolutions want it. `tch` has no argument
/// for the memory format; permuted strides do the same.
///
/// # Shapes
/// `x`: [n, c, h, w] → the same
///
/// # Errors
/// A tensor that is not four-dimensional.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// A convolution with a square kernel. With stride 1 it keeps the size of the map, a stride divides it.
#[derive(Debug)]
pub struct Conv2d {
    weight: RefCell<Weight>,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    device: Device,
}

/// A weight, [outputs, inputs, kernel, kernel], and how it lies in memory.
#[derive(Debug)]
enum Weight {
    /// As it was given. It may change: it is being trained.
    Plain(Tensor),
    /// As it was given, maybe still in its file. It will not change, so the first call brings it into the order that is fastest on
    /// this machine.
    Fixed(Lent),
    /// With channels innermost. It will not change.
    ChannelsLast(Tensor),
    /// In oneDNN's order. It will not change.
    Packed(PackedWeight),
}

impl Weight {
    /// The weight itself.
    fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(weight) | Self::ChannelsLast(weight) => Ok(weight.shallow_clone()),
            Self::Fixed(lent) => lent.tensor(),
            Self::Packed(packed) => packed.unpacked(),
        }
    }
}

impl Conv2d {
    /// A `kernel` × `kernel` convolution with bias, padded so that it keeps the size. Weights start at variance 1 / fan-in.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::strided(scope, inputs, outputs, kernel, 1)
    }

    /// As [`new`](Self::new), but starting at zero: for the last convolution of a residual branch.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn zeroed(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::with_bias(scope, [outputs, inputs, kernel, kernel], (1, kernel / 2), (Init::Zeros, Role::Kernel))
    }

    /// As [`zeroed`](Self::zeroed), but the parameters stay in f32 whatever the precision of the network: for its last convolution,
    /// whose output is the picture.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn precise(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::with_bias(scope, [outputs, inputs, kernel, kernel], (1, kernel / 2), (Init::Zeros, Role::F32))
    }

    /// As [`new`](Self::new) with a stride.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn strided(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Result<Self> {
        let init = Init::fan_in(inputs * kernel * kernel);
        Self::with_bias(scope, [outputs, inputs, kernel, kernel], (stride, kernel / 2), (init, Role::Kernel))
    }

    /// As [`strided`](Self::strided) without padding: the caller pads.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn unpadded(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Result<Self> {
        let init = Init::fan_in(inputs * kernel * kernel);
        Self::with_bias(scope, [outputs, inputs, kernel, kernel], (stride, 0), (init, Role::Kernel))
    }

    /// Maps each patch of `patch` × `patch` pixels to one position, without bias: the stem of a vision transformer.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn patches(mut scope: Scope<'_>, inputs: i64, outputs: i64, patch: i64) -> Result<Self> {
        let init = Init::fan_in(inputs * patch * patch);
        Self::build(&mut scope, [outputs, inputs, patch, patch], (patch, 0), (init, Role::Kernel))
    }

    /// `steps`: stride and padding.
    fn with_bias(mut scope: Scope<'_>, shape: [i64; 4], steps: (i64, i64), (init, role): (Init, Role)) -> Result<Self> {
        let [outputs, ..] = shape;
        let built = Self::build(&mut scope, shape, steps, (init, role))?;
        let role = if role == Role::Kernel { Role::Weight } else { role };
        Ok(Self { bias: Some(scope.get("bias", &[outputs], Init::Zeros, role)?), ..built })
    }

    /// Without bias.
    fn build(
        scope: &mut Scope<'_>,
        shape: [i64; 4],
        (stride, padding): (i64, i64),
        (init, role): (Init, Role),
    ) -> Result<Self> {
        let (weight, device) = if scope.is_fixed() {
            let lent = scope.lend("weight", &shape, init, role)?;
            let device = lent.device();
            (Weight::Fixed(lent), device)
        } else {
            let weight = scope.get("weight", &shape, init, role)?;
            let device = weight.device();
            (Weight::Plain(weight), device)
        };
        Ok(Self { weight: RefCell::new(weight), bias: None, stride, padding, device })
    }

    /// The convolutions over the first `half` and over the other `half` of the input channels, whose sum this one is; `None` if its
    /// weights may change, or if there are more or fewer channels.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(crate) fn halves(&self, half: i64) -> Result<Option<[Self; 2]>> {
        let weight = match &*self.weight.borrow() {
            Weight::Plain(_) => return Ok(None),
            fixed => fixed.tensor()?,
        };
        if weight.size4()?.1 != 2 * half {
            return Ok(None);
        }
        let &Self { stride, padding, device, .. } = self;
        // The whole is seldom convolved. Held in memory, it does not keep its file open.
        self.weight.replace(Weight::Fixed(weight.shallow_clone().into()));
        let part = |from: i64, bias: Option<&Tensor>| -> Result<Self> {
            let weight = Weight::Fixed(weight.f_narrow(1, from, half)?.f_contiguous()?.into());
            Ok(Self { weight: RefCell::new(weight), bias: bias.map(Tensor::shallow_clone), stride, padding, device })
        };
        Ok(Some([part(0, self.bias.as_ref())?, part(half, None)?]))
    }

    /// Convolves a map, in its precision.
    ///
    /// # Shapes
    /// `x`: [n, inputs, h, w] → [n, outputs, h / stride, w / stride]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|b| b.f_to_kind(kind)).transpose()?;
        self.settle(x)?;
        let weight = self.weight.borrow();
        if let Weight::Packed(packed) = &*weight
            && let Some(y) = packed.forward(x, bias.as_ref(), self.stride, self.padding)?
        {
            return Ok(y);
        }
        let weight = weight.tensor()?.f_to_kind(kind)?;
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        if kind == Kind::Float && matches!(x.device(), Device::Cuda(_)) {
            // `f_conv2d`, but cuDNN may round to TF32 only where that is asked for.
            let (dilation, no_padding, groups) = ([1; 2], [0; 2], 1);
            let (transposed, benchmark, deterministic, cudnn, tf32) = (false, true, false, true, tf32_is_allowed());
            return Ok(x.f_internal_convolution(
                &weight,
                bias.as_ref(),
                stride,
                padding,
                dilation,
                transposed,
                no_padding,
                groups,
                benchmark,
                deterministic,
                cudnn,
                tf32,
            )?);
        }
        Ok(x.f_conv2d(&weight, bias.as_ref(), stride, padding, [1], 1)?)
    }

    /// Brings a weight that will not change into the order that is fastest for maps like `x`: oneDNN's own, or else channels-last.
    fn settle(&self, x: &Tensor) -> Result<()> {
        let settled = match &*self.weight.borrow() {
            Weight::Fixed(lent) => match lent.kind().filter(|&kind| packs(self.device, kind)) {
                Some(kind) if fits(x, kind) => lent.read(|weight| self.packed(weight, x))?,
                // The next call may tell what the maps are like.
                Some(_) => return Ok(()),
                None => Weight::ChannelsLast(lent.read(innermost)?),
            },
            Weight::Packed(packed) if !packed.is_for(x) && fits(x, packed.kind()) => {
                self.packed(&packed.unpacked()?, x)?
            }
            _ => return Ok(()),
        };
        self.weight.replace(settled);
        Ok(())
    }

    /// A copy of `weight`, packed for maps like `x` where oneDNN can.
    fn packed(&self, weight: &Tensor, x: &Tensor) -> Result<Weight> {
        // A map that does not fit is libtorch's error.
        if x.size().get(1) == weight.size().get(1)
            && let Some(packed) = PackedWeight::new(weight, x, self.stride, self.padding)?
        {
            return Ok(Weight::Packed(packed));
        }
        tracing::debug!(shape = ?weight.size(), "the weight of a convolution is not packed");
        Ok(Weight::ChannelsLast(innermost(weight)?))
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }
}

/// Whether a weight of `kind` can be packed for `x`.
fn fits(x: &Tensor, kind: Kind) -> bool {
    x.dim() == 4 && x.numel() > 0 && x.kind() == kind && !x.requires_grad()
}

/// A copy of a weight with channels innermost.
fn innermost(weight: &Tensor) -> Result<Tensor> {
    channels_last(&weight.f_detach_copy()?)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::weights::Fresh;

    type Build = fn(Scope<'_>) -> Result<Conv2d>;

    const LAYERS: [(Build, i64); 5] = [
        (|scope| Conv2d::new(scope, 24, 40, 3), 24),
        (|scope| Conv2d::new(scope, 3, 16, 3), 3),
        (|scope| Conv2d::new(scope, 64, 64, 1), 64),
        (|scope| Conv2d::strided(scope, 16, 32, 3, 2), 16),
        (|scope| Conv2d::patches(scope, 3, 8, 4), 3),
    ];

    /// The same layer with weights that may change, and with weights that will not.
    fn both(build: Build) -> [Conv2d; 2] {
        let mut fresh = Fresh::new(1, Device::Cpu);
        let plain = build(Scope::root(&mut fresh)).unwrap();
        let loaded = build(Scope::root(&mut Fresh::new(1, Device::Cpu).fixed())).unwrap();
        [plain, loaded]
    }

    fn map(channels: i64, height: i64, width: i64) -> Tensor {
        let count = 2 * channels * height * width;
        let waves = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7).sin();
        channels_last(&waves.reshape([2, channels, height, width])).unwrap()
    }

    #[test]
    fn weights_that_will_not_change_give_the_same_maps() {
        for (build, channels) in LAYERS {
            let [plain, loaded] = both(build);
            // The weights are packed for the first size, and used for the others.
            for (height, width) in [(16, 16), (8, 24), (4, 4), (64, 64)] {
                let x = map(channels, height, width);
                let (expected, got) = (plain.forward(&x).unwrap(), loaded.forward(&x).unwrap());
                assert_eq!(got.size(), expected.size());
                let off = (got - &expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
                assert!(off <= 1e-6, "{loaded:?} is off by {off:.1e} at {height}×{width}");
            }
        }
    }

    #[test]
    fn gradients_reach_the_input_through_packed_weights() {
        for (build, channels) in LAYERS {
            let gradients = both(build).map(|layer| {
                let _ = layer.forward(&map(channels, 16, 16)).unwrap();
                let x = map(channels, 16, 16).set_requires_grad(true);
                layer.forward(&x).unwrap().square().sum(Kind::Float).backward();
                x.grad()
            });
            let [expected, got] = &gradients;
            let off = (got - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
            assert!(off <= 1e-6, "off by {off:.1e}");
        }
    }

    /// oneDNN's own errors end on standard error. Here they are libtorch's.
    #[test]
    fn a_map_that_does_not_fit_is_an_error_before_and_after_packing() {
        let [_, loaded] = both(LAYERS[0].0);
        for channels in [7, 24, 7, 24] {
            assert_eq!(loaded.forward(&map(channels, 16, 16)).is_ok(), channels == 24, "{channels}");
        }
        assert!(loaded.forward(&map(24, 16, 16).flatten(0, 1)).is_err());
        let none = loaded.forward(&map(24, 16, 16).narrow(0, 0, 0)).unwrap();
        assert_eq!(none.size(), [0, 40, 16, 16]);
    }

    #[test]
    fn another_precision_than_that_of_the_weights_is_computed_too() {
        let [plain, loaded] = both(LAYERS[0].0);
        let x = map(24, 16, 16);
        let _ = loaded.forward(&x).unwrap();
        let x = x.to_kind(Kind::Double);
        let (expected, got) = (plain.forward(&x).unwrap(), loaded.forward(&x).unwrap());
        assert!((got - expected).abs().max().double_value(&[]) < 1e-12);
    }

    /// Without this, the tests above would compare two plain layers.
    #[test]
    fn weights_are_packed_where_onednn_is() {
        let [plain, loaded] = both(LAYERS[0].0);
        for layer in [&plain, &loaded] {
            let _ = layer.forward(&map(24, 16, 16)).unwrap();
        }
        assert!(matches!(*plain.weight.borrow(), Weight::Plain(_)));
        if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            assert!(matches!(*loaded.weight.borrow(), Weight::Packed(_)));
        }
    }
}
