//! Writing named tensors as safetensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
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
/// The file is written under a temporary name beside `path`, brought to the disk and renamed, so that a reader, a map of the
/// old file, or a machine that loses power never sees half of the new one.
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
    let failed = |source| Error::WriteFile { path: path.to_owned(), source };
    // The crate writes a private file and puts it in the place of this one, whose permissions are the user's usual ones.
    let usual = File::create(&temporary).and_then(|file| file.metadata()).map_err(failed)?.permissions();
    safetensors::serialize_to_file(pairs, Some(metadata), &temporary)
        .map_err(|source| Error::WeightsFormat { path: path.to_owned(), source })?;
    fs::set_permissions(&temporary, usual)
        .and_then(|()| OpenOptions::new().write(true).open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(failed)
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
