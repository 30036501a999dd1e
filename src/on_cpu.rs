//! Embeddings wait on the CPU, in f32.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// A copy of a tensor there.
pub(crate) fn to_cpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?)
}
