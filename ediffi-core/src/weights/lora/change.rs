//! What a LoRA adds to one weight.

use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use tch::{Kind, Tensor};

use crate::Result;
use crate::weights::stored::StoredFile;

/// What is added to one weight: `factor · up · down`.
#[derive(Debug, Clone)]
pub(in crate::weights) struct Change {
    pub(super) file: Arc<StoredFile>,
    pub(super) up: TensorInfo,
    pub(super) down: TensorInfo,
    pub(super) factor: f64,
}

impl Change {
    /// `weight` with the change.
    ///
    /// # Shapes
    /// weight [outputs, ...] f32 → the same
    pub(in crate::weights) fn apply(&self, weight: &Tensor) -> Result<Tensor> {
        let matrix = |info: &TensorInfo| -> Result<Tensor> {
            let stored = self.file.tensor(info, weight.device(), Some(Kind::Float))?;
            Ok(stored.f_flatten(1, -1)?)
        };
        let added = matrix(&self.up)?.f_matmul(&matrix(&self.down)?)?.f_mul_scalar(self.factor)?;
        Ok(weight.f_add(&added.f_view(&*weight.size())?)?)
    }
}
