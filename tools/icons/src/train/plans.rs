//! The plans that are asked for by name, and those in files.

use std::path::Path;

use ediffi_core::schedule::Schedule;
use ediffi_train::plan::paper::{self, Budget};
use ediffi_train::plan::{EncoderTraining, Sampling, Training, TrainingPlan};
use ediffi_train::tree::Configuration;

use super::Result;

/// How the shipped weights are trained.
const ICONS: &str = include_str!("../../plans/icons.toml");

/// What can be asked for by name.
const NAMES: &str = "icons, paper-a, paper-b, paper-c, paper-d";

/// The plan of that name, or the one in that file.
pub fn find(name: &str) -> Result<TrainingPlan> {
    let configuration = match name {
        "icons" => return Ok(TrainingPlan::parse(ICONS)?),
        "paper-a" => Configuration::A,
        "paper-b" => Configuration::B,
        "paper-c" => Configuration::C,
        "paper-d" => Configuration::D,
        _ => {
            let path = Path::new(name);
            if !path.is_file() {
                return Err(format!("there is no plan {name:?}: it is neither a file nor one of {NAMES}").into());
            }
            return TrainingPlan::open(path).map_err(|error| {
                // Errors of a plan name what is wrong in it, but not the file.
                let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                format!("{name}: {error}{why}").into()
            });
        }
    };
    let mut plan = paper::plan(name, configuration, &budget())?;
    let clip = Training { steps: 500, learning_rate: 1e-3, warm_up: 100, cosine: true, ema: 0.998 };
    let t5 = Training { steps: 2500, learning_rate: 1e-3, warm_up: 200, cosine: true, ema: 0.998 };
    let encoder = |(name, batch, training): (&str, u64, _)| EncoderTraining {
        name: name.to_owned(),
        batch: Some(batch),
        training,
    };
    plan.encoders = [("clip", 64, clip), ("t5", 128, t5)].map(encoder).to_vec();
    Ok(plan)
}

/// The paper's trees in days of two cores instead of months of a cluster: as the paper's, the shared network has most of
/// the steps, and a level of a branch about a tenth of them.
fn budget() -> Budget {
    let shared = Training { steps: 10_000, learning_rate: 1e-3, warm_up: 200, cosine: true, ema: 0.999 };
    let sampling = |steps, max| {
        let schedule = Schedule::Karras { min: 0.02, max, rho: 7.0 };
        Sampling { steps, schedule }
    };
    Budget {
        batch: 16,
        accumulate: 2,
        shared,
        child: Training { steps: 1000, learning_rate: 5e-4, warm_up: 50, cosine: true, ema: 0.998 },
        super_resolution: Training { steps: 3000, ..shared },
        base_sampling: sampling(25, 80.0),
        super_resolution_sampling: sampling(10, 40.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_plan_is_there_and_stands_a_check() {
        for name in NAMES.split(", ") {
            let plan = find(name).unwrap();
            assert_eq!(plan.name, name);
            let encoders: Vec<_> = plan.encoders.iter().map(|encoder| encoder.name.as_str()).collect();
            assert_eq!(encoders, ["clip", "t5"]);
            let stages: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
            assert_eq!(stages, ["base", "sr256", "sr1024"]);
        }
    }

    #[test]
    fn the_plan_that_mends_is_the_plan_of_the_icons_with_one_network_more() {
        let mut plan = find(&format!("{}/plans/mended.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mended = plan.stages[1].networks.pop().unwrap();
        assert!(mended.redrawn.is_some() && mended.parent.as_deref() == Some("shared"));
        plan.name = "icons".to_owned();
        assert_eq!(plan, find("icons").unwrap());
    }

    #[test]
    fn no_task_repeats_another_s_batches() {
        let file = |name: &str| format!("{}/plans/experts-{name}.toml", env!("CARGO_MANIFEST_DIR"));
        // The compared plans share a folder, and with it what they train by name.
        let sharing = ["icons".to_owned(), file("a"), file("c"), file("d")];
        for names in [sharing.as_slice(), &["paper-d".to_owned()]] {
            let plans: Vec<_> = names.iter().map(|name| find(name).unwrap()).collect();
            let tasks = plans.iter().flat_map(|plan| plan.tasks());
            // What has one name is trained once.
            let mut firsts: Vec<_> = tasks.map(|task| (task.first_batch(), task.name())).collect();
            firsts.sort_unstable();
            firsts.dedup();
            let room = |first: u64| first.checked_add(1 << 32).and_then(|n| n.checked_mul(65_536)).is_some();
            assert!(firsts.iter().all(|(first, _)| room(*first)));
            assert!(firsts.windows(2).all(|pair| pair[0].0 < pair[1].0), "{names:?}: {firsts:?}");
        }
    }

    /// Files of the comparison of docs/results/experts.md.
    #[test]
    fn compared_plans_differ_in_their_experts_alone_and_not_in_how_long_these_train() {
        let icons = find("icons").unwrap();
        for (name, experts) in [("a", 1), ("c", 2), ("d", 3)] {
            let path = format!("{}/plans/experts-{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let plan = find(&path).unwrap();
            assert_eq!((plan.seed, plan.batch, plan.accumulate), (icons.seed, icons.batch, icons.accumulate));
            assert_eq!(plan.encoders, icons.encoders, "{name}");
            let (base, shipped) = (&plan.stages[0], &icons.stages[0]);
            assert_eq!((&base.noise, &base.sampling), (&shipped.noise, &shipped.sampling), "{name}");
            assert_eq!(base.networks[..2], shipped.networks[..2], "{name}");
            let leaves = &base.networks[2..];
            assert_eq!((leaves.len(), base.experts().unwrap().len()), (experts, experts), "{name}");
            assert_eq!(leaves.iter().map(|leaf| leaf.training.steps).sum::<u64>(), 1800, "{name}");
            for Training { steps, learning_rate, warm_up, ema, .. } in leaves.iter().map(|leaf| leaf.training) {
                assert_eq!(learning_rate, 5e-4, "{name}");
                // The same share of warm-up, and the same weight of the shared network in the average at the end.
                assert_eq!(warm_up * 100, steps * 8, "{name}");
                assert!((ema.powf(steps as f64) - 0.3).abs() < 0.01, "{name}");
            }
        }
    }

    /// Files of the experiment on the open tail in docs/results/experts.md.
    #[test]
    fn the_two_plans_of_the_tail_differ_in_the_tail_alone() {
        let [none, tenth] = ["none", "tenth"]
            .map(|name| find(&format!("{}/plans/tail-{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap());
        let base = &tenth.stages[0];
        assert_eq!((none.stages[0].tail, base.tail.map(|tail| tail.share)), (None, Some(0.1)));
        let mut same = base.clone();
        (same.tail, same.networks[0].name) = (None, none.name.clone());
        assert_eq!(TrainingPlan { name: none.name.clone(), stages: vec![same], ..tenth }, none);
    }

    /// Quarters of the training mass at both ends: ln σ = 0.4 ± 0.674490 · 1.4.
    #[test]
    fn the_shipped_experts_own_quarter_half_and_quarter() {
        let plan = find("icons").unwrap();
        let base = &plan.stages[0];
        let experts = base.experts().unwrap();
        let names: Vec<_> = experts.iter().map(|expert| expert.network.name.as_str()).collect();
        assert_eq!(names, ["low-detailed", "middle", "high"]);
        let cuts = [experts[1].interval.low(), experts[1].interval.high()];
        for (cut, expected) in cuts.into_iter().zip([0.580_3, 3.835_4]) {
            assert!((cut - expected).abs() < 1e-4, "{cut}");
        }
        // The plan's own words: the open tail is seen without help.
        let share = base.levels(&base.networks[0]).unwrap().share_above(30.0);
        assert!((0.015..0.017).contains(&share), "{share}");
    }

    #[test]
    fn a_plan_of_another_name_is_a_file_or_an_error() {
        let error = find("paper-e").unwrap_err().to_string();
        assert!(error.contains("\"paper-e\"") && error.contains("paper-d"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let mut plan = find("paper-c").unwrap();
        plan.name = "own".to_owned();
        std::fs::write(&path, plan.to_toml().unwrap()).unwrap();
        assert_eq!(find(path.to_str().unwrap()).unwrap(), plan);
        std::fs::write(&path, "name = 3").unwrap();
        let error = find(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("own.toml") && error.contains("line 1"), "{error}");
    }
}
