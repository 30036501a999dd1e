//! Training plans: the expert tree as data (eDiff-I §4.1, appendix B).
//!
//! A plan names every network that is trained, in the order of training: the noise levels it is trained on as a [`Cell`] of the
//! tree, the network it starts from, for how many steps, how fast. It is written in TOML:
//!
//! ```
//! use ediffi_train::plan::TrainingPlan;
//!
//! let plan = TrainingPlan::parse(r#"
//! name = "two experts"
//! seed = 1
//! batch = 16
//!
//! [[stages]]
//! name = "base"
//! noise = { p_mean = -1.2, p_std = 1.2 }
//! tail = { share = 0.1, from = 9.61, to = 80.0 }
//! sampling = { steps = 25, schedule = { karras = { min = 0.002, max = 80.0, rho = 7.0 } } }
//!
//! [[stages.networks]]
//! name = "shared"
//! cell = "(0, 0)"
//! training = { steps = 4000, learning-rate = 1e-3, warm-up = 200, ema = 0.999 }
//!
//! [[stages.networks]]
//! name = "high"
//! cell = "(9, 511)"
//! parent = "shared"
//! training = { steps = 1000, learning-rate = 5e-4, warm-up = 50, ema = 0.998 }
//!
//! [[stages.networks]]
//! name = "rest"
//! cell = "all but (9, 511)"
//! parent = "shared"
//! training = { steps = 1000, learning-rate = 5e-4, warm-up = 50, ema = 0.998 }
//! "#)?;
//! let experts = plan.stages[0].experts()?;
//! let names: Vec<_> = experts.iter().map(|expert| expert.network.name.as_str()).collect();
//! assert_eq!(names, ["rest", "high"]);
//! println!("{plan}");
//! # Ok::<(), ediffi_train::Error>(())
//! ```
//!
//! Networks that no other network starts from are the **experts** of their stage; their noise levels have to tile (0, ∞), which
//! is checked when a plan is read. [`paper`] makes the plans of the configurations that the paper compares.

mod cell;
pub mod paper;
mod table;

use std::path::Path;

use ediffi_core::experts::Experts;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::schedule::Schedule;
use serde::{Deserialize, Serialize};

pub use cell::Cell;

use crate::noise::{NoiseLevels, Tail};
use crate::optimizer::AdamWSettings;
use crate::{Error, Result};

/// Everything that is trained for one model, in the order of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrainingPlan {
    /// Its name, for people.
    pub name: String,
    /// Seed of data and noise.
    pub seed: u64,
    /// Pictures a batch.
    pub batch: u64,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Encoders that are trained before all networks; none where they are published ones.
    #[serde(default)]
    pub encoders: Vec<EncoderPlan>,
    /// The stages, smallest pictures first.
    pub stages: Vec<StagePlan>,
}

fn one() -> u64 {
    1
}

/// The training of an encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EncoderPlan {
    /// Its name; the program that trains knows what it is.
    pub name: String,
    /// Pictures a batch, if not the plan's: contrastive losses want large ones. A step has one batch.
    pub batch: Option<u64>,
    /// How long and how fast.
    pub training: Training,
}

/// The training of the experts of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StagePlan {
    /// Its name; the program that trains knows its resolution and its network.
    pub name: String,
    /// The distribution of noise levels, which the cells are cut from.
    #[serde(default)]
    pub noise: LogNormal,
    /// More levels for the open end of the distribution.
    pub tail: Option<Tail>,
    /// How the trained stage is sampled.
    pub sampling: Sampling,
    /// Its networks, each after the one it starts from.
    pub networks: Vec<NetworkPlan>,
}

/// The steps that a trained stage is sampled with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sampling {
    /// How many.
    pub steps: usize,
    /// Their noise levels.
    pub schedule: Schedule,
}

/// The training of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkPlan {
    /// Its name, which its files have too: small letters, digits and dashes.
    pub name: String,
    /// The noise levels it is trained on, and owns if it is an expert.
    pub cell: Cell,
    /// The network of the same stage that it starts from; new weights without one.
    pub parent: Option<String>,
    /// How long and how fast.
    pub training: Training,
}

/// How long and how fast something is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Training {
    /// Optimizer steps.
    pub steps: u64,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises.
    #[serde(default)]
    pub warm_up: u64,
    /// Whether the learning rate then falls along a cosine, to a tenth at the last step.
    #[serde(default)]
    pub cosine: bool,
    /// Decay of the running average of the weights, which is what is kept.
    pub ema: f64,
}

impl Training {
    /// The optimizer; what is not said here are [`AdamWSettings`]' defaults.
    #[must_use]
    pub fn optimizer(&self) -> AdamWSettings {
        AdamWSettings {
            learning_rate: self.learning_rate,
            warm_up: self.warm_up,
            decay_steps: self.cosine.then_some(self.steps),
            ..AdamWSettings::default()
        }
    }

    fn check(&self, what: &str) -> Result<()> {
        let wrong = |reason: String| Err(Error::Plan { what: what.to_owned(), reason });
        if let Err(error) = self.optimizer().validate() {
            return wrong(error.to_string());
        }
        if self.steps == 0 {
            return wrong("no steps".to_owned());
        }
        if !(0.0..1.0).contains(&self.ema) {
            return wrong(format!("ema {} is not in [0, 1)", self.ema));
        }
        Ok(())
    }
}

/// One thing to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task<'a> {
    /// An encoder.
    Encoder(&'a EncoderPlan),
    /// A network of a stage.
    Network(&'a StagePlan, &'a NetworkPlan),
}

impl Task<'_> {
    /// `clip` for an encoder, `base.shared` for a network: what its files are called and what it is asked for by.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Encoder(encoder) => encoder.name.clone(),
            Self::Network(stage, network) => format!("{}.{}", stage.name, network.name),
        }
    }

    /// How long and how fast.
    #[must_use]
    pub fn training(&self) -> &Training {
        match self {
            Self::Encoder(encoder) => &encoder.training,
            Self::Network(_, network) => &network.training,
        }
    }
}

/// A network that is part of the ensemble, and the noise levels that it owns there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expert<'a> {
    /// The network.
    pub network: &'a NetworkPlan,
    /// Its noise levels.
    pub interval: SigmaInterval,
}

impl TrainingPlan {
    /// Reads and checks a plan in TOML.
    ///
    /// # Errors
    /// [`Error::PlanText`] for text that is no plan, and the errors of [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text).map_err(|source| Error::PlanText { source: Box::new(source) })?;
        plan.check()?;
        Ok(plan)
    }

    /// Reads and checks the plan in a file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read; those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The plan in TOML, which [`parse`](Self::parse) reads back.
    ///
    /// # Errors
    /// [`Error::Plan`] for a number that TOML cannot hold: a seed beyond an `i64`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Plan { what: self.name.clone(), reason: error.to_string() })
    }

    /// Checks that names are unique and can be file names, that each network comes after its parent and is trained on levels that
    /// its parent has seen, that the experts of every stage tile (0, ∞), and every number.
    ///
    /// # Errors
    /// [`Error::Plan`] naming what is wrong, or [`Error::Ensemble`] for a stage whose experts leave a hole or overlap.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str, reason: String| Err(Error::Plan { what: what.to_owned(), reason });
        for (field, value) in [("batch", self.batch), ("accumulate", self.accumulate)] {
            if !(1..=65_536).contains(&value) {
                return wrong(field, format!("{value} is not in 1..=65536"));
            }
        }
        if self.stages.is_empty() {
            return wrong(&self.name, "it has no stages".to_owned());
        }
        let mut names: Vec<String> = Vec::new();
        for task in self.tasks() {
            let name = task.name();
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !name.split('.').all(|part| !part.is_empty() && part.chars().all(letters)) {
                return wrong(&name, "a name has small letters, digits and dashes".to_owned());
            }
            task.training().check(&name)?;
            if names.contains(&name) {
                return wrong(&name, "the name stands twice".to_owned());
            }
            names.push(name);
        }
        for encoder in &self.encoders {
            if encoder.batch == Some(0) {
                return wrong(&encoder.name, "a batch of no pictures".to_owned());
            }
        }
        self.stages.iter().try_for_each(StagePlan::check)
    }

    /// Everything to train, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task<'_>> {
        let networks = |stage| StagePlan::tasks(stage);
        self.encoders.iter().map(Task::Encoder).chain(self.stages.iter().flat_map(networks))
    }

    /// What is called `name`: `clip`, or `base.shared`.
    ///
    /// # Errors
    /// [`Error::UnknownTask`] listing the names there are.
    pub fn task(&self, name: &str) -> Result<Task<'_>> {
        self.tasks().find(|task| task.name() == name).ok_or_else(|| Error::UnknownTask {
            name: name.to_owned(),
            known: self.tasks().map(|task| task.name()).collect(),
        })
    }

    /// Pictures of one step of a network.
    #[must_use]
    pub fn pictures_a_step(&self) -> u64 {
        self.batch * self.accumulate
    }
}

impl StagePlan {
    fn tasks(&self) -> impl Iterator<Item = Task<'_>> {
        self.networks.iter().map(move |network| Task::Network(self, network))
    }

    fn check(&self) -> Result<()> {
        if let Some(tail) = &self.tail {
            tail.validate()?;
        }
        self.sampling.schedule.sigmas(self.sampling.steps)?;
        for (index, network) in self.networks.iter().enumerate() {
            let interval = network.cell.interval(&self.noise)?;
            let Some(parent) = &network.parent else { continue };
            let what = format!("{}.{}", self.name, network.name);
            let before = self.networks.iter().take(index).find(|other| other.name == *parent);
            let Some(before) = before else {
                let reason = format!("no network called {parent:?}, its parent, comes before it");
                return Err(Error::Plan { what, reason });
            };
            let known = before.cell.interval(&self.noise)?;
            if interval.low() < known.low() || interval.high() > known.high() {
                let reason = format!("its noise levels, {interval}, are not all among its parent's, {known}");
                return Err(Error::Plan { what, reason });
            }
        }
        self.experts().map(|_| ())
    }

    /// The networks of the ensemble with what they own, lowest noise first.
    ///
    /// # Errors
    /// [`Error::Ensemble`] unless their noise levels tile (0, ∞).
    pub fn experts(&self) -> Result<Vec<Expert<'_>>> {
        let leaf = |network: &&NetworkPlan| {
            !self.networks.iter().any(|other| other.parent.as_deref() == Some(network.name.as_str()))
        };
        let mut experts = self
            .networks
            .iter()
            .filter(leaf)
            .map(|network| Ok(Expert { network, interval: network.cell.interval(&self.noise)? }))
            .collect::<Result<Vec<_>>>()?;
        experts.sort_by(|a, b| a.interval.low().total_cmp(&b.interval.low()));
        Experts::new(experts.iter().map(|expert| expert.interval).collect())
            .map_err(|source| Error::Ensemble { stage: self.name.clone(), source })?;
        Ok(experts)
    }

    /// How the noise levels of a network's training are drawn.
    ///
    /// # Errors
    /// Those of [`Cell::interval`] and of [`NoiseLevels::with_tail`].
    pub fn levels(&self, network: &NetworkPlan) -> Result<NoiseLevels> {
        let levels = NoiseLevels::new(self.noise, network.cell.interval(&self.noise)?);
        match &self.tail {
            Some(tail) => levels.with_tail(tail),
            None => Ok(levels),
        }
    }

    /// How many steps of sampling each expert runs, in the order of [`experts`](Self::experts).
    ///
    /// # Errors
    /// Those of [`experts`](Self::experts), and a schedule that makes no noise levels.
    pub fn sampling_steps(&self) -> Result<Vec<usize>> {
        let intervals: Vec<_> = self.experts()?.iter().map(|expert| expert.interval).collect();
        let mut counts = vec![0; intervals.len()];
        let plan = Experts::new(intervals)?.plan(&self.sampling.schedule.sigmas(self.sampling.steps)?)?;
        for step in plan.steps() {
            if let Some(count) = counts.get_mut(step.expert) {
                *count += 1;
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "two"
        seed = 7
        batch = 4
        [[stages]]
        name = "base"
        sampling = { steps = 25, schedule = { karras = { min = 0.002, max = 80.0, rho = 7.0 } } }
        [[stages.networks]]
        name = "shared"
        cell = "(0, 0)"
        training = { steps = 4, learning-rate = 1e-3, ema = 0.9 }
        [[stages.networks]]
        name = "high"
        cell = "(9, 511)"
        parent = "shared"
        training = { steps = 2, learning-rate = 1e-3, ema = 0.9, cosine = true }
        [[stages.networks]]
        name = "rest"
        cell = "all but (9, 511)"
        parent = "shared"
        training = { steps = 2, learning-rate = 1e-3, ema = 0.9 }
    "#;

    fn refused(from: &str, to: &str) -> String {
        assert!(TEXT.contains(from), "{from}");
        TrainingPlan::parse(&TEXT.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn a_plan_is_read_and_written() {
        let plan = TrainingPlan::parse(TEXT).unwrap();
        assert_eq!((plan.seed, plan.accumulate, plan.pictures_a_step()), (7, 1, 4));
        let names: Vec<_> = plan.tasks().map(|task| task.name()).collect();
        assert_eq!(names, ["base.shared", "base.high", "base.rest"]);
        assert_eq!(TrainingPlan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
        let high = plan.task("base.high").unwrap().training().optimizer();
        assert_eq!((high.learning_rate, high.decay_steps), (1e-3, Some(2)));
        assert_eq!(plan.task("base.rest").unwrap().training().optimizer().decay_steps, None);
    }

    /// EDM's 25 steps from 80 to 0.002: nine are above 9.61 (eDiff-I, derived in the paper's terms).
    #[test]
    fn the_expert_of_the_highest_noise_owns_nine_of_25_steps() {
        let plan = TrainingPlan::parse(TEXT).unwrap();
        let stage = &plan.stages[0];
        let names: Vec<_> = stage.experts().unwrap().iter().map(|expert| expert.network.name.clone()).collect();
        assert_eq!(names, ["rest", "high"]);
        assert_eq!(stage.sampling_steps().unwrap(), [16, 9]);
    }

    #[test]
    fn experts_that_do_not_tile_are_refused_with_the_hole() {
        let hole = refused("all but (9, 511)", "(3, 0)");
        assert!(hole.contains("base") && hole.contains("9.6095"), "{hole}");
        assert!(refused("all but (9, 511)", "(0, 0)").contains("base"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, culprit) in [
            ("parent = \"shared\"", "parent = \"rest\"", "base.high"),
            ("name = \"high\"", "name = \"shared\"", "base.shared: the name stands twice"),
            ("name = \"high\"", "name = \"../high\"", "base.../high"),
            ("cell = \"(0, 0)\"", "cell = \"(1, 0)\"", "base.high: its noise levels"),
            ("steps = 4,", "steps = 0,", "base.shared: no steps"),
            ("steps = 4, learning-rate = 1e-3", "steps = 4, learning-rate = -1.0", "base.shared"),
            (
                "ema = 0.9 }\n        [[stages.networks]]\n        name = \"high\"",
                "ema = 1.0 }\n        [[stages.networks]]\n        name = \"high\"",
                "ema 1 is",
            ),
            ("batch = 4", "batch = 0", "batch: 0"),
            ("max = 80.0", "max = 0.001", "max"),
            ("sampling", "tail = { share = 2.0, from = 9.0, to = 80.0 }\n sampling", "tail.share"),
            ("cell = \"(9, 511)\"", "cell = \"nine\"", "nine"),
            ("seed = 7", "sed = 7", "sed"),
        ] {
            let error = refused(from, to);
            let whole = format!("{error} {}", refused_source(from, to));
            assert!(whole.contains(culprit), "{to}: {whole}");
        }
        let none = TrainingPlan::parse("name = \"x\"\nseed = 1\nbatch = 1\nstages = []").unwrap_err().to_string();
        assert!(none.contains("no stages"), "{none}");
        let error = TrainingPlan::parse(TEXT).unwrap().task("base.low").unwrap_err().to_string();
        assert!(error.contains("base.low") && error.contains("base.shared, base.high, base.rest"), "{error}");
        let absent = TrainingPlan::open(Path::new("absent.toml")).unwrap_err();
        assert!(absent.to_string().contains("absent.toml"));
    }

    fn refused_source(from: &str, to: &str) -> String {
        let error = TrainingPlan::parse(&TEXT.replace(from, to)).unwrap_err();
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    }
}
