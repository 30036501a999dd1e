//! Networks of several systems at their published size, which `docs/alternatives.md` compares.

use std::path::Path;

use ediffi_core::unet::{
    Adm, Efficient, Layout, PublishedStableDiffusion, PublishedUNet, PublishedUnClip, UNet, UNetConfig,
};
use ediffi_core::weights::Table;
use tch::Kind;

use crate::job::Case;
use crate::result::Result;

/// Where configurations are written, a folder for each network.
pub(crate) const CONFIGS: &str = ".bench/configs";
/// How the rows of these networks begin.
pub(crate) const PREFIX: &str = "alternatives-";
/// Tokens of the text that Karlo's decoder reads.
const KARLO_TOKENS: i64 = 77;

/// A network, and what one evaluation of it is given for one picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    /// Two where guidance needs the answer without the text.
    pub(crate) rows: i64,
    /// Side of the picture, or of the latents.
    pub(crate) side: i64,
}

const fn network(name: &'static str, rows: i64, side: i64) -> Network {
    Network { name, rows, side }
}

pub(crate) const NETWORKS: [Network; 12] = [
    network("ediffi-base", 2, 64),
    network("ediffi-sr256", 1, 256),
    network("ediffi-sr1024", 1, 1024),
    network("if-i-m", 2, 64),
    network("if-i-l", 2, 64),
    network("if-ii-m", 2, 256),
    network("if-ii-l", 2, 256),
    network("karlo-decoder", 2, 64),
    network("karlo-sr256", 1, 256),
    network("sd-1.5", 2, 64),
    network("sdxl-base", 2, 128),
    network("sdxl-refiner", 2, 128),
];

/// Of the networks, the one with this name.
pub(crate) fn find(name: &str) -> Result<Network> {
    let found = NETWORKS.into_iter().find(|network| network.name == name);
    found.ok_or_else(|| format!("there is no network {name:?}").into())
}

/// The layout of a network. The configurations of the published ones have to be written.
pub(crate) fn layout(name: &str) -> Result<Box<dyn Layout>> {
    let folder = Path::new(CONFIGS).join(name);
    let config = folder.join("config.json");
    let latent =
        |pooled| -> Result<Box<dyn Layout>> { Ok(Box::new(PublishedStableDiffusion::read(&config, pooled)?.network)) };
    Ok(match name {
        "karlo-decoder" => {
            let text = folder.join("text_proj.json");
            Box::new(PublishedUnClip::decoder(&config, &text, KARLO_TOKENS)?.network)
        }
        "karlo-sr256" => Box::new(PublishedUnClip::enlarger(&config)?.network),
        "sd-1.5" => latent(None)?,
        // The pooled text of OpenCLIP.
        "sdxl-base" | "sdxl-refiner" => latent(Some(1280))?,
        _ if name.starts_with("if-") => Box::new(PublishedUNet::read(&config)?.network),
        _ => Box::new(preset(name)?),
    })
}

/// The configuration of one that this library has of its own.
pub(crate) fn preset(name: &str) -> Result<UNetConfig> {
    Ok(match name {
        "ediffi-base" => Adm::base_64().into(),
        "ediffi-sr256" => Efficient::sr_256().into(),
        "ediffi-sr1024" => Efficient::sr_1024().into(),
        _ => return Err(format!("there is no preset {name:?}").into()),
    })
}

/// How many numbers a network has.
pub(crate) fn parameters(name: &str) -> Result<i64> {
    let layout = layout(name)?;
    Ok(Table::of(|scope| UNet::new(scope, layout.as_ref(), Kind::Float))?.elements())
}

/// The case of a network.
pub(crate) fn case(network: Network) -> Case {
    Case::Alternative { network: network.name.to_owned(), rows: network.rows, side: network.side }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_parameters_of_the_paper_by_order() {
        let millions = |name: &str| parameters(name).unwrap() / 1_000_000;
        let [base, sr256, sr1024] = ["ediffi-base", "ediffi-sr256", "ediffi-sr1024"].map(millions);
        assert!((500..1200).contains(&base) && (200..900).contains(&sr256) && (200..900).contains(&sr1024));
    }
}
