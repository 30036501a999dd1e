//! The files of a pipeline's encoders: what they are, and whose.

use std::path::PathBuf;
use std::sync::Arc;

use ediffi_core::folders::Identity;
use ediffi_core::weights::find;

use super::{EncoderSet, T5Files};
use crate::Result;

impl EncoderSet {
    /// Which loads nothing that was put in the place of this folder.
    pub(crate) fn of(self, folder: Arc<Identity>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// What was loaded, if it is of the model folder that was opened.
    pub(super) fn own<T>(&self, loaded: ediffi_encoders::Result<T>) -> Result<T> {
        self.same_folder()?;
        Ok(loaded?)
    }

    /// Whether the model folder is still the one that was opened.
    pub(crate) fn same_folder(&self) -> Result<()> {
        Ok(self.folder.as_ref().map_or(Ok(()), |folder| folder.check())?)
    }

    /// The files of the encoders' weights.
    pub(crate) fn weights(&self) -> Result<Vec<PathBuf>> {
        let t5 = self.t5.as_ref().map(|t5| match t5 {
            T5Files::Own(folder, _) => Ok(find(folder, None)?),
            T5Files::Published(text, _) => text.weights(),
        });
        let clip = self.clip.as_ref().map(|(folder, _)| Ok(find(folder, None)?));
        let latent =
            self.latent.iter().flat_map(|latent| &latent.encoders).map(crate::stable_diffusion::PublishedClip::weights);
        t5.into_iter().chain(clip).chain(latent).collect()
    }

    /// Whether those of `other` make the same of a text, if their files are the same.
    pub(crate) fn works_as(&self, other: &Self) -> bool {
        let cleans = |set: &Self| match set.t5 {
            Some(T5Files::Published(_, clean)) => Some(clean),
            _ => None,
        };
        let latent =
            |set: &Self| set.latent.iter().map(|latent| (latent.encoders.len(), latent.zeros)).collect::<Vec<_>>();
        latent(self) == latent(other)
            && self.t5_weights == other.t5_weights
            && cleans(self) == cleans(other)
            && self.t5.is_some() == other.t5.is_some()
    }
}
