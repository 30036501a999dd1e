//! A whole plan: everything that is trained for one model.

use std::borrow::Cow;
use std::path::Path;

use ediffi_core::brief::told;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stage::{NetworkTraining, StageTraining};
use super::task::{Batches, EncoderTraining, Task};
use crate::error::{file_error, wrong};
use crate::lineage::Lineage;
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
    /// Encoders, which are trained before all networks. Published encoders need no training.
    #[serde(default)]
    pub encoders: Vec<EncoderTraining>,
    /// The stages, smallest pictures first.
    pub stages: Vec<StageTraining>,
}

/// An error of the parser with a message that does not grow with the line that it quotes.
fn short(error: toml::de::Error) -> toml::de::Error {
    match told(&error.to_string()) {
        Cow::Borrowed(_) => error,
        Cow::Owned(short) => serde::de::Error::custom(short),
    }
}

fn one() -> u64 {
    1
}

impl TrainingPlan {
    /// Reads and checks a plan in TOML.
    ///
    /// # Errors
    /// [`Error::PlanText`] for text that is no plan, and the errors of [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text).map_err(|source| Error::PlanText { source: Box::new(short(source)) })?;
        plan.check()?;
        Ok(plan)
    }

    /// Reads and checks the plan in a file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read; those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path).map_err(file_error(path))?)
    }

    /// The plan in TOML, which [`parse`](Self::parse) reads back.
    ///
    /// # Errors
    /// [`Error::Plan`] for a number that TOML cannot hold: a seed beyond an `i64`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).or_else(|error| wrong(&self.name, error.to_string()))
    }

    /// Checks every number, and that
    /// - names are unique and can be names of files;
    /// - each network comes after its parent, and is trained on noise levels that the parent has seen;
    /// - the experts of every stage tile (0, ∞).
    ///
    /// # Errors
    /// [`Error::Plan`] naming what is wrong, or [`Error::Ensemble`] for a stage whose experts leave a hole or overlap.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [("batch", self.batch), ("accumulate", self.accumulate)] {
            if !(1..=65_536).contains(&value) {
                return wrong(field, format!("{value} is not in 1..=65536"));
            }
        }
        if self.stages.is_empty() {
            return wrong(&self.name, "it has no stages");
        }
        let mut names: Vec<String> = Vec::new();
        for task in self.tasks() {
            let name = task.name();
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !name.split('.').all(|part| !part.is_empty() && part.chars().all(letters)) {
                return wrong(name, "a name has small letters, digits and dashes");
            }
            task.training().check(&name)?;
            if names.contains(&name) {
                return wrong(name, "the name stands twice");
            }
            names.push(name);
        }
        if let Some(encoder) = self.encoders.iter().find(|encoder| encoder.batch == Some(0)) {
            return wrong(&encoder.name, "a batch of no pictures");
        }
        let first =
            self.stages.iter().take(1).flat_map(|stage| stage.networks.iter().map(move |network| (stage, network)));
        if let Some((stage, network)) = first.into_iter().find(|(_, network)| network.redrawn.is_some()) {
            let what = format!("{}.{}", stage.name, network.name);
            return wrong(what, "the first stage has no smaller pictures that could be redrawn");
        }
        self.stages.iter().try_for_each(StageTraining::check)
    }

    /// Everything to train, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task<'_>> {
        let stages = self.stages.iter();
        let networks = stages.flat_map(|stage| stage.networks.iter().map(move |network| Task::Network(stage, network)));
        self.encoders.iter().map(Task::Encoder).chain(networks)
    }

    /// The task of this name, such as `clip` or `base.shared`.
    ///
    /// # Errors
    /// [`Error::UnknownTask`] listing the names there are.
    pub fn task(&self, name: &str) -> Result<Task<'_>> {
        self.tasks().find(|task| task.name() == name).ok_or_else(|| Error::UnknownTask {
            name: name.to_owned(),
            known: self.tasks().map(|task| task.name()).collect(),
        })
    }

    /// The batches of one step of a task.
    #[must_use]
    pub fn batches(&self, task: &Task<'_>) -> Batches {
        match task {
            Task::Encoder(encoder) => Batches { batch: encoder.batch.unwrap_or(self.batch), accumulate: 1 },
            Task::Network(..) => Batches { batch: self.batch, accumulate: self.accumulate },
        }
    }

    /// What the plan says of a network's training and what must not change on the way: seed, batch, noise levels, and the
    /// network's own dimensions, precondition and redrawn pictures. A program adds what else the network depends on, such as its data.
    #[must_use]
    pub fn lineage(&self, stage: &StageTraining, network: &NetworkTraining) -> Lineage {
        let lineage = Lineage::default()
            .with("seed", self.seed)
            .with("batch", self.batch)
            .with("accumulate", self.accumulate)
            .with("noise", format!("ln sigma ~ N({}, {}^2)", stage.noise.p_mean(), stage.noise.p_std()))
            .with("cell", &network.cell);
        let tail = stage.tail.as_ref().map(|tail| format!("{} from {} to {}", tail.share, tail.from, tail.to));
        let dimensions = network.dimensions.as_ref().map(|dimensions| json!(dimensions).to_string());
        let precondition = network.precondition.as_ref().map(|precondition| json!(precondition).to_string());
        let redrawn = network.redrawn.as_ref().map(|redrawn| json!(redrawn).to_string());
        let detail = network.detail.as_ref().map(|detail| json!(detail).to_string());
        let own = [
            ("tail", tail),
            ("dimensions", dimensions),
            ("detail", detail),
            ("precondition", precondition),
            ("redrawn", redrawn),
        ];
        own.into_iter()
            .filter_map(|(fact, value)| Some((fact, value?)))
            .fold(lineage, |lineage, (fact, value)| lineage.with(fact, value))
    }
}

#[cfg(test)]
mod tests {
    use ediffi_cascade::PreconditionConfig;
    use ediffi_core::precondition::Edm;

    use super::super::redrawn::Redrawn;
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
        assert_eq!(
            (plan.seed, plan.batches(&plan.task("base.high").unwrap())),
            (7, Batches { batch: 4, accumulate: 1 })
        );
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
                "ema: 1 is not in",
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

    /// Its dimensions and precondition are part of its lineage, and a child has those of its parent.
    #[test]
    fn a_network_may_have_dimensions_and_a_precondition_of_its_own() {
        let own = r#"precondition = { edm = { sigma_data = 0.5 } }
            dimensions = { layout = "efficient", low_res = false, patch = 2, channels = 8, head_channels = 4,
                norm = { group = 2 }, embedding_width = 8, levels = [{ multiplier = 1, blocks = 1 }] }"#;
        let alone = TEXT.replacen("parent = \"shared\"", own, 1);
        let plan = TrainingPlan::parse(&alone).unwrap();
        assert_eq!(TrainingPlan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
        let stage = &plan.stages[0];
        let [shared, high, _] = &stage.networks[..] else { panic!("three networks") };
        assert_eq!(high.dimensions.as_ref().unwrap().io().size_multiple, 2);
        assert_eq!(high.precondition, Some(PreconditionConfig::Edm(Edm::default())));
        let facts = |network| plan.lineage(stage, network).notes();
        assert!(facts(high)["dimensions"].contains("\"patch\":2") && facts(high)["precondition"].contains("edm"));
        assert!(!facts(shared).contains_key("dimensions") && !facts(shared).contains_key("precondition"));
        let child = refused("parent = \"shared\"", &format!("parent = \"shared\"\n{own}"));
        assert!(child.contains("base.high: it starts from \"shared\""), "{child}");
        let error = TrainingPlan::parse(&alone.replace("patch = 2", "patch = 0")).unwrap_err().to_string();
        assert!(error.contains("base.high") && error.contains("patch"), "{error}");
    }

    #[test]
    fn a_child_may_add_a_detail_head() {
        let head = |text: &str, channels: i64| {
            text.replace(
                "parent = \"shared\"",
                &format!("parent = \"shared\"\ndetail = {{ channels = {channels}, blocks = 2 }}"),
            )
        };
        let plan = TrainingPlan::parse(&head(TEXT, 8)).unwrap();
        assert_eq!(TrainingPlan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
        let stage = &plan.stages[0];
        assert!(plan.lineage(stage, &stage.networks[1]).notes()["detail"].contains("\"channels\":8"));
        assert!(!plan.lineage(stage, &stage.networks[0]).notes().contains_key("detail"));
        let none = TrainingPlan::parse(&head(TEXT, 0)).unwrap_err().to_string();
        assert!(none.contains("base.high") && none.contains("0 channels"), "{none}");
        // Whose parent has one has the same.
        let first =
            head(TEXT, 8).replacen("cell = \"(0, 0)\"", "cell = \"(0, 0)\"\ndetail = { channels = 4, blocks = 1 }", 1);
        let error = TrainingPlan::parse(&first).unwrap_err().to_string();
        assert!(error.contains("base.high: it starts from \"shared\", which has another detail head"), "{error}");
    }

    #[test]
    fn only_a_stage_with_smaller_pictures_redraws_them() {
        let second = r#"
            [[stages]]
            name = "sr"
            sampling = { steps = 8, schedule = { karras = { min = 0.05, max = 40.0, rho = 7.0 } } }
            [[stages.networks]]
            name = "shared"
            cell = "(0, 0)"
            redrawn = { pictures = 10, sigma = [0.5, 2.0], share = 0.75 }
            training = { steps = 4, learning-rate = 1e-3, ema = 0.9 }"#;
        let text = format!("{TEXT}{second}");
        let plan = TrainingPlan::parse(&text).unwrap();
        assert_eq!(TrainingPlan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
        let (stage, network) = (&plan.stages[1], &plan.stages[1].networks[0]);
        let redrawn = Redrawn { pictures: 10, sigma: (0.5, 2.0), share: 0.75 };
        assert_eq!(network.redrawn, Some(redrawn));
        assert!(plan.lineage(stage, network).notes()["redrawn"].contains("\"pictures\":10"));
        for (from, to, culprit) in [
            ("pictures = 10", "pictures = 0", "redrawn.pictures"),
            ("[0.5, 2.0]", "[0.0, 2.0]", "redrawn.sigma"),
            ("[0.5, 2.0]", "[0.5, 0.4]", "redrawn.sigma"),
            ("0.75", "1.5", "redrawn.share"),
        ] {
            let error = TrainingPlan::parse(&text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(culprit), "{to}: {error}");
        }
        let first = refused(
            "cell = \"(0, 0)\"",
            "cell = \"(0, 0)\"\nredrawn = { pictures = 1, sigma = [1.0, 1.0], share = 1.0 }",
        );
        assert!(first.contains("base.shared: the first stage"), "{first}");
    }

    fn refused_source(from: &str, to: &str) -> String {
        let error = TrainingPlan::parse(&TEXT.replace(from, to)).unwrap_err();
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    }
}
