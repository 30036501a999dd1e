//! Weights without a file: random, in the precision of the network.

use ediffi_core::weights::{Init, Params, Role, Spec};
use tch::{Device, Kind, Tensor};

/// Makes each tensor when it is asked for. Nothing is made in f32 that is not held in f32, but a tensor at a time.
#[derive(Debug)]
pub(super) struct Random {
    kind: Kind,
}

impl Random {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind }
    }
}

impl Params for Random {
    fn get(&mut self, spec: &Spec) -> ediffi_core::Result<Tensor> {
        let kind = if spec.role == Role::F32 { Kind::Float } else { self.kind };
        let options = (Kind::Float, Device::Cpu);
        let tensor = match spec.init {
            Init::Ones => Tensor::f_ones(&spec.shape, options)?,
            // A network that is to be trained begins with layers of zeros; one that is trained has none.
            Init::Normal { std } => Tensor::f_randn(&spec.shape, options)?.f_mul_scalar_(std)?,
            _ => Tensor::f_randn(&spec.shape, options)?.f_mul_scalar_(0.01)?,
        };
        let tensor = tensor.f_to_kind(kind)?;
        let convolves = spec.role == Role::Kernel || spec.role == Role::F32 && spec.shape.len() == 4;
        Ok(if convolves { tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])? } else { tensor })
    }

    fn kind(&self) -> Option<Kind> {
        Some(self.kind)
    }

    fn is_fixed(&self) -> bool {
        true
    }
}
