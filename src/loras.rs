//! The LoRAs of a pipeline: which networks each changes, and whether it fits them.

use ediffi_cascade::ExpertFiles;
use ediffi_core::weights::{Lora, LoraFile, LoraPart};

use crate::{Error, Result};

/// The LoRAs that a builder was given, in the order in which they are merged.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Loras {
    /// Of all experts, or of one by its number, and what is merged.
    given: Vec<(Option<usize>, Lora)>,
}

impl Loras {
    /// Adds one, for all experts or for one.
    pub(crate) fn add(&mut self, expert: Option<usize>, lora: Lora) {
        self.given.push((expert, lora));
    }

    /// Those of the network of the folder `index`, where 0 is the pipeline's own, or of expert `index` of a model folder. `kin`: whether it is of
    /// the family of the first.
    pub(crate) fn of_network(&self, index: usize, kin: bool) -> Vec<Lora> {
        let own = self.given.iter().filter(|(expert, _)| expert.map_or(kin, |expert| expert == index));
        own.map(|(_, lora)| lora.clone()).collect()
    }

    /// Those of the text encoder of this part of the pipeline's own folder. The folder has `encoders` of them.
    ///
    /// # Errors
    /// [`Error::Core`] for a file that cannot be read, or is for an encoder that the folder does not have, or for those of one expert alone.
    pub(crate) fn of_text(&self, encoders: usize) -> Result<Vec<(LoraPart, Vec<Lora>)>> {
        let parts: Vec<LoraPart> = [LoraPart::Text, LoraPart::Text2].into_iter().take(encoders).collect();
        let mut merged: Vec<(LoraPart, Vec<Lora>)> = parts.iter().map(|part| (*part, Vec::new())).collect();
        for (expert, lora) in &self.given {
            let file = LoraFile::open(lora)?;
            let wrong = |reason: &str| {
                let (path, reason) = (file.path().to_owned(), reason.to_owned());
                Err(ediffi_core::Error::Lora { path, reason }.into())
            };
            let changed = file.parts();
            let text = || changed.iter().any(|part| *part != LoraPart::Network);
            if expert.is_some() && text() {
                return wrong(
                    "it changes text encoders, which all experts share: `Lora::network_only` leaves them out, and \
                     `PipelineBuilder::lora` changes all experts",
                );
            }
            if changed.iter().any(|part| *part != LoraPart::Network && !parts.contains(part)) {
                return wrong("it was made for another base: it changes a second text encoder, and the folder has one");
            }
            let own = merged.iter_mut().filter(|(part, _)| changed.contains(part));
            own.for_each(|(_, loras)| loras.push(lora.clone()));
        }
        Ok(merged)
    }

    /// Whether every LoRA of one expert has that expert, and fits its network and all others'. Headers are read, no tensor is.
    pub(crate) fn check(&self, experts: usize, files: &[ExpertFiles]) -> Result<()> {
        let beyond = self.given.iter().filter_map(|(expert, _)| *expert).find(|expert| *expert >= experts);
        if let Some(index) = beyond {
            return Err(ediffi_core::Error::NoSuchExpert { index, experts }.into());
        }
        files.iter().filter(|files| !files.loras.is_empty()).try_for_each(|files| Ok(files.open().map(drop)?))
    }

    /// Refuses them on a model that takes none.
    pub(crate) fn refuse(&self) -> Result<()> {
        if self.given.is_empty() {
            return Ok(());
        }
        Err(Error::IdleOption { option: "lora", reason: "published folders of DeepFloyd IF take none" })
    }

    /// Refuses those that change text encoders, on a model whose encoders are none of Stable Diffusion.
    pub(crate) fn refuse_text(&self) -> Result<()> {
        for (_, lora) in &self.given {
            let file = LoraFile::open(lora)?;
            if file.parts().iter().any(|part| *part != LoraPart::Network) {
                let reason = "it was made for another base: it changes text encoders of Stable Diffusion, which the model does not \
                              have (`Lora::network_only` leaves them out)";
                return Err(ediffi_core::Error::Lora { path: file.path().to_owned(), reason: reason.to_owned() }.into());
            }
        }
        Ok(())
    }

    /// Their files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &std::path::Path> {
        self.given.iter().map(|(_, lora)| lora.path())
    }
}
