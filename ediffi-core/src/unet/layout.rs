//! A layout: a configuration that builds a network.

use std::fmt::Debug;

use super::context::ContextSource;
use super::io::Io;
use super::parts::{DetailHead, TimeEmbedding};
use super::pass::Block;
use crate::Result;
use crate::nn::{Activation, Conv2d, MapNorm};
use crate::weights::Scope;

/// The dimensions of one kind of U-Net, and how to build it.
///
/// [`UNet::new`](super::UNet::new) builds any layout. The layouts of this library are also variants of
/// [`UNetConfig`](super::UNetConfig), which is what files hold.
pub trait Layout: Debug {
    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that does not fit.
    fn validate(&self) -> Result<()>;

    /// The inputs and outputs of the network.
    fn io(&self) -> Io;

    /// Builds the network from its parameters. The dimensions were [validated](Self::validate).
    ///
    /// # Errors
    /// Parameters that cannot be had.
    fn build(&self, scope: Scope<'_>) -> Result<Body>;
}

/// The parts of a network, in the order of their work.
#[derive(Debug)]
pub struct Body {
    /// What reads the embeddings; `None` of a network that takes none.
    pub context: Option<Box<dyn ContextSource>>,
    /// The embedding of the noise level.
    pub time: TimeEmbedding,
    /// The nonlinearity of the finished noise embedding, pooled conditioning included.
    pub time_activation: Activation,
    /// Side of the square of pixels that one position of the first feature map holds (pixel-unshuffle).
    pub patch: i64,
    /// The first convolution.
    pub stem: Conv2d,
    /// The blocks with their names; blocks without parameters have an empty name.
    pub blocks: Vec<(String, Box<dyn Block>)>,
    /// The last norm.
    pub norm: MapNorm,
    /// The nonlinearity after it.
    pub activation: Activation,
    /// The last convolution. It computes in f32, as the norm before it does ([`Conv2d::precise`]).
    pub out: Conv2d,
    /// What corrects its output pixel by pixel.
    pub detail: Option<DetailHead>,
}
