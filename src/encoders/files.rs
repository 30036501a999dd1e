//! The files of a pipeline's encoders: what they are, and whose.

use std::path::PathBuf;
use std::sync::Arc;

use ediffi_core::folders::Identity;
use ediffi_core::weights::{Lora, find};

use super::{EncoderSet, T5Files};
use crate::stable_diffusion::{LatentText, PublishedClip};
use crate::unclip::PublishedVision;
use crate::{Error, Result};

impl EncoderSet {
    /// Which loads nothing that was put in the place of one of these folders.
    pub(crate) fn of(self, folders: Arc<Identity>) -> Self {
        Self { folders: Some(folders), ..self }
    }

    /// What was loaded, if it is of the folders that were opened.
    pub(super) fn own<T, E: Into<Error>>(&self, loaded: std::result::Result<T, E>) -> Result<T> {
        self.same_folders()?;
        loaded.map_err(Into::into)
    }

    /// Whether the model's folders are still those that were opened.
    pub(crate) fn same_folders(&self) -> Result<()> {
        Ok(self.folders.as_ref().map_or(Ok(()), |folders| folders.check())?)
    }

    /// Whether the folders of `other` have the same paths.
    pub(crate) fn same_paths(&self, other: &Self) -> bool {
        self.folders.as_ref().zip(other.folders.as_ref()).is_some_and(|(own, other)| own.same_paths(other))
    }

    /// The files of the encoders' weights.
    pub(crate) fn weights(&self) -> Result<Vec<PathBuf>> {
        let t5 = self.t5.as_ref().map(|t5| match t5 {
            T5Files::Own(folder, _) => Ok(find(folder, None)?),
            T5Files::Published(text, _) => text.weights(),
        });
        let clip = self.clip.as_ref().map(|(folder, _)| Ok(find(folder, None)?));
        let latent = self.latent.iter().flat_map(|latent| &latent.encoders).map(PublishedClip::weights);
        let vision = self.vision.iter().map(PublishedVision::weights);
        t5.into_iter().chain(clip).chain(latent).chain(vision).collect()
    }

    /// What is merged into the encoders' weights, in their order.
    pub(crate) fn loras(&self) -> impl Iterator<Item = &Lora> {
        self.latent.iter().flat_map(|latent| &latent.encoders).flat_map(PublishedClip::loras)
    }

    /// What the folders of Stable Diffusion say of texts, their weights aside; nothing of other models.
    pub(crate) fn readings(&self) -> Option<String> {
        let model = |model: &LatentText| {
            let readings: Vec<_> = model.encoders.iter().map(PublishedClip::reading).collect();
            format!("{:?} {:?} {readings:?}\n", model.zeros, model.told)
        };
        (!self.latent.is_empty()).then(|| self.latent.iter().map(model).collect())
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
