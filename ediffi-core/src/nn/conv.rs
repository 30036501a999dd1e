//! Convolution over feature maps, and their memory order.

use tch::{Device, Tensor};

use crate::Result;
use crate::weights::{Init, Scope};

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
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// A `kernel` × `kernel` convolution with bias, padded so that it keeps the size. Weights start at variance 1 / fan-in.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::with_init(scope, inputs, outputs, kernel, Init::fan_in(inputs * kernel * kernel))
    }

    /// As [`new`](Self::new), but starting at zero: for the last convolution of a residual branch.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn zeroed(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::with_init(scope, inputs, outputs, kernel, Init::Zeros)
    }

    /// As [`new`](Self::new) with a stride.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn strided(scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Result<Self> {
        Ok(Self { stride, ..Self::new(scope, inputs, outputs, kernel)? })
    }

    /// Maps each patch of `patch` × `patch` pixels to one position, without bias: the stem of a vision transformer.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn patches(mut scope: Scope<'_>, inputs: i64, outputs: i64, patch: i64) -> Result<Self> {
        let init = Init::fan_in(inputs * patch * patch);
        let weight = scope.weight("weight", &[outputs, inputs, patch, patch], init)?;
        Ok(Self { weight, bias: None, stride: patch, padding: 0 })
    }

    fn with_init(mut scope: Scope<'_>, inputs: i64, outputs: i64, kernel: i64, init: Init) -> Result<Self> {
        let weight = scope.weight("weight", &[outputs, inputs, kernel, kernel], init)?;
        let bias = Some(scope.weight("bias", &[outputs], Init::Zeros)?);
        Ok(Self { weight, bias, stride: 1, padding: kernel / 2 })
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
        Ok(x.f_conv2d(&self.weight.f_to_kind(kind)?, bias.as_ref(), [self.stride], [self.padding], [1], 1)?)
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weight.device()
    }
}
