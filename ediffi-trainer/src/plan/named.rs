//! The plans that are asked for by name.

use std::path::Path;

use ediffi_core::unet::{Adm, Efficient};
use ediffi_train::plan::paper::{self, Budget};
use ediffi_train::plan::{Sampling, Training};
use ediffi_train::tree::Configuration;

use super::network::Network;
use super::stage::NetworkPlan;
use super::whole::Plan;
use crate::{Error, Result};

/// What can be asked for by name.
pub const NAMES: [&str; 6] = ["laptop", "gpu-24gb", "paper-a", "paper-b", "paper-c", "paper-d"];

/// Minutes on two cores, with a T5 of its own.
const LAPTOP: &str = include_str!("../../plans/laptop.toml");

/// A base and a super-resolution for one GPU.
const GPU: &str = include_str!("../../plans/gpu-24gb.toml");

/// The paper's three stages with one network each. What the paper says of them is in `ediffi-core` and `ediffi-train`.
const PAPER: &str = include_str!("../../plans/paper.toml");

/// The plan of that name ([`NAMES`]), or the one in that file.
///
/// # Errors
/// [`Error::UnknownPlan`]; [`Error::PlanFile`] naming the file that cannot be used.
pub fn find(name: &str) -> Result<Plan> {
    let configuration = match name {
        "laptop" => return Plan::parse(LAPTOP),
        "gpu-24gb" => return Plan::parse(GPU),
        "paper-a" => Configuration::A,
        "paper-b" => Configuration::B,
        "paper-c" => Configuration::C,
        "paper-d" => Configuration::D,
        _ => {
            let path = Path::new(name);
            if path.is_file() {
                return Plan::open(path);
            }
            return Err(Error::UnknownPlan { name: name.to_owned(), known: NAMES.map(str::to_owned).to_vec() });
        }
    };
    of_the_paper(name, configuration)
}

/// The template with the networks of the configuration, as long and as fast as the template's own and, for those that start from another,
/// as the paper trains a level of a branch at most.
fn of_the_paper(name: &str, configuration: Configuration) -> Result<Plan> {
    let mut plan: Plan = toml::from_str(PAPER)?;
    name.clone_into(&mut plan.name);
    let training = |stage: usize| -> Option<Training> { Some(plan.stages.get(stage)?.networks.first()?.training) };
    let sampling = |stage: usize| -> Option<Sampling> {
        let settings = &plan.stages.get(stage)?.sampler;
        Some(Sampling { steps: settings.steps, schedule: settings.schedule.clone() })
    };
    // The template has three stages; one without would be a fault of this crate that its test shows.
    let parts = training(0).zip(training(1)).zip(sampling(0)).zip(sampling(1));
    let Some((((shared, super_resolution), base_sampling), super_resolution_sampling)) = parts else {
        return crate::error::wrong(name, "the template lacks a stage");
    };
    let child = Training { steps: 40_000, ..shared };
    let (batch, accumulate) = (plan.batch, plan.accumulate);
    let budget =
        Budget { batch, accumulate, shared, child, super_resolution, base_sampling, super_resolution_sampling };
    let trees = paper::plan(name, configuration, &budget)?;
    for (stage, tree) in plan.stages.iter_mut().zip(trees.stages) {
        stage.tail = tree.tail;
        let network = |network: ediffi_train::plan::NetworkTraining| NetworkPlan {
            name: network.name,
            cell: network.cell,
            parent: network.parent,
            start: None,
            start_weights: None,
            detail: network.detail,
            lora: None,
            training: network.training,
        };
        stage.networks = tree.networks.into_iter().map(network).collect();
    }
    let dimensions = [Adm::base_64().into(), Efficient::sr_256().into(), Efficient::sr_1024().into()];
    for (stage, dimensions) in plan.stages.iter_mut().zip(dimensions) {
        stage.network = Network::Here(Box::new(dimensions));
    }
    plan.check()?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_plan_stands_a_check_and_comes_back_from_toml() {
        for name in NAMES {
            let plan = find(name).unwrap();
            assert_eq!(plan.name, name);
            assert_eq!(Plan::parse(&plan.to_toml().unwrap()).unwrap(), plan, "{name}");
        }
        let experts = |name: &str| find(name).unwrap().training().stages[0].experts().unwrap().len();
        assert_eq!(["paper-a", "paper-b", "paper-c", "paper-d"].map(experts), [1, 1, 2, 3]);
    }

    #[test]
    fn a_plan_of_another_name_is_a_file_or_an_error_that_names_it() {
        let error = find("paper-e").unwrap_err().to_string();
        assert!(error.contains("\"paper-e\"") && error.contains("laptop"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "name = 3").unwrap();
        let error = find(path.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("own.toml"), "{error}");
    }
}
