//! Fine-tuning: the weights of a model folder that a network starts from.

use std::path::{Path, PathBuf};

use ediffi::Manifest;
use ediffi_cascade::{ExpertConfig, StageConfig};
use ediffi_core::files::{path_inside, read_json};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::unet::UNetConfig;
use serde_json::{Value, json};

use crate::differences::{Difference, first_difference};
use crate::plan::{NetworkPlan, StagePlan};
use crate::{Error, Result};

/// How far the ends of a cell may be from those of a manifest, which has six digits.
const ROUNDED: f64 = 1e-5;

/// What the shipped model is called in a plan.
const SHIPPED: &str = "icons";

/// The model folder that a plan means.
pub(crate) fn model_folder(name: &str) -> Result<PathBuf> {
    if name == SHIPPED && !Path::new(name).join(ediffi::MANIFEST_FILE).is_file() {
        return Ok(ediffi::icons()?);
    }
    Ok(PathBuf::from(name))
}

/// What a network starts from.
#[derive(Debug, Clone)]
pub(crate) struct Ancestor {
    /// Its weights.
    pub(crate) weights: PathBuf,
    /// Its dimensions. A network that gains a detail head has others.
    pub(crate) dimensions: UNetConfig,
}

/// What `network` starts from, if it starts from a folder.
///
/// # Errors
/// [`Error::Start`] for a folder without such a stage or expert, [`Error::OtherNetwork`] naming the first key in which its network differs
/// from the plan's.
pub(crate) fn start(stage: &StagePlan, network: &NetworkPlan) -> Result<Option<Ancestor>> {
    let Some(name) = &network.start else { return Ok(None) };
    let folder = model_folder(name)?;
    let who = format!("{}.{}", stage.name, network.name);
    let cannot = |reason: String| Error::Start { network: who.clone(), folder: folder.clone(), reason };
    let manifest = Manifest::read(&folder)?;
    let names = || manifest.stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = manifest.stages.iter().find(|found| found.name == stage.name);
    let found = found.ok_or_else(|| cannot(format!("it has no stage {:?}, only {}", stage.name, names())))?;
    let interval = network.cell.interval(&stage.noise)?;
    let expert = expert(found, network, interval).map_err(cannot)?;
    let dimensions: UNetConfig = read_json(&path_inside(&folder, expert.network.as_ref().unwrap_or(&found.network))?)?;
    let precondition = expert.precondition.unwrap_or(found.precondition);
    let theirs = json!({ "network": dimensions, "precondition": precondition });
    let mut ours = json!({ "network": stage.dimensions_of(network)?, "precondition": stage.precondition });
    // A detail head may be new: it starts at zero, and the network begins as the one that has none. A LoRA changes what is there.
    if network.lora.is_none()
        && theirs.pointer("/network/detail").is_none_or(Value::is_null)
        && let Some(Value::Object(network)) = ours.get_mut("network")
    {
        network.remove("detail");
    }
    match first_difference(&theirs, &ours) {
        None => Ok(Some(Ancestor { weights: path_inside(&folder, &expert.weights)?, dimensions })),
        Some(Difference { key, first, second }) => {
            let (key, found, expected) = (key.into(), first.into(), second.into());
            Err(Error::OtherNetwork { network: who, folder, key, found, expected })
        }
    }
}

/// The expert that a plan names, or the one that knows all noise levels of `interval`.
fn expert<'a>(
    stage: &'a StageConfig,
    network: &NetworkPlan,
    interval: SigmaInterval,
) -> std::result::Result<&'a ExpertConfig, String> {
    let all = || {
        let one = |expert: &ExpertConfig| format!("{} on {:.4}", expert.weights.display(), expert.sigma);
        stage.experts.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    if let Some(weights) = &network.start_weights {
        let named = stage.experts.iter().find(|expert| expert.weights == *weights);
        return named.ok_or_else(|| format!("its stage has no {}; it has {}", weights.display(), all()));
    }
    let knows = |expert: &&ExpertConfig| {
        let sigma = expert.sigma;
        sigma.low() <= interval.low() * (1.0 + ROUNDED) && interval.high() <= sigma.high() * (1.0 + ROUNDED)
    };
    stage.experts.iter().find(knows).ok_or_else(|| {
        format!("no expert has all noise levels of {interval:.4}: name one with `start-weights`, of {}", all())
    })
}
