//! What a network derives from its conditioning, once for a whole generation.

use std::fmt::Debug;

use tch::{Kind, Tensor};

use super::pass::KeysValues;
use super::stem::LowRes;
use crate::Result;
use crate::conditioning::Conditioning;

/// What one network derives from a [`Conditioning`] before the first step: it does not change while sampling. Only the
/// network that made it takes it.
#[derive(Debug)]
pub struct Context {
    /// The network that made it.
    pub(super) network: u64,
    /// What each block derives from the tokens, in the order of the blocks.
    pub(super) keys_values: Vec<Option<KeysValues>>,
    /// What is added to the noise embedding, [rows, embedding width].
    pub(super) pooled: Option<Tensor>,
    /// The smaller picture.
    pub(super) low_res: Option<LowRes>,
    /// How many of the tokens, from the first, are words.
    pub(super) text_columns: i64,
    /// What is added to the scores of the tokens, [rows, 1, 1, tokens].
    pub(super) mask: Option<Tensor>,
}

impl Context {
    /// The same context for a tile of the picture, in pixels: the part of the smaller picture that lies there, and everything
    /// else as it is, sharing storage.
    ///
    /// # Errors
    /// A tile that reaches outside of the picture.
    pub fn tile(&self, top: i64, left: i64, height: i64, width: i64) -> Result<Self> {
        let cut = |low_res: &LowRes| low_res.tile(top, left, height, width);
        Ok(Self {
            network: self.network,
            keys_values: self.keys_values.iter().map(|kv| kv.as_ref().map(KeysValues::shallow_clone)).collect(),
            pooled: self.pooled.as_ref().map(Tensor::shallow_clone),
            low_res: self.low_res.as_ref().map(cut).transpose()?,
            text_columns: self.text_columns,
            mask: self.mask.as_ref().map(Tensor::shallow_clone),
        })
    }
}

/// The embeddings as a network's blocks read them.
#[derive(Debug)]
pub struct Encoded {
    /// What is added to the noise embedding, [rows, embedding width].
    pub pooled: Option<Tensor>,
    /// What cross-attention reads, [rows, tokens, context width].
    pub tokens: Tensor,
    /// How many of the tokens, from the first, are words: T5's, then CLIP's.
    pub text_columns: i64,
    /// What is added to the scores of the tokens, [rows, 1, 1, tokens], if some of them do not count.
    pub mask: Option<Tensor>,
}

/// The part of a network that reads the embeddings.
pub trait ContextSource: Debug + Send {
    /// Tokens and pooled vector of `rows` pictures, computed in `kind`. [`Io`](super::Io) says which embeddings there can be.
    ///
    /// # Errors
    /// An embedding of another shape than the network takes, or one that it cannot do without.
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded>;
}
