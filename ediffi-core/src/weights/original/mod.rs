//! Checkpoints of one file in the layout of the original code of Stable Diffusion 1, 2 and XL: which of its tensors are those of a part, and
//! what they are called in diffusers' folders.
//!
//! Nothing is converted on disk: a name leads to the bytes of the file. Three things differ besides names. OpenCLIP has the maps of queries,
//! keys and values in one matrix, of which each is a third; its projection of the pooled text is the other way round; and the maps of the
//! autoencoder's attention are convolutions of one pixel.

mod autoencoder;
mod network;
mod text;
mod view;

use std::path::Path;

pub(in crate::weights) use view::View;

use super::stored::StoredFile;
use crate::{Error, Result};
use view::Named;

/// How the names of a network begin.
const NETWORK: &str = "model.diffusion_model.";

/// A part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Original {
    /// The network that denoises, with the names of diffusers' `unet`.
    Network,
    /// The autoencoder, with the names of diffusers' `vae`.
    Autoencoder,
    /// A text encoder, with the names of transformers' `CLIPTextModel`.
    Text {
        /// Which of the conditioner's embedders it is, from 0; none in Stable Diffusion 1 and 2, which have no conditioner.
        embedder: Option<usize>,
        /// How many layers are read: OpenCLIP's files for Stable Diffusion 2 have one more.
        layers: usize,
    },
}

/// Which model a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginalModel {
    /// Stable Diffusion 1, which reads CLIP.
    First,
    /// Stable Diffusion 2, which reads OpenCLIP.
    Second,
    /// SDXL's base.
    Xl,
    /// SDXL's refiner.
    Refiner,
}

impl Original {
    /// The tensors of this part, as the file and as a folder calls them. OpenCLIP's fused maps stand there three times.
    pub(in crate::weights) fn renamed(self, stored: &[String]) -> Vec<(&str, String, View)> {
        let within = |prefix: &'static str| stored.iter().filter_map(move |name| name.strip_prefix(prefix));
        let (per_level, levels) = match self {
            Self::Network => (network::per_level(within(NETWORK)), 0),
            Self::Autoencoder => (0, autoencoder::levels(within(autoencoder::PREFIX))),
            Self::Text { .. } => (0, 0),
        };
        let named = |name: &str| -> Vec<Named> {
            match self {
                Self::Network => {
                    let own = name.strip_prefix(NETWORK).and_then(|name| network::name(name, per_level));
                    own.map(|name| (name, View::Whole)).into_iter().collect()
                }
                Self::Autoencoder => {
                    let own = name.strip_prefix(autoencoder::PREFIX);
                    own.and_then(|name| autoencoder::named(name, levels)).into_iter().collect()
                }
                Self::Text { embedder, layers } => text::named(name, embedder, layers),
            }
        };
        let all =
            stored.iter().flat_map(|own| named(own).into_iter().map(move |(name, view)| (own.as_str(), name, view)));
        all.collect()
    }
}

impl OriginalModel {
    /// The model of a checkpoint, by its names: those that diffusers' `from_single_file` looks for. Headers are read, no tensor is.
    ///
    /// # Errors
    /// [`Error::WeightsLayout`] for a file that holds none of them whole; those of [`WeightsFile::open`](super::WeightsFile::open).
    pub fn of(path: &Path) -> Result<Self> {
        let file = StoredFile::open(path)?;
        let has = |start: &str| file.infos().any(|(name, _)| name.starts_with(start));
        let wrong = |reason: &str| Err(Error::WeightsLayout { path: path.to_owned(), reason: reason.to_owned() });
        if !has(NETWORK) {
            return wrong(
                "it is no checkpoint of Stable Diffusion 1, 2 or XL: no name begins with `model.diffusion_model.`",
            );
        }
        if !has(autoencoder::PREFIX) {
            return wrong("it has no autoencoder: no name begins with `first_stage_model.`");
        }
        match [has("conditioner.embedders.1."), has("conditioner.embedders.0."), has("cond_stage_model.model.")] {
            [true, ..] => Ok(Self::Xl),
            [false, true, _] => Ok(Self::Refiner),
            [false, false, true] => Ok(Self::Second),
            _ if has("cond_stage_model.transformer.") => Ok(Self::First),
            _ => wrong("it has no text encoder: no name begins with `cond_stage_model.` or `conditioner.embedders.`"),
        }
    }
}

/// What it is, in words.
impl std::fmt::Display for OriginalModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::First => "Stable Diffusion 1",
            Self::Second => "Stable Diffusion 2",
            Self::Xl => "SDXL's base",
            Self::Refiner => "SDXL's refiner",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;

    use super::*;

    /// Every name of the full-size networks, as diffusers 0.42 converts them: see `names.py`.
    #[test]
    fn names_are_those_of_diffusers() {
        let packed = include_bytes!("../../../tests/fixtures/original/names.json.gz");
        let mut json = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut json).unwrap();
        let models: serde_json::Value = serde_json::from_str(&json).unwrap();
        let mut seen = 0;
        for (part, pairs) in models.as_object().unwrap() {
            let original = match part.split_once('.').unwrap().1 {
                "unet" => Original::Network,
                "vae" => Original::Autoencoder,
                "text" => Original::Text { embedder: None, layers: if part.starts_with("v2") { 23 } else { 12 } },
                "text-0" => Original::Text { embedder: Some(0), layers: 32 },
                "text-1" => Original::Text { embedder: Some(1), layers: 32 },
                other => panic!("{other}"),
            };
            let pairs: Vec<(String, Vec<String>)> = serde_json::from_value(pairs.clone()).unwrap();
            let stored: Vec<String> = pairs.iter().map(|(stored, _)| stored.clone()).collect();
            let found: BTreeSet<(String, String)> =
                original.renamed(&stored).into_iter().map(|(stored, name, _)| (stored.to_owned(), name)).collect();
            let expected: BTreeSet<(String, String)> = pairs
                .into_iter()
                .flat_map(|(stored, names)| names.into_iter().map(move |name| (stored.clone(), name)))
                .collect();
            let lost: Vec<_> = expected.difference(&found).take(5).collect();
            let other: Vec<_> = found.difference(&expected).take(5).collect();
            assert!(lost.is_empty() && other.is_empty(), "{part}: {lost:?} {other:?}");
            seen += found.len();
        }
        assert!(seen > 6000, "{seen}");
    }
}
