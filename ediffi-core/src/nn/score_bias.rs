//! The hook through which paint-with-words reaches the scores of attention, and what it gives.

use tch::{Device, TchError, Tensor};

use super::site::Site;
use crate::Result;
use crate::window::Window;

/// Something that pulls parts of the picture towards words: paint-with-words (eDiff-I §4.3).
pub trait ScoreBias: std::fmt::Debug + Send + Sync {
    /// What to add to the scores of the text columns of the conditional rows; `None` leaves the layer on its fast path. A hook that does
    /// not act at `site.sigma`, or does not look at the scores, costs least if it does not ask for them.
    ///
    /// # Errors
    /// Whatever keeps the bias from being made.
    fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>>;

    /// Whether there is an [`energy`](Self::energy) at this noise level. Asking for it takes an evaluation of the network and its gradient.
    fn guides(&self, _sigma: f64) -> bool {
        false
    }

    /// How far what the words do in this layer is from what they shall do, for each conditional row; `None` where nothing is to be said. The
    /// picture is pulled to where the mean of it over all layers is smaller.
    ///
    /// # Shapes
    /// → [conditional rows] f32, computed from [`Site::scores`] so that it has a gradient
    ///
    /// # Errors
    /// Whatever keeps it from being computed.
    fn energy(&self, _site: &Site<'_>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// What a hook adds to the scores of the text columns of the conditional rows.
#[derive(Debug)]
pub enum Bias {
    /// These numbers, of a shape that broadcasts to [`Site::scores`].
    Dense(Tensor),
    /// `weight` · `matrix`. Fused attention computes it as a few more columns of queries and keys, without a mask of the size of the
    /// scores.
    LowRank {
        /// Of a shape that broadcasts to [`Site::scores`], f32; fast if it is the same for all text columns.
        weight: Tensor,
        /// What is multiplied by it.
        matrix: LowRank,
    },
}

impl Bias {
    /// All numbers of it, of a shape that broadcasts to [`Site::scores`].
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn into_dense(self) -> Result<Tensor> {
        match self {
            Self::Dense(bias) => Ok(bias),
            Self::LowRank { weight, matrix } => Ok(weight.f_mul(&matrix.dense)?),
        }
    }
}

/// A matrix of pixels and text columns: the sum over a few regions of mask × tokens. It is prepared once for all layers and steps that
/// see the same regions in a feature map of the same size, and holds pixels · (text columns + regions) numbers.
#[derive(Debug)]
pub struct LowRank {
    /// [pixels, text columns]
    dense: Tensor,
    /// [pixels, width]
    masks: Tensor,
    /// [text columns, width]
    tokens: Tensor,
    width: i64,
}

impl LowRank {
    /// `masks` · `tokens` on `device`.
    ///
    /// # Shapes
    /// `masks`: [pixels, regions] f32, `tokens`: [regions, text columns] f32
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn new(masks: &Tensor, tokens: &Tensor, device: Device) -> std::result::Result<Self, TchError> {
        /// Fused kernels read the numbers of a head eight at a time.
        const WIDTH: i64 = 8;
        let dense = masks.f_matmul(tokens)?.f_to_device(device)?;
        let regions = masks.size2()?.1;
        let more = (regions + WIDTH - 1) / WIDTH * WIDTH - regions;
        let padded = |x: &Tensor| x.f_constant_pad_nd([0, more])?.f_to_device(device);
        Ok(Self { dense, masks: padded(masks)?, tokens: padded(&tokens.f_transpose(0, 1)?)?, width: regions + more })
    }

    /// A copy that shares storage.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        let [dense, masks, tokens] = [&self.dense, &self.masks, &self.tokens].map(Tensor::shallow_clone);
        Self { dense, masks, tokens, width: self.width }
    }

    /// Where it is.
    #[must_use]
    pub fn device(&self) -> Device {
        self.dense.device()
    }

    /// Columns for queries and keys: their product is all numbers of the matrix, [pixels, text columns].
    ///
    /// # Shapes
    /// → [pixels, [`width`](Self::width)] and [text columns, [`width`](Self::width)], f32
    pub(super) fn columns(&self) -> (&Tensor, &Tensor) {
        (&self.masks, &self.tokens)
    }

    /// How many columns queries and keys get: the number of regions, rounded up to a multiple of eight.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// All its numbers, [pixels, text columns].
    pub(super) fn dense(&self) -> &Tensor {
        &self.dense
    }
}

/// Paint-with-words for one evaluation of a network.
#[derive(Debug, Clone, Copy)]
pub struct Painted<'a> {
    /// What biases the scores.
    pub hook: &'a dyn ScoreBias,
    /// Noise level of this evaluation.
    pub sigma: f64,
    /// How many rows, from the first, are conditional. The hook does not see the others.
    pub conditional: i64,
    /// The part of the picture that the network sees.
    pub window: Window,
}
