//! Writing named tensors as safetensors.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Device, Kind, TchError, Tensor};

use crate::files::write_atomic_with;
use crate::{Error, Result};

/// Writes `tensors` to `path` with the free texts `metadata` in the header, each tensor in its own kind.
///
/// Readers, and maps of the old file, never see half of the new one: see [`write_atomic_with`].
///
/// # Errors
/// [`Error::WeightsDtype`] for a kind that safetensors cannot hold, [`Error::WriteFile`] for a file that cannot be written.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<()> {
    let mut described = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let kind = tensor.kind();
        let dtype =
            dtype_of(kind).ok_or_else(|| Error::WeightsDtype { path: path.to_owned(), dtype: format!("{kind:?}") })?;
        described.push((dtype, name, tensor));
    }
    // Wide kinds first, so that every tensor is aligned, and then by name, as the crate `safetensors` writes them.
    described.sort_by_key(|&(dtype, name, _)| (Reverse(dtype), name));
    let mut end = 0;
    let infos = described.iter().map(|&(dtype, name, tensor)| {
        let begin = end;
        end += size(tensor);
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        (name.clone(), TensorInfo { dtype, shape, data_offsets: (begin, end) })
    });
    let mut header = Metadata::new(Some(metadata), infos.collect())
        .and_then(|header| Ok(serde_json::to_vec(&header)?))
        .map_err(|source| Error::WeightsFormat { path: path.to_owned(), source })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut failed = None;
    let written = write_atomic_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        // One copy at a time, so that the weights are in memory once.
        for (_, _, tensor) in &described {
            let data = bytes(tensor).map_err(|error| {
                failed = Some(error);
                io::Error::other("a tensor cannot be copied")
            })?;
            file.write_all(&data)?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error.into()),
        None => written,
    }
}

/// The dtype that a kind is stored as.
fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        _ => return None,
    })
}

/// Length of a tensor in bytes.
fn size(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn bytes(tensor: &Tensor) -> std::result::Result<Vec<u8>, TchError> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0_u8; size(&tensor)];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    /// The published crate is the reference: the same bytes.
    #[test]
    fn a_file_is_what_the_safetensors_crate_writes() {
        let cpu = |kind| (kind, Device::Cpu);
        let tensors = [
            ("b", Tensor::arange(6, cpu(Kind::Float)).reshape([2, 3]).transpose(0, 1)),
            ("a", Tensor::from_slice(&[1.5_f32, -2.0])),
            ("steps", Tensor::from_slice(&[7_i64])),
            ("pixels", Tensor::from_slice(&[1_u8, 2, 3])),
            ("half", Tensor::from_slice(&[0.5_f32]).to_kind(Kind::Half)),
            ("brain", Tensor::from_slice(&[0.25_f32]).to_kind(Kind::BFloat16)),
            ("none", Tensor::zeros([0, 4], cpu(Kind::Float))),
            ("scalar", Tensor::from(3.0_f32)),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor));
        let texts = HashMap::from([("text".to_owned(), "un café, 7 €".to_owned())]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        save(&path, &tensors, texts.clone()).unwrap();

        let data = tensors.each_ref().map(|(_, tensor)| bytes(tensor).unwrap());
        let views = tensors.iter().zip(&data).map(|((name, tensor), data)| {
            let shape = tensor.size().iter().map(|&n| n as usize).collect();
            (name, TensorView::new(dtype_of(tensor.kind()).unwrap(), shape, data).unwrap())
        });
        let expected = safetensors::serialize(views, Some(texts)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert_eq!(data[0][..12], [0.0_f32, 3.0, 1.0].map(f32::to_le_bytes).concat());
    }

    #[test]
    fn a_kind_that_no_file_holds_is_named_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let complex = Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu));
        let error = save(&path, &[("z".to_owned(), complex)], HashMap::new()).unwrap_err();
        assert!(matches!(&error, Error::WeightsDtype { dtype, .. } if dtype == "ComplexFloat"), "{error}");
        assert!(!path.exists());
    }
}
