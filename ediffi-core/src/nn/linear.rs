//! y = x Wᵀ + b, and rows of a table.

use tch::{Device, Tensor};

use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// A linear map with an optional bias.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map with a bias. Weights start at variance 1 / `inputs`, the bias at zero.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = scope.weight("weight", &[outputs, inputs], Init::fan_in(inputs))?;
        Ok(Self { weight, bias: Some(scope.weight("bias", &[outputs], Init::Zeros)?) })
    }

    /// As [`new`](Self::new), but the parameters stay in f32 whatever the precision of the network: for the embedding of
    /// the noise level.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn precise(mut scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = scope.weight_f32("weight", &[outputs, inputs], Init::fan_in(inputs))?;
        Ok(Self { weight, bias: Some(scope.weight_f32("bias", &[outputs], Init::Zeros)?) })
    }

    /// As [`new`](Self::new), but all starts at zero, so that a residual branch starts as the identity.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn zeroed(mut scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = scope.weight("weight", &[outputs, inputs], Init::Zeros)?;
        Ok(Self { weight, bias: Some(scope.weight("bias", &[outputs], Init::Zeros)?) })
    }

    /// As [`new`](Self::new), of a file that holds the weight as that of a 1×1 convolution, [outputs, inputs, 1, 1].
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn pointwise(mut scope: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let kernel = scope.weight("weight", &[outputs, inputs, 1, 1], Init::fan_in(inputs))?;
        // A table hands out empty tensors.
        let weight = if kernel.dim() == 4 { kernel.f_flatten(1, -1)? } else { kernel };
        Ok(Self { weight, bias: Some(scope.weight("bias", &[outputs], Init::Zeros)?) })
    }

    /// A map without a bias, starting from `init`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn without_bias(mut scope: Scope<'_>, inputs: i64, outputs: i64, init: Init) -> Result<Self> {
        Ok(Self { weight: scope.weight("weight", &[outputs, inputs], init)?, bias: None })
    }

    /// Maps of one input as one, whose result is theirs beside each other: one product instead of several. It holds a copy of
    /// the parameters, so it is for such as do not change ([`Scope::is_fixed`]).
    ///
    /// # Errors
    /// [`Error::Internal`] if some have a bias and others not, or maps of different inputs.
    pub(crate) fn joined(maps: &[Self]) -> Result<Self> {
        let weights: Vec<&Tensor> = maps.iter().map(|map| &map.weight).collect();
        let biases: Vec<&Tensor> = maps.iter().filter_map(|map| map.bias.as_ref()).collect();
        let bias = match biases.len() {
            0 => None,
            all if all == maps.len() => Some(Tensor::f_cat(&biases, 0)?),
            _ => return Err(Error::Internal("some of the joined maps have no bias")),
        };
        Ok(Self { weight: Tensor::f_cat(&weights, 0)?, bias })
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// Maps the last axis of `x`, in its precision.
    ///
    /// # Shapes
    /// `x`: [..., inputs] → [..., outputs]
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|b| b.f_to_kind(kind)).transpose()?;
        Ok(x.f_linear(&self.weight.f_to_kind(kind)?, bias.as_ref())?)
    }
}

/// A table of rows looked up by id.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// A table of `rows` rows of `width` numbers, which start with standard deviation `std`.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, rows: i64, width: i64, std: f64) -> Result<Self> {
        Ok(Self { weight: scope.weight("weight", &[rows, width], Init::Normal { std })? })
    }

    /// Looks up rows.
    ///
    /// # Shapes
    /// `ids`: [...] i64 → [..., width]
    ///
    /// # Errors
    /// An id outside the table.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.weight, ids, -1, false, false)?)
    }

    /// The whole table, [rows, width].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
