//! Writing named tensors as safetensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes `tensors` to `path` with the free texts `metadata` in the header, each tensor in its own kind.
///
/// The file is written under a temporary name beside `path` and renamed, so that a reader, or a map of the old file,
/// never sees half of the new one.
///
/// # Errors
/// A kind that safetensors cannot hold, or a file that cannot be written.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        views.push((name.as_str(), bytes(path, tensor)?));
    }
    let temporary = path.with_extension("safetensors.tmp");
    let pairs = views.iter().map(|(name, bytes)| (*name, bytes));
    safetensors::serialize_to_file(pairs, Some(metadata), &temporary)
        .map_err(|source| Error::WeightsFormat { path: path.to_owned(), source })?;
    std::fs::rename(&temporary, path).map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

fn bytes(path: &Path, tensor: &Tensor) -> Result<Bytes> {
    let dtype = match tensor.kind() {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        other => return Err(Error::WeightsDtype { path: path.to_owned(), dtype: format!("{other:?}") }),
    };
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let elements = tensor.numel();
    let mut data = vec![0_u8; elements * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, elements)?;
    Ok(Bytes { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data })
}
