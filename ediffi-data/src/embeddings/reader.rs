//! Reading embeddings.

use std::path::Path;
use std::sync::Arc;

use tch::Tensor;

use super::manifest::{Kept, manifest, shard};
use super::stored::Stored;
use crate::{Error, Result};

/// Kept embeddings, of which rows are read by the numbers of samples. In memory is where they lie, not they. Clones share it.
#[derive(Debug, Clone)]
pub struct Embeddings {
    kept: Arc<Kept>,
    shards: Arc<[Stored]>,
}

impl Embeddings {
    /// Opens the embeddings of these data by this encoder, which [`Kept::data`] and [`Kept::encoder`] are compared with.
    ///
    /// # Errors
    /// [`Error::OtherEmbeddings`] with what differs; [`Error::Embeddings`] for shards that are missing, damaged or unlike;
    /// [`Error::File`] and [`Error::Core`] for files that cannot be read.
    pub fn open(folder: &Path, data: &str, encoder: &str) -> Result<Self> {
        let kept = Kept::read(folder)?;
        kept.expect(&manifest(folder), data, encoder)?;
        let mut shards: Vec<Stored> = Vec::new();
        for number in 0..kept.shards() {
            let path = shard(folder, number);
            if !path.exists() {
                let samples = kept.samples_of(number);
                let reason = format!("it is missing: samples {samples:?} have not been encoded yet");
                return Err(Error::Embeddings { path, reason });
            }
            let stored = Stored::open(&path, number, &kept)?;
            if shards.first().is_some_and(|first| !first.is_like(&stored)) {
                let reason = "its tensors have other names, kinds or sizes than those of the first shard".to_owned();
                return Err(Error::Embeddings { path, reason });
            }
            shards.push(stored);
        }
        Ok(Self { kept: Arc::new(kept), shards: shards.into() })
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.samples
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the tensors of each sample, in the order of the alphabet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.first().into_iter().flat_map(Stored::names)
    }

    /// The tensor `name` of sample `index`, in the kind it is stored in, on the CPU.
    ///
    /// # Shapes
    /// As it was written, such as `[tokens, width]`, or `[width]`.
    ///
    /// # Errors
    /// [`Error::Number`], [`Error::Embeddings`] for a name that they do not have and for a file that was changed, [`Error::File`].
    pub fn tensor(&self, name: &str, index: usize) -> Result<Tensor> {
        let missing = Error::Number { index, len: self.len() };
        if index >= self.len() {
            return Err(missing);
        }
        self.shards.get(index / self.kept.rows).ok_or(missing)?.tensor(name, index % self.kept.rows)
    }

    /// All tensors of sample `index`, with their names in the order of the alphabet.
    ///
    /// # Errors
    /// As [`Embeddings::tensor`].
    pub fn row(&self, index: usize) -> Result<Vec<(String, Tensor)>> {
        self.names().map(|name| Ok((name.to_owned(), self.tensor(name, index)?))).collect()
    }
}
