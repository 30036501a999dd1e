//! One stage as `pipeline.json` describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_core::expert_interval::{self, ExpertInterval};
use ediffi_core::experts::Experts;
use ediffi_core::files::path_inside;
use ediffi_core::guidance::Guidance;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::precondition::{Edm, Epsilon, Precondition, Sample, SampleOnTable, Velocity};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;
use ediffi_core::timesteps::NoiseTable;
use serde::{Deserialize, Serialize};

use crate::low_res::LowRes;
use crate::owners::Owners;
use crate::settings::{ExpertSettings, SamplerSettings};
use crate::{Error, Result};

/// The longest side of a picture that a stage may be made for.
const MAX_SIZE: i64 = 1 << 14;

/// One entry of `stages`.
///
/// ```
/// let stage: ediffi_cascade::StageConfig = serde_json::from_str(r#"{
///     "name": "base", "size": 64, "network": "base/config.json",
///     "precondition": { "edm": { "sigma_data": 0.5 } },
///     "experts": [ { "weights": "base/high.safetensors", "sigma": [9.61, null] },
///                  { "weights": "base/rest.safetensors", "sigma": [0, 9.61] } ],
///     "sampler": { "solver": "dpmpp-2m", "steps": 25, "schedule": { "karras": { "min": 0.002, "max": 80, "rho": 7 } } },
///     "guidance": { "scale": 5.0 }
/// }"#)?;
/// stage.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Keys", into = "Keys")]
pub struct StageConfig {
    /// What the stage is called in plans, events and errors.
    pub name: String,
    /// Side in pixels of the square pictures that it was trained for.
    pub size: i64,
    /// Dimensions of the network: a JSON file in the model folder.
    pub network: PathBuf,
    /// How the networks become denoisers. An expert may have its own.
    pub precondition: PreconditionConfig,
    /// The experts, in any order; their intervals tile (0, ∞).
    pub experts: Vec<ExpertConfig>,
    /// A weaker network for all noise levels, which guidance may move away from: an earlier checkpoint, or a smaller network.
    pub weaker: Option<WeakerConfig>,
    /// How the smaller picture becomes a condition, if the stage is one of super-resolution.
    pub low_res: LowRes,
    /// How to sample, unless a request says otherwise: the keys `sampler` and `guidance`. No guidance if that is left out.
    pub settings: SamplerSettings,
}

/// The keys of a [`StageConfig`] in `pipeline.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: String,
    size: i64,
    network: PathBuf,
    precondition: PreconditionConfig,
    experts: Vec<ExpertKeys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weaker: Option<WeakerConfig>,
    #[serde(default, skip_serializing_if = "LowRes::is_default")]
    low_res: LowRes,
    sampler: Sampler,
    #[serde(default)]
    guidance: Guidance,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampler {
    solver: Solver,
    steps: usize,
    schedule: Schedule,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    experts: BTreeMap<usize, ExpertSettings>,
}

/// The keys of an expert: its noise levels stand as a pair in `sigma`, or in another unit in `interval`. Where both are there, they have to say
/// the same.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpertKeys {
    weights: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sigma: Option<SigmaInterval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<ExpertInterval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    precondition: Option<PreconditionConfig>,
}

impl TryFrom<Keys> for StageConfig {
    type Error = String;

    fn try_from(keys: Keys) -> std::result::Result<Self, String> {
        let Keys { name, size, network, precondition, experts: own, weaker, low_res, sampler, guidance } = keys;
        let Sampler { solver, steps, schedule, experts } = sampler;
        let settings = SamplerSettings { solver, steps, schedule, guidance, experts };
        let experts = resolved(own, &precondition, &settings)?;
        Ok(Self { name, size, network, precondition, experts, weaker, low_res, settings })
    }
}

/// The experts with the noise levels that they own under the stage's own settings.
fn resolved(
    keys: Vec<ExpertKeys>,
    precondition: &PreconditionConfig,
    settings: &SamplerSettings,
) -> std::result::Result<Vec<ExpertConfig>, String> {
    let said = keys.iter().enumerate().map(|(index, keys)| {
        let said = keys.interval.or(keys.sigma.map(ExpertInterval::Sigma));
        said.ok_or_else(|| format!("missing field `sigma` of experts[{index}], or `interval`"))
    });
    let said = said.collect::<std::result::Result<Vec<_>, _>>()?;
    let intervals = if keys.iter().any(|keys| keys.interval.is_some()) {
        let sigmas = settings.sigmas(precondition.timesteps());
        let experts = sigmas.and_then(|sigmas| expert_interval::experts(&said, precondition.own_timesteps(), &sigmas));
        experts.map_err(|error| format!("experts: {error}"))?.intervals().to_vec()
    } else {
        keys.iter().filter_map(|keys| keys.sigma).collect()
    };
    let expert = |(index, (keys, interval)): (usize, (ExpertKeys, SigmaInterval))| {
        let ExpertKeys { weights, sigma, interval: said, network, precondition } = keys;
        if let Some(sigma) = sigma.filter(|sigma| *sigma != interval) {
            return Err(format!("experts[{index}]: `sigma` says {sigma}, `interval` {interval}"));
        }
        Ok(ExpertConfig { weights, sigma: interval, interval: said, network, precondition })
    };
    keys.into_iter().zip(intervals).enumerate().map(expert).collect()
}

impl From<StageConfig> for Keys {
    fn from(config: StageConfig) -> Self {
        let StageConfig { name, size, network, precondition, experts: own, weaker, low_res, settings } = config;
        let SamplerSettings { solver, steps, schedule, guidance, experts } = settings;
        let sampler = Sampler { solver, steps, schedule, experts };
        let keys = |expert: ExpertConfig| {
            let ExpertConfig { weights, sigma, interval, network, precondition } = expert;
            ExpertKeys { weights, sigma: Some(sigma), interval, network, precondition }
        };
        let experts = own.into_iter().map(keys).collect();
        Self { name, size, network, precondition, experts, weaker, low_res, sampler, guidance }
    }
}

/// How a network becomes a denoiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum PreconditionConfig {
    /// EDM's preconditioning (eDiff-I §3).
    Edm(Edm),
    /// The network predicts the clean image itself.
    Sample(Sample),
    /// The network predicts the noise (DDPM, DeepFloyd IF).
    Epsilon(Epsilon),
    /// The network predicts the velocity between image and noise, on a table of timesteps.
    Velocity(Velocity),
    /// The network predicts the clean image itself, on a table of timesteps.
    SampleOnTable(SampleOnTable),
}

impl PreconditionConfig {
    fn coefficients(&self) -> &dyn Precondition {
        match self {
            Self::Edm(edm) => edm,
            Self::Sample(sample) => sample,
            Self::Epsilon(epsilon) => epsilon,
            Self::Velocity(velocity) => velocity,
            Self::SampleOnTable(sample) => sample,
        }
    }

    /// The timesteps that schedules and the noise in the smaller picture count on: those that the network was trained on. For
    /// a network that knows none they are the default's.
    #[must_use]
    pub fn timesteps(&self) -> NoiseTable {
        self.own_timesteps().unwrap_or(NoiseTable::SquaredCosine)
    }

    /// The timesteps that the network is told, if it is told any.
    #[must_use]
    pub fn own_timesteps(&self) -> Option<NoiseTable> {
        match self {
            Self::Edm(_) | Self::Sample(_) => None,
            Self::Epsilon(epsilon) => Some(epsilon.timesteps()),
            Self::Velocity(velocity) => Some(velocity.timesteps()),
            Self::SampleOnTable(sample) => Some(sample.timesteps()),
        }
    }
}

impl Precondition for PreconditionConfig {
    fn c_skip(&self, sigma: f64) -> f64 {
        self.coefficients().c_skip(sigma)
    }

    fn c_out(&self, sigma: f64) -> f64 {
        self.coefficients().c_out(sigma)
    }

    fn c_in(&self, sigma: f64) -> f64 {
        self.coefficients().c_in(sigma)
    }

    fn c_noise(&self, sigma: f64) -> f64 {
        self.coefficients().c_noise(sigma)
    }

    fn loss_weight(&self, sigma: f64) -> f64 {
        self.coefficients().loss_weight(sigma)
    }
}

/// One expert of a stage.
///
/// In `pipeline.json` its noise levels are a pair, `"sigma": [0.5, null]`, or stand in another unit, `"interval": "timesteps:200.."`: see
/// [`ExpertInterval`].
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertConfig {
    /// Its weights: a safetensors file in the model folder.
    pub weights: PathBuf,
    /// The noise levels that it owns; where they follow the steps, those under the stage's own settings.
    pub sigma: SigmaInterval,
    /// How they were said, if otherwise.
    pub interval: Option<ExpertInterval>,
    /// Dimensions of its network, if they are not those of the stage.
    pub network: Option<PathBuf>,
    /// How its network becomes a denoiser, if not as those of the stage do.
    pub precondition: Option<PreconditionConfig>,
}

impl ExpertConfig {
    /// An expert with the network and the preconditioning of its stage.
    #[must_use]
    pub fn new(weights: impl Into<PathBuf>, sigma: SigmaInterval) -> Self {
        Self { weights: weights.into(), sigma, interval: None, network: None, precondition: None }
    }
}

/// The weaker network of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeakerConfig {
    /// Its weights: a safetensors file in the model folder.
    pub weights: PathBuf,
    /// Dimensions of its network, if they are not those of the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<PathBuf>,
    /// How its network becomes a denoiser, if not as those of the stage do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precondition: Option<PreconditionConfig>,
}

impl StageConfig {
    /// Checks everything that can be checked without the model folder.
    ///
    /// # Errors
    /// [`Error::StageConfig`] or [`Error::Setting`] naming the stage and the field.
    pub fn validate(&self) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(self.wrong("name", "it is empty".to_owned()));
        }
        if !(1..=MAX_SIZE).contains(&self.size) {
            return Err(self.wrong("size", format!("{} is not between 1 and {MAX_SIZE}", self.size)));
        }
        self.experts()?;
        let table = self.precondition.timesteps();
        if let Some((setting, source)) = self.settings.problems(table, self.weaker.is_some()).into_iter().next() {
            let field = if setting == "guidance" { setting.to_owned() } else { format!("sampler.{setting}") };
            return Err(self.refused(&field, source));
        }
        self.owners().owned(&self.settings).map_err(|source| self.refused("experts", source))?;
        let experts = self.experts.iter().enumerate();
        let experts = experts.map(|(index, expert)| (format!("experts[{index}]"), expert.precondition));
        let weaker = self.weaker.iter().map(|weaker| ("weaker".to_owned(), weaker.precondition));
        for (field, precondition) in experts.chain(weaker) {
            let own = precondition.and_then(|precondition| precondition.own_timesteps());
            if own.is_some_and(|own| own != table) {
                let reason = "it counts on other timesteps than the precondition of the stage".to_owned();
                return Err(self.wrong(&format!("{field}.precondition"), reason));
            }
        }
        self.low_res.validate(table).map_err(|reason| self.wrong("low_res", reason))?;
        for (field, path) in self.paths() {
            // The folder is not known yet, and the answer does not depend on it.
            path_inside(Path::new("."), path).map_err(|source| self.refused(&field, source))?;
        }
        Ok(())
    }

    /// Which expert owns which noise level; where that follows the steps, under the stage's own settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for intervals with a hole or an overlap, which names the weights of the experts beside it.
    pub fn experts(&self) -> Result<Experts> {
        let intervals = self.experts.iter().map(|expert| expert.sigma).collect();
        Experts::new(intervals).map_err(|source| self.refused(&self.beside(&source), source))
    }

    /// The experts that an error of their intervals is about.
    fn beside(&self, error: &ediffi_core::Error) -> String {
        use ediffi_core::Error::{ExpertEdge, ExpertHole, ExpertOverlap};
        let pair = match error {
            ExpertHole { below, above } => [Some(below), Some(above)],
            ExpertOverlap { first, second } => [Some(first), Some(second)],
            ExpertEdge { outermost, .. } => [Some(outermost), None],
            _ => [None, None],
        };
        let about = |index: &usize| self.experts.get(*index).is_some_and(|own| pair.contains(&Some(&own.sigma)));
        let named = (0..self.experts.len()).filter(about);
        let name = |index: usize| Some(format!("experts[{index}] ({})", self.experts.get(index)?.weights.display()));
        let names: Vec<String> = named.filter_map(name).collect();
        if names.is_empty() { "experts".to_owned() } else { names.join(" and ") }
    }

    /// The intervals of the experts as they were said.
    #[must_use]
    pub fn owners(&self) -> Owners {
        let said = |expert: &ExpertConfig| expert.interval.unwrap_or(ExpertInterval::Sigma(expert.sigma));
        Owners {
            said: self.experts.iter().map(said).collect(),
            table: self.precondition.timesteps(),
            counted: self.precondition.own_timesteps().is_some(),
        }
    }

    /// Every path of the stage with its field: dimensions and weights.
    pub fn paths(&self) -> impl Iterator<Item = (String, &Path)> {
        let experts = self.experts.iter().enumerate().flat_map(|(index, expert)| {
            let network = expert.network.as_deref().map(|path| (format!("experts[{index}].network"), path));
            std::iter::once((format!("experts[{index}].weights"), expert.weights.as_path())).chain(network)
        });
        let weaker = self.weaker.iter().flat_map(|WeakerConfig { weights, network, .. }| {
            let network = network.as_deref().map(|path| ("weaker.network".to_owned(), path));
            std::iter::once(("weaker.weights".to_owned(), weights.as_path())).chain(network)
        });
        std::iter::once(("network".to_owned(), self.network.as_path())).chain(experts).chain(weaker)
    }

    /// The field that names the network of `name`, which may have its own.
    pub(crate) fn network_field(&self, name: &str, own: Option<&Path>) -> String {
        if own.is_some() { format!("{name}.network") } else { "network".to_owned() }
    }

    pub(crate) fn wrong(&self, field: &str, reason: String) -> Error {
        Error::StageConfig { stage: self.name.clone(), field: field.to_owned(), reason }
    }

    pub(crate) fn refused(&self, field: &str, source: ediffi_core::Error) -> Error {
        Error::Setting { stage: self.name.clone(), field: field.to_owned(), source: Box::new(source) }
    }
}
