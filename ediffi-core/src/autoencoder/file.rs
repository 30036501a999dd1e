//! Reading encoder or decoder from a published file, which holds both.

use std::path::Path;

use tch::{Device, Kind};

use super::attention::AttentionWeights;
use super::config::AutoencoderConfig;
use super::decoder::Decoder;
use super::encoder::Encoder;
use crate::Result;
use crate::weights::{Original, Scope, Table, WeightsFile};

impl Encoder {
    /// Reads the encoder of a file that holds an `AutoencoderKL`, under the names of any version of diffusers.
    ///
    /// It computes in [`AutoencoderConfig::precision`] of `kind`.
    ///
    /// # Errors
    /// Those of [`weights::load`](crate::weights::load).
    pub fn load(path: &Path, config: &AutoencoderConfig, device: Device, kind: Kind) -> Result<Self> {
        let kind = config.precision(kind);
        load(WeightsFile::open(path, of_encoder)?, device, kind, |scope, weights| {
            Self::new(scope, config, weights, kind)
        })
    }
}

impl Decoder {
    /// Reads the decoder of a file that holds an `AutoencoderKL`, under the names of any version of diffusers.
    ///
    /// It computes in [`AutoencoderConfig::precision`] of `kind`.
    ///
    /// # Errors
    /// Those of [`weights::load`](crate::weights::load).
    pub fn load(path: &Path, config: &AutoencoderConfig, device: Device, kind: Kind) -> Result<Self> {
        let kind = config.precision(kind);
        load(WeightsFile::open(path, of_decoder)?, device, kind, |scope, weights| {
            Self::new(scope, config, weights, kind)
        })
    }

    /// As [`load`](Self::load), of a checkpoint in the [original layout](crate::weights::Original).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_original(path: &Path, config: &AutoencoderConfig, device: Device, kind: Kind) -> Result<Self> {
        let kind = config.precision(kind);
        let file = WeightsFile::original(path, Original::Autoencoder, of_decoder)?;
        load(file, device, kind, |scope, weights| Self::new(scope, config, weights, kind))
    }

    /// Whether a checkpoint in the original layout holds this decoder whole. No tensor is read.
    ///
    /// # Errors
    /// As [`load_original`](Self::load_original).
    pub fn check_original(path: &Path, config: &AutoencoderConfig) -> Result<()> {
        let build = |scope: Scope<'_>| Self::new(scope, config, AttentionWeights::Matrices, Kind::Float);
        WeightsFile::original(path, Original::Autoencoder, of_decoder)?.check(&Table::of(build)?)
    }
}

fn load<T>(
    file: WeightsFile,
    device: Device,
    kind: Kind,
    build: impl Fn(Scope<'_>, AttentionWeights) -> Result<T>,
) -> Result<T> {
    let convolution = |(name, shape): (&str, &[usize])| name.ends_with("to_q.weight") && shape.len() == 4;
    let weights = match file.shapes().any(convolution) {
        true => AttentionWeights::Convolutions,
        false => AttentionWeights::Matrices,
    };
    file.build(device, kind, |scope| build(scope, weights))
}

fn of_encoder(stored: &str) -> Option<String> {
    let other = stored.starts_with("decoder.") || stored.starts_with("post_quant_conv.");
    (!other).then(|| current(stored))
}

fn of_decoder(stored: &str) -> Option<String> {
    let other = stored.starts_with("encoder.") || stored.starts_with("quant_conv.");
    (!other).then(|| current(stored))
}

/// The name that a tensor has since diffusers 0.18: before, the maps of the attention had names of their own.
fn current(stored: &str) -> String {
    const RENAMED: [(&str, &str); 4] =
        [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    let renamed = RENAMED.iter().find_map(|(old, new)| {
        let (place, parameter) = stored.rsplit_once('.')?;
        let attention = place.strip_suffix(old)?.strip_suffix('.')?;
        attention.ends_with("mid_block.attentions.0").then(|| format!("{attention}.{new}.{parameter}"))
    });
    renamed.unwrap_or_else(|| stored.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_become_the_current_ones_and_halves_are_told_apart() {
        for (old, new) in [
            ("decoder.mid_block.attentions.0.query.weight", "decoder.mid_block.attentions.0.to_q.weight"),
            ("decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
            ("decoder.mid_block.attentions.0.to_q.weight", "decoder.mid_block.attentions.0.to_q.weight"),
            ("decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid_block.attentions.0.group_norm.weight"),
            ("decoder.query.weight", "decoder.query.weight"),
            ("weight", "weight"),
        ] {
            assert_eq!(current(old), new);
        }
        for (name, encoder, decoder) in [
            ("encoder.conv_in.weight", true, false),
            ("quant_conv.bias", true, false),
            ("post_quant_conv.bias", false, true),
            ("decoder.conv_in.weight", false, true),
            ("loss.logvar", true, true),
        ] {
            assert_eq!((of_encoder(name).is_some(), of_decoder(name).is_some()), (encoder, decoder), "{name}");
        }
    }
}
