//! Laying out the blocks between the first and the last convolution.

use super::skip::{Concat, Push};
use crate::unet::pass::Block;
use crate::weights::Scope;
use crate::{Error, Result};

/// The blocks of a network while they are laid out: it counts channels and skips.
#[derive(Debug)]
pub struct Trunk<'a> {
    scope: Scope<'a>,
    blocks: Vec<(String, Box<dyn Block>)>,
    channels: i64,
    skips: Vec<i64>,
}

impl<'a> Trunk<'a> {
    /// A trunk without blocks, below `scope`, of maps with `channels` channels.
    #[must_use]
    pub fn new(scope: Scope<'a>, channels: i64) -> Self {
        Self { scope, blocks: Vec::new(), channels, skips: Vec::new() }
    }

    /// The channels that the next block gets.
    #[must_use]
    pub fn channels(&self) -> i64 {
        self.channels
    }

    /// A name that counts the blocks from 0: `3.res`, `4.self_attention`.
    #[must_use]
    pub fn numbered(&self, what: &str) -> String {
        format!("{}.{what}", self.blocks.len())
    }

    /// Adds the block that `build` makes of its scope and its input's channels. It gives maps of `outputs` channels.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn add<B: Block + 'static>(
        &mut self,
        name: String,
        outputs: i64,
        build: impl FnOnce(Scope<'_>, i64) -> Result<B>,
    ) -> Result<()> {
        let block = build(self.scope.at(&name), self.channels)?;
        self.blocks.push((name, Box::new(block)));
        self.channels = outputs;
        Ok(())
    }

    /// Keeps the feature map for the way up.
    pub fn push(&mut self) {
        self.skips.push(self.channels);
        self.blocks.push((String::new(), Box::new(Push)));
    }

    /// Concatenates the feature map that was kept last, times `scale`.
    ///
    /// # Errors
    /// [`Error::Internal`] if none was kept.
    pub fn concat(&mut self, scale: f64) -> Result<()> {
        self.channels += self.skips.pop().ok_or(Error::Internal("a layout concatenates a skip that it lacks"))?;
        self.blocks.push((String::new(), Box::new(Concat { scale })));
        Ok(())
    }

    /// The blocks with their names; those without parameters have an empty one.
    ///
    /// # Errors
    /// [`Error::Internal`] if a skip is left.
    pub fn finish(self) -> Result<Vec<(String, Box<dyn Block>)>> {
        if self.skips.is_empty() {
            Ok(self.blocks)
        } else {
            Err(Error::Internal("a layout does not use a skip that it keeps"))
        }
    }
}
