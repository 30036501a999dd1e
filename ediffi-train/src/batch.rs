//! Batches: what a step of a training sees.

use tch::Tensor;

/// Where batches come from.
///
/// A function from a number to a batch is one, too.
pub trait BatchSource: Send + 'static {
    /// What one step of a learner takes, such as a [`Batch`].
    type Batch: Send + 'static;
    /// Why a batch cannot be made.
    type Error: Send + 'static;

    /// Batch `number`, from 0. The same number gives the same batch, always: a run that is resumed then sees what an unbroken
    /// one would have seen.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn batch(&self, number: u64) -> Result<Self::Batch, Self::Error>;
}

impl<F, B, E> BatchSource for F
where
    F: Fn(u64) -> Result<B, E> + Send + 'static,
    B: Send + 'static,
    E: Send + 'static,
{
    type Batch = B;
    type Error = E;

    fn batch(&self, number: u64) -> Result<B, E> {
        self(number)
    }
}

/// Some pictures and what is said of them, `T`: captions, or embeddings of them
/// ([`Conditioning`](ediffi_core::conditioning::Conditioning)).
#[derive(Debug)]
pub struct Batch<T> {
    /// Whole pictures, or crops of larger ones: [n, channels, h, w] in [-1, 1].
    pub pictures: Tensor,
    /// For super-resolution, the same parts of the pictures before they were enlarged k times: [n, channels, h / k, w / k] in
    /// [-1, 1]. `None` for a base.
    pub smaller: Option<Tensor>,
    /// What is said of each picture.
    pub text: T,
}
