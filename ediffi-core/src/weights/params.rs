//! Named parameters: how a layer asks for its tensors.
//!
//! One function over a [`Scope`] builds a network. The same function reads a published file (`Loader`), lists the
//! parameters of a network ([`Table`](crate::weights::Table)) and makes a network to be trained
//! ([`Fresh`](crate::weights::Fresh)). So names and shapes are written once.

use tch::{Kind, Tensor};

use super::lent::Lent;
use crate::Result;

/// Maps a name in a file to the name that the network uses; `None` for a tensor that the network has no use for.
pub type Names = fn(&str) -> Option<String>;

/// The start value of a parameter that is not read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// All zeros: biases, and the last layer of a residual branch, so that it starts as the identity.
    Zeros,
    /// All ones: the gains of norms.
    Ones,
    /// Normal with this standard deviation.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

impl Init {
    /// Normal with variance 1 / `fan_in`: a linear map then keeps the scale of its input (LeCun et al. 1998).
    #[must_use]
    pub fn fan_in(fan_in: i64) -> Self {
        Self::Normal { std: (1.0 / fan_in.max(1) as f64).sqrt() }
    }
}

/// What a parameter is for: in which precision and in which memory order it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In the precision of the network.
    Weight,
    /// In the precision of the network: the weight of a convolution, [outputs, inputs, height, width]. New ones are channels-last in
    /// memory, as libtorch's convolutions of channels-last maps want them in every call, and as they give their gradients.
    Kernel,
    /// In f32, whatever the precision of the network: parameters of norms, of the noise embedding and of the last convolution.
    F32,
    /// In the precision of the file. The layer brings it into one of its own.
    Stored,
}

/// One parameter as a layer asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Full dotted name, as in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// Its start value.
    pub init: Init,
    /// What it is for.
    pub role: Role,
}

impl Spec {
    /// Number of elements; `i64::MAX` if there are more than that, as in a network that no file can hold.
    #[must_use]
    pub fn elements(&self) -> i64 {
        self.shape.iter().fold(1, |elements, side| elements.saturating_mul(*side))
    }
}

/// Provides named tensors.
pub trait Params {
    /// Returns the tensor that `spec` describes.
    ///
    /// # Errors
    /// The tensor is missing, has another shape or cannot be read.
    fn get(&mut self, spec: &Spec) -> Result<Tensor>;

    /// As [`get`](Self::get), but nothing is copied yet: for a layer that keeps the tensor in an order of its own.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn lend(&mut self, spec: &Spec) -> Result<Lent> {
        Ok(Lent::from(self.get(spec)?))
    }

    /// The kind that weights are given in, where there is but one.
    fn kind(&self) -> Option<Kind> {
        None
    }

    /// Whether the tensors stay as they are for as long as the network lives. A layer may then keep them in another order.
    fn is_fixed(&self) -> bool {
        false
    }
}

/// A place in the tree of parameter names, from which a layer takes its parameters.
pub struct Scope<'a> {
    params: &'a mut dyn Params,
    prefix: String,
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<'a> Scope<'a> {
    /// The root of the names of `params`.
    pub fn root(params: &'a mut dyn Params) -> Self {
        Self { params, prefix: String::new() }
    }

    /// The scope below `name`, which may contain dots.
    pub fn at(&mut self, name: &str) -> Scope<'_> {
        let prefix = self.full(name);
        Scope { params: self.params, prefix }
    }

    /// The same place once more, for a second network whose names begin here.
    pub fn again(&mut self) -> Scope<'_> {
        Scope { params: self.params, prefix: self.prefix.clone() }
    }

    /// As [`Params::is_fixed`].
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.params.is_fixed()
    }

    /// A weight, in the precision of the network.
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn weight(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.get(name, shape, init, Role::Weight)
    }

    /// A weight that stays in f32, whatever the precision of the network: of a norm or of the noise embedding.
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn weight_f32(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.get(name, shape, init, Role::F32)
    }

    /// A parameter that the layer reads when it knows what order is best.
    ///
    /// # Errors
    /// As [`Params::lend`].
    pub fn lend(&mut self, name: &str, shape: &[i64], init: Init, role: Role) -> Result<Lent> {
        let spec = Spec { name: self.full(name), shape: shape.to_vec(), init, role };
        self.params.lend(&spec)
    }

    /// A parameter.
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn get(&mut self, name: &str, shape: &[i64], init: Init, role: Role) -> Result<Tensor> {
        let spec = Spec { name: self.full(name), shape: shape.to_vec(), init, role };
        self.params.get(&spec)
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
