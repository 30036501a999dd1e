//! Safetensors files mapped into memory, and tensors copied out of the map.
#![allow(unsafe_code, reason = "mapping a file and viewing its bytes as a tensor are foreign calls")]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// One safetensors file: its header, and its bytes mapped.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    data_start: usize,
}

impl MappedFile {
    /// Maps `path` and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::ReadFile { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and lives as long as `self`. A file cut short by another process while it is
        // mapped could fault; weights are written under a temporary name and renamed, so a finished file is not cut.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|source| {
            let path = path.to_owned();
            if is_pointer(&path) { Error::WeightsPointer(path) } else { Error::WeightsFormat { path, source } }
        })?;
        // Eight bytes of length stand before the header.
        Ok(Self { path: path.to_owned(), data_start: header + 8, map, metadata })
    }

    /// Name and description of every tensor.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        self.metadata.tensors().into_iter()
    }

    /// Free text stored in the header.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Copies one tensor, once, to `device` in `kind`, or in the kind it is stored in.
    pub(crate) fn tensor(&self, info: &TensorInfo, device: Device, kind: Option<Kind>) -> Result<Tensor> {
        self.view(info, |view| {
            let kind = kind.unwrap_or(view.kind());
            let mut target = Tensor::f_empty(view.size(), (kind, device))?;
            target.f_copy_(view)?;
            Ok(target)
        })
    }

    /// What `read` makes of one tensor, on the CPU in the kind it is stored in. It keeps nothing that shares storage with it.
    pub(crate) fn view<T>(&self, info: &TensorInfo, read: impl FnOnce(&Tensor) -> Result<T>) -> Result<T> {
        let stored = kind_of(info.dtype)
            .ok_or_else(|| Error::WeightsDtype { path: self.path.clone(), dtype: format!("{:?}", info.dtype) })?;
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let bytes = self.bytes(info)?;
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(stored.elt_size_in_bytes());
        let view = if bytes.is_empty() {
            Tensor::f_empty(&shape, (stored, Device::Cpu))?
        } else if aligned {
            let mut strides = vec![1_i64; shape.len()];
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis] * shape[axis];
            }
            // SAFETY: the bytes are as long as shape and kind say (the header was checked when it was read) and aligned. They
            // outlive the view: it is dropped at the end of this function, and `read` keeps nothing of it.
            unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &strides, stored, Device::Cpu)? }
        } else {
            Tensor::f_from_data_size(bytes, &shape, stored)?
        };
        let made = read(&view)?;
        self.forget(info);
        Ok(made)
    }

    /// The stored bytes of one tensor.
    pub(crate) fn bytes(&self, info: &TensorInfo) -> Result<&[u8]> {
        let (begin, end) = info.data_offsets;
        self.map
            .get(self.data_start + begin..self.data_start + end)
            .ok_or_else(|| Error::WeightsTruncated(self.path.clone()))
    }

    /// Gives the memory of a tensor's pages back, so that the whole file and its copies are never in memory together. The
    /// kernel keeps the pages as cache while it has room.
    pub(crate) fn forget(&self, info: &TensorInfo) {
        #[cfg(unix)]
        {
            let (begin, end) = info.data_offsets;
            // SAFETY: the map is of a file and never written to: a page that is read again is read from the file again.
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.data_start + begin,
                    end - begin,
                )
            };
            if let Err(error) = advised {
                tracing::debug!(file = %self.path.display(), %error, "the pages of a tensor stay in memory");
            }
        }
        #[cfg(not(unix))]
        let _ = info;
    }
}

/// The kind of a stored dtype that weights come in.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// How a pointer of git-lfs begins.
const POINTER: &[u8] = b"version https://git-lfs";

/// Whether a file is a pointer of git-lfs: what a clone without git-lfs has in place of the file.
pub(super) fn is_pointer(path: &Path) -> bool {
    let mut start = [0; POINTER.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == POINTER
}
