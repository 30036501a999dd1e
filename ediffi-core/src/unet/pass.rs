//! One evaluation of a network: what its blocks share.

use std::fmt::Debug;

use tch::Tensor;

use crate::nn::Painted;
use crate::{Error, Result};

/// Keys and values of the conditioning tokens in one attention layer, each [rows, heads, tokens, d].
#[derive(Debug)]
pub struct KeysValues {
    /// Keys.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

impl KeysValues {
    /// A copy that shares storage.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self { keys: self.keys.shallow_clone(), values: self.values.shallow_clone() }
    }
}

/// What the blocks of one evaluation share.
#[derive(Debug)]
pub struct Pass<'a> {
    /// The noise embedding after its nonlinearity, [rows, embedding width].
    pub embedding: &'a Tensor,
    /// How many of the tokens, from the first, are words.
    pub text_columns: i64,
    /// Paint-with-words.
    pub painted: Option<Painted<'a>>,
    /// What is added to the scores of the conditioning tokens, [rows, 1, 1, tokens], if some of them do not count.
    pub mask: Option<&'a Tensor>,
    pub(super) keys_values: Option<&'a KeysValues>,
    skips: Vec<Tensor>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(embedding: &'a Tensor, text_columns: i64, painted: Option<Painted<'a>>) -> Self {
        Self { embedding, text_columns, painted, mask: None, keys_values: None, skips: Vec::new() }
    }

    /// What the block that runs gave out of [`Block::prepare`].
    ///
    /// # Errors
    /// [`Error::Internal`] if that was nothing.
    pub fn keys_values(&self) -> Result<&'a KeysValues> {
        self.keys_values.ok_or(Error::Internal("an attention layer has no keys and values"))
    }

    /// Keeps a feature map for the way up.
    pub fn push(&mut self, h: &Tensor) {
        self.skips.push(h.shallow_clone());
    }

    /// Takes back the feature map that was kept last.
    ///
    /// # Errors
    /// [`Error::Internal`] if there is none.
    pub fn pop(&mut self) -> Result<Tensor> {
        self.skips.pop().ok_or(Error::Internal("the way up of a network has no skip left"))
    }
}

/// One block of a network.
pub trait Block: Debug + Send {
    /// What the block derives from the conditioning tokens, once for a whole generation.
    ///
    /// # Shapes
    /// `tokens`: [rows, tokens, context width]
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn prepare(&self, _tokens: &Tensor) -> Result<Option<KeysValues>> {
        Ok(None)
    }

    /// The block's output for the feature map `h`.
    ///
    /// # Shapes
    /// `h`: [rows, channels, height, width]
    ///
    /// # Errors
    /// Shapes that do not fit, and errors of the paint hook.
    fn forward(&self, h: Tensor, pass: &mut Pass<'_>) -> Result<Tensor>;
}
