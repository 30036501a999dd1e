//! A parameter that still lies where it came from.

use std::fmt;
use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use tch::{Device, Kind, Tensor};

use super::stored::StoredFile;
use crate::Result;

/// A tensor that can be read when its layer knows what to make of it. One of a file keeps the file open until then.
pub struct Lent(Source);

enum Source {
    Tensor(Tensor),
    /// The tensor as it is stored, on the CPU.
    File(Arc<StoredFile>, TensorInfo),
}

impl Lent {
    /// A tensor of a file, in the kind it is stored in, on the CPU.
    pub(super) fn of_file(file: &Arc<StoredFile>, info: &TensorInfo) -> Self {
        Self(Source::File(Arc::clone(file), info.clone()))
    }

    /// What `read` makes of the tensor.
    ///
    /// # Errors
    /// A file that is cut short, and those of `read`.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tensor) -> Result<T>) -> Result<T> {
        match &self.0 {
            Source::Tensor(tensor) => read(tensor),
            Source::File(file, info) => read(&file.tensor(info, Device::Cpu, None)?),
        }
    }

    /// A copy of the tensor, or the tensor itself where it is in memory already.
    ///
    /// # Errors
    /// A file that is cut short.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Source::Tensor(tensor) => Ok(tensor.shallow_clone()),
            Source::File(file, info) => file.tensor(info, Device::Cpu, None),
        }
    }

    /// Where the tensor is.
    #[must_use]
    pub fn device(&self) -> Device {
        match &self.0 {
            Source::Tensor(tensor) => tensor.device(),
            Source::File(..) => Device::Cpu,
        }
    }

    /// Its kind; `None` for one of a file that libtorch has no kind for.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match &self.0 {
            Source::Tensor(tensor) => Some(tensor.kind()),
            Source::File(_, info) => super::stored::kind_of(info.dtype),
        }
    }
}

impl From<Tensor> for Lent {
    fn from(tensor: Tensor) -> Self {
        Self(Source::Tensor(tensor))
    }
}

/// The tensor's own form would print its values.
impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Tensor(tensor) => write!(f, "{:?}", tensor.size()),
            Source::File(_, info) => write!(f, "{:?} of a file", info.shape),
        }
    }
}
