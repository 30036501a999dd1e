//! Convolutions whose weights lie in the order that oneDNN computes in.
//!
//! libtorch's own convolution brings the weights into that order in every call. That costs most where a U-Net has many channels and
//! few positions. Here it is done once. The results agree with libtorch's to rounding.
#![allow(
    unsafe_code,
    reason = "the operation on packed weights is not among those of `tch`: libtorch has it as a C function"
)]

use std::ptr;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::operation::Operations;

/// `mkldnn::_reorder_convolution_weight(weight, padding, stride, dilation 1, groups 1, input size)`: a copy of a dense weight in
/// oneDNN's order; `None` if oneDNN refuses.
fn reorder(operations: &Operations, weight: &Tensor, stride: i64, padding: i64, size: &[i64]) -> Option<Tensor> {
    let arguments = vec![
        operations.tensor(weight)?,
        operations.integers(&[padding; 2])?,
        operations.integers(&[stride; 2])?,
        operations.integers(&[1; 2])?,
        operations.integer(1),
        operations.optional(operations.integers(size)?),
    ];
    // SAFETY: _reorder_convolution_weight(Tensor self, int[2] padding=0, int[2] stride=1, int[2] dilation=1, int groups=1,
    // int[]? input_size=None) -> Tensor
    unsafe { operations.call_for_tensor(c"mkldnn::_reorder_convolution_weight", arguments) }
}

/// The functions, where packed weights can be computed with.
fn operations() -> Option<&'static Operations> {
    Operations::find().filter(|operations| operations.convolution.is_some())
}

/// Whether weights of this kind can be packed on this machine.
pub(super) fn packs(device: Device, kind: Kind) -> bool {
    // As libtorch asks before it computes in bf16 (`mkldnn_bf16_device_check`), processors without AVX-512 aside.
    #[cfg(target_arch = "x86_64")]
    let bf16 = std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    let bf16 = false;
    device == Device::Cpu && (kind == Kind::Float || kind == Kind::BFloat16 && bf16) && operations().is_some()
}

/// The weight of a convolution, packed for maps of one size. The best order depends on it, and a weight in another one would be brought
/// into it in every call, slowly. The number of rows does not matter.
#[derive(Debug)]
pub(super) struct PackedWeight {
    weight: Tensor,
    inputs: i64,
    kernel: i64,
    /// Height and width of the maps.
    sides: (i64, i64),
}

impl PackedWeight {
    /// Packs a copy of a weight for maps like `x`; `None` where oneDNN refuses.
    ///
    /// # Shapes
    /// `weight`: [outputs, inputs, kernel, kernel], `x`: [n, inputs, h, w]
    ///
    /// # Errors
    /// Tensors that are not four-dimensional.
    pub(super) fn new(weight: &Tensor, x: &Tensor, stride: i64, padding: i64) -> Result<Option<Self>> {
        let (_, inputs, kernel, _) = weight.size4()?;
        let (_, _, height, width) = x.size4()?;
        let weight = operations().and_then(|operations| reorder(operations, weight, stride, padding, &x.size()));
        Ok(weight.map(|weight| Self { weight, inputs, kernel, sides: (height, width) }))
    }

    /// The kind of the weight.
    pub(super) fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// Whether it was packed for maps of the size of `x`.
    pub(super) fn is_for(&self, x: &Tensor) -> bool {
        matches!(*x.size().as_slice(), [_, _, height, width] if (height, width) == self.sides)
    }

    /// Convolves `x`; `None` if it does not fit, is of another kind or device than the weight, or needs gradients, which this operation
    /// does not give, or if oneDNN refuses it. libtorch's own operation then computes it, or says what is wrong.
    ///
    /// # Errors
    /// An `x` that is not four-dimensional.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: i64,
    ) -> Result<Option<Tensor>> {
        let (n, channels, height, width) = x.size4()?;
        let reach = self.kernel - 2 * padding;
        let fits = channels == self.inputs && n > 0 && height >= reach && width >= reach && height > 0 && width > 0;
        let same = x.kind() == self.weight.kind() && x.device() == Device::Cpu;
        let same = same && bias.is_none_or(|bias| bias.kind() == x.kind());
        let fits = fits && same && !x.requires_grad();
        let Some(convolution) = operations().filter(|_| fits).and_then(|operations| operations.convolution) else {
            return Ok(None);
        };
        let (padding, stride, dilation) = ([padding; 2], [stride; 2], [1_i64; 2]);
        let bias = bias.map(|bias| bias.as_ptr().cast_mut());
        let mut result = ptr::null_mut();
        // SAFETY: every pointer is to a value that outlives the call. The handles are those of living tensors, which the
        // function does not change. The lists have the lengths that are given with them. Where a list is empty or an option
        // is absent, the declaration asks for a null pointer.
        let failed = unsafe {
            convolution(
                x.as_ptr().cast_mut(),
                self.weight.as_ptr().cast_mut(),
                bias.as_ref().map_or(ptr::null(), ptr::from_ref),
                padding.as_ptr(),
                2,
                stride.as_ptr(),
                2,
                dilation.as_ptr(),
                2,
                1,
                c"none".as_ptr(),
                ptr::null(),
                0,
                ptr::null(),
                &raw mut result,
            )
        };
        if failed != 0 || result.is_null() {
            return Ok(None);
        }
        // SAFETY: the function gives a new `at::Tensor` of its own, which nobody else owns.
        Ok(Some(unsafe { Tensor::from_ptr(result) }))
    }

    /// The weight as it was before it was packed.
    ///
    /// # Errors
    /// Too little memory.
    pub(super) fn unpacked(&self) -> Result<Tensor> {
        Ok(self.weight.f_to_dense(None, false)?)
    }
}
