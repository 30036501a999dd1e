//! A checkpoint of one file: the weights of a whole model in the layout of the original code, without configurations and tokenizers.

use std::path::{Path, PathBuf};

use ediffi_core::autoencoder::{AutoencoderConfig, Decoder};
use ediffi_core::unet::{StableDiffusion, UNet, UNetConfig};
use ediffi_core::weights::{Original, OriginalModel, Scope, Table, WeightsFile};
use tch::Kind;

use super::index::{Folder, Model};
use crate::Result;
use crate::published::{is_published, unusable};

/// The folder among `likes` of a model like that of the checkpoint, and which model that is.
///
/// # Errors
/// [`Error::Published`](crate::Error::Published) for a file that is no such checkpoint, and for one whose model none of the folders has.
pub(super) fn like(file: &Path, likes: &[&Path]) -> Result<(PathBuf, OriginalModel)> {
    if file.extension().is_none_or(|extension| extension != "safetensors") {
        let reason =
            "it is no safetensors file: others, such as `.ckpt`, are pickles, which can run programs, and are not read";
        return Err(unusable(file, reason));
    }
    let model = OriginalModel::of(file)?;
    let mut others = Vec::new();
    for folder in likes.iter().filter(|folder| is_published(folder)) {
        let own = kind(folder)?;
        if own == Some(model) {
            return Ok((folder.to_path_buf(), model));
        }
        others.extend(own.map(|own| format!("{} holds {own}", folder.display())));
    }
    let others = if others.is_empty() { String::new() } else { format!("; {}", others.join(", ")) };
    let reason = format!(
        "it is a checkpoint of {model}, which has weights and nothing else: `PipelineBuilder::like`, or --like, takes a folder of {model} or \
         of a fine-tune, whose configurations and tokenizers are read, and whose weights need not be there{others}"
    );
    Err(unusable(file, reason))
}

/// Which model a folder holds. The two early ones read texts of different widths.
fn kind(folder: &Path) -> Result<Option<OriginalModel>> {
    Ok(match Folder::read(folder)?.model {
        Model::Xl => Some(OriginalModel::Xl),
        Model::Refiner => Some(OriginalModel::Refiner),
        Model::Early => {
            let encoder = folder.join("text_encoder");
            // The first has OpenAI's encoder, whose activation is another than OpenCLIP's.
            let config = ediffi_encoders::ClipText::read_config(&encoder).map_err(crate::Error::of_config)?.0;
            let first = config.hidden_act == ediffi_core::nn::Activation::QuickGelu;
            Some(if first { OriginalModel::First } else { OriginalModel::Second })
        }
    })
}

/// Whether a checkpoint holds this network and the decoder of this autoencoder whole. No tensor is read.
///
/// # Errors
/// [`Error::Core`](crate::Error::Core) with everything that is missing or has another shape.
pub(super) fn check(file: &Path, network: &StableDiffusion, autoencoder: &AutoencoderConfig) -> Result<()> {
    let config = UNetConfig::from(network.clone());
    let table = Table::of(|scope: Scope<'_>| UNet::new(scope, &config, Kind::Float))?;
    WeightsFile::original(file, Original::Network, |name| Some(name.to_owned()))?.check(&table)?;
    Ok(Decoder::check_original(file, autoencoder)?)
}
