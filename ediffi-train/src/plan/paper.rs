//! The plans of the configurations that the paper compares (eDiff-I, table 1 and appendix B).

use ediffi_core::interval::LogNormal;

use super::stage::{NetworkTraining, Sampling, StageTraining};
use super::training::Training;
use super::training_plan::TrainingPlan;
use crate::Result;
use crate::noise::Tail;
use crate::tree::{Branching, Configuration, ExpertTree, Planned};

/// How long and how fast each network of a paper's plan is trained.
///
/// The paper trains the shared base for 500 000 steps and each level of a branch for 40 000 to 190 000 (appendix B). At which levels
/// its runs stopped is not published, so here every level has the same number.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Pictures a batch.
    pub batch: u64,
    /// Batches a step.
    pub accumulate: u64,
    /// The shared base.
    pub shared: Training,
    /// Every network that starts from a parent.
    pub child: Training,
    /// The shared network of each super-resolution.
    pub super_resolution: Training,
    /// How the base is sampled.
    pub base_sampling: Sampling,
    /// How both super-resolutions are sampled.
    pub super_resolution_sampling: Sampling,
}

/// Where the expert of the highest noise begins: the lower edge of E⁹₅₁₁ under the paper's distribution.
const TAIL: Tail = Tail { share: 0.1, from: 9.61, to: 80.0 };

/// The plan of a configuration: stages `base`, `sr256` and `sr1024`, with the paper's distribution of noise levels and a tenth
/// of the base's levels from its open tail.
///
/// # Errors
/// [`Error::Plan`](crate::Error::Plan) for a budget that makes no sense.
pub fn plan(name: &str, configuration: Configuration, budget: &Budget) -> Result<TrainingPlan> {
    let noise = LogNormal::default();
    let stage = |name: &str, tree: &ExpertTree, tail, shared: Training, sampling: &Sampling| StageTraining {
        name: name.to_owned(),
        noise,
        tail,
        sampling: sampling.clone(),
        networks: networks(tree, shared, budget.child),
    };
    let alone = ExpertTree::new(&noise, &[], Branching::EveryLevel)?;
    let sampling = &budget.super_resolution_sampling;
    let plan = TrainingPlan {
        name: name.to_owned(),
        seed: 1,
        batch: budget.batch,
        accumulate: budget.accumulate,
        encoders: Vec::new(),
        stages: vec![
            stage("base", &configuration.base(&noise)?, Some(TAIL), budget.shared, &budget.base_sampling),
            stage("sr256", &configuration.sr_256(&noise)?, None, budget.super_resolution, sampling),
            stage("sr1024", &alone, None, budget.super_resolution, sampling),
        ],
    };
    plan.check()?;
    Ok(plan)
}

/// The networks of a tree, those without a parent trained like `shared`, all others like `child`.
fn networks(tree: &ExpertTree, shared: Training, child: Training) -> Vec<NetworkTraining> {
    let training = |network: &Planned| {
        let parent = network.parent.and_then(|index| tree.networks().get(index));
        let training = if parent.is_some() { child } else { shared };
        let (name, cell) = (network.name.clone(), network.cell.clone());
        NetworkTraining {
            name,
            cell,
            parent: parent.map(|parent| parent.name.clone()),
            dimensions: None,
            detail: None,
            precondition: None,
            redrawn: None,
            training,
        }
    };
    tree.networks().iter().map(training).collect()
}

#[cfg(test)]
mod tests {
    use ediffi_core::schedule::Schedule;

    use super::*;

    fn budget() -> Budget {
        let training = Training { steps: 8, learning_rate: 1e-3, warm_up: 2, cosine: false, ema: 0.9 };
        let sampling = Sampling { steps: 25, schedule: Schedule::paper_base() };
        Budget {
            batch: 2,
            accumulate: 1,
            shared: training,
            child: Training { steps: 3, ..training },
            super_resolution: Training { steps: 5, ..training },
            base_sampling: sampling.clone(),
            super_resolution_sampling: sampling,
        }
    }

    /// Table 1: one network; two for 256 pixels; two for the base as well; three.
    #[test]
    fn the_configurations_have_the_paper_s_experts() {
        for (configuration, base, sr_256) in [
            (Configuration::A, vec!["e0-0"], vec!["e0-0"]),
            (Configuration::B, vec!["e0-0"], vec!["e1-0", "e1-1"]),
            (Configuration::C, vec!["rest", "e9-511"], vec!["e1-0", "e1-1"]),
            (Configuration::D, vec!["e3-0", "rest", "e9-511"], vec!["e1-0", "e1-1"]),
        ] {
            let plan = plan("x", configuration, &budget()).unwrap();
            for (stage, expected) in plan.stages.iter().zip([base, sr_256, vec!["e0-0"]]) {
                let names: Vec<_> = stage.experts().unwrap().iter().map(|e| e.network.name.as_str()).collect();
                assert_eq!(names, expected, "{configuration:?} {}", stage.name);
            }
            assert_eq!(TrainingPlan::parse(&plan.to_toml().unwrap()).unwrap(), plan);
        }
    }

    #[test]
    fn only_networks_with_a_parent_are_trained_like_children() {
        let plan = plan("d", Configuration::D, &budget()).unwrap();
        let steps = |name: &str| plan.task(name).unwrap().training().steps;
        assert_eq!([steps("base.e0-0"), steps("base.e9-511"), steps("base.rest"), steps("sr1024.e0-0")], [8, 3, 3, 5]);
        assert!(super::plan("d", Configuration::D, &Budget { batch: 0, ..budget() }).is_err());
    }

    /// Of all levels of E⁹₅₁₁ a tenth is evenly spread up to 80, where the paper's distribution has next to none.
    #[test]
    fn the_highest_expert_is_trained_on_the_open_tail() {
        let plan = plan("d", Configuration::D, &budget()).unwrap();
        let stage = &plan.stages[0];
        let high = stage.networks.iter().find(|network| network.name == "e9-511").unwrap();
        let share = |tail| {
            let stage = super::StageTraining { tail, ..stage.clone() };
            stage.levels(high).unwrap().share_above(40.0)
        };
        assert!(share(None) < 0.012, "{}", share(None));
        assert!(share(Some(TAIL)) > 0.03, "{}", share(Some(TAIL)));
    }
}
