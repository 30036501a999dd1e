//! What single experts of a stage do otherwise: guidance, what it leads away from, solver, steps, and noise levels that follow the steps.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Log, Model, bytes, difference, embeddings, network};
use ediffi_cascade::{Cascade, CascadeJob, Error, SettingsPatch, StageConfig, StagePlan, ToldExpert};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::pool::Residency;
use ediffi_core::solver::Solver;
use serde_json::{Value, json};
use tch::Tensor;

const SEEDS: [u64; 2] = [1, 2];

fn plans(cascade: &Cascade, patch: Value) -> Vec<StagePlan> {
    let patch: SettingsPatch = serde_json::from_value(patch).unwrap();
    cascade.plan(0..=0, (None, None), |_| Some(&patch)).unwrap()
}

/// The pictures with these settings, and what guidance leads away from.
fn drawn(cascade: &mut Cascade, patch: Value, leaning: &[Option<&Conditioning>; 3]) -> Tensor {
    let plans = plans(cascade, patch);
    let (own, nothing) = (embeddings(&SEEDS), Conditioning::default());
    let [unconditional, experts @ ..] = leaning;
    let told = experts
        .iter()
        .enumerate()
        .filter_map(|(expert, leaning)| Some(ToldExpert { stage: "base", expert, unconditional: (*leaning)? }));
    let told: Vec<_> = told.collect();
    let job = CascadeJob {
        unconditional: unconditional.unwrap_or(&nothing),
        told_experts: &told,
        batch: 1,
        ..CascadeJob::new(&plans, &own, &SEEDS)
    };
    let mut log = Log::default();
    cascade.run(job, &mut log).unwrap();
    log.pictures()
}

fn plain(cascade: &mut Cascade, patch: Value) -> Tensor {
    drawn(cascade, patch, &[None, None, None])
}

/// Solvers that remember earlier steps, one that evaluates twice in a step, and one that adds noise.
const SOLVERS: [&str; 8] =
    ["euler", "heun", "kutta-3", "dpmpp-2m", "dpmpp-3m", "tab-deis-3", "plms", "euler-ancestral"];

/// The schedule of the model has four steps, of which the last two are below sigma 1.
#[test]
fn settings_that_say_the_same_change_no_bit() {
    let model = Model::new(&network(false), 8);
    for residency in [Residency::All, Residency::Relay] {
        let mut cascade = model.open(residency);
        for solver in SOLVERS {
            let expected = bytes(&plain(&mut cascade, json!({ "solver": solver })));
            let own = json!({ "solver": solver, "guidance_scale": 3.0 });
            let experts = json!({ "solver": solver, "experts": { "0": own, "1": own } });
            assert_eq!(bytes(&plain(&mut cascade, experts)), expected, "{solver}");
            let plan = &plans(&cascade, json!({}))[0].plan;
            let steps: Vec<usize> = plan.segments().iter().map(|segment| segment.steps.len()).collect();
            assert_eq!(steps, [2, 2]);
            // Of even steps alone PLMS forgets where steps are laid anew.
            if solver != "plms" {
                let experts = json!({ "solver": solver, "experts": { "0": { "steps": 2 }, "1": { "steps": 2 } } });
                assert_eq!(bytes(&plain(&mut cascade, experts)), expected, "{solver}");
            }
            let other =
                bytes(&plain(&mut cascade, json!({ "solver": solver, "experts": { "1": { "guidance_scale": 5.0 } } })));
            assert_ne!(other, expected, "{solver}");
        }
    }
}

/// Guidance that is off for an expert is guidance whose interval leaves its noise levels out.
#[test]
fn each_expert_has_its_own_guidance() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::Relay);
    for (expert, interval) in [(0, json!([0, 1])), (1, json!([1, null]))] {
        for solver in ["heun", "dpmpp-2m"] {
            let limited = json!({ "solver": solver, "guidance": { "scale": 3.0, "interval": interval } });
            let expected = bytes(&plain(&mut cascade, limited));
            let own = json!({ "solver": solver, "experts": { expert.to_string(): { "guidance_scale": 1.0 } } });
            assert_eq!(bytes(&plain(&mut cascade, own)), expected, "{solver}");
        }
    }
}

#[test]
fn each_expert_leans_away_from_its_own_text() {
    let model = Model::new(&network(false), 8);
    for residency in [Residency::All, Residency::Relay] {
        let mut cascade = model.open(residency);
        let (a, b) = (embeddings(&[5, 6]), embeddings(&[7, 8]));
        let mut with = |leaning: [Option<&Conditioning>; 3]| bytes(&drawn(&mut cascade, json!({}), &leaning));
        let [of_a, of_b] = [&a, &b].map(|one| with([Some(one), None, None]));
        assert_eq!(with([None, Some(&a), Some(&a)]), of_a);
        assert_eq!(with([Some(&b), Some(&a), Some(&a)]), of_a);
        let both = with([Some(&a), None, Some(&b)]);
        assert_eq!(with([Some(&b), Some(&a), None]), both);
        assert!(both != of_a && both != of_b);
        // Where an expert is not guided, its text is not asked.
        let off = json!({ "experts": { "1": { "guidance_scale": 1.0 } } });
        let mut unguided = |leaning| bytes(&drawn(&mut cascade, off.clone(), &leaning));
        assert_eq!(unguided([Some(&a), None, Some(&b)]), unguided([Some(&a), None, None]));
    }
}

/// The last two of these steps are those of the second expert: a multistep rule that begins anew makes Euler's step, and then the last, which
/// is the same in all.
#[test]
fn another_solver_begins_anew_at_the_border() {
    let model = Model::new(&network(false), 8);
    for residency in [Residency::All, Residency::Relay] {
        let mut cascade = model.open(residency);
        let schedule = json!({ "custom": [20.0, 6.0, 2.0, 0.5, 0.2, 0.0] });
        let mut with = |solver: &str, late: &str| {
            let experts = json!({ "1": { "solver": late } });
            plain(&mut cascade, json!({ "solver": solver, "schedule": schedule, "experts": experts }))
        };
        for late in ["dpmpp-2m", "dpmpp-3m", "tab-deis-1"] {
            let off = difference(&with("euler", late), &with("euler", "euler"));
            assert!(off < 1e-5, "{late}: {off}");
            // With one rule on both sides nothing is forgotten.
            let kept = difference(&with(late, late), &with(late, "euler"));
            assert!(kept > 1e-4, "{late}: {kept}");
        }
        // A rule without memory takes over as if it had been there.
        assert_ne!(bytes(&with("heun", "euler")), bytes(&with("euler", "euler")));
        assert_ne!(bytes(&with("heun", "euler")), bytes(&with("heun", "heun")));
    }
}

#[test]
fn steps_are_laid_into_the_interval_of_their_expert() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::Relay);
    let sigmas = |plans: &[StagePlan]| plans[0].plan.steps().iter().map(|step| step.sigma).collect::<Vec<_>>();
    let before = sigmas(&plans(&cascade, json!({})));
    let patch = json!({ "experts": { "1": { "steps": 5 } } });
    let laid = plans(&cascade, patch.clone());
    let after = sigmas(&laid);
    assert_eq!((&after[..2], after[2], after[6], after.len()), (&before[..2], before[2], before[3], 7));
    // The same list by hand.
    let list = [&after[..], &[0.0]].concat();
    let custom = json!({ "schedule": { "custom": list } });
    assert_eq!(bytes(&plain(&mut cascade, patch)), bytes(&plain(&mut cascade, custom)));
    let text = laid[0].to_string();
    assert!(text.ends_with("expert 1: steps 3-7 of 7, sigma 0.47 to 0.002, steps of its own"), "{text}");
    let told = plans(&cascade, json!({ "experts": { "0": { "guidance_scale": 2.5, "solver": "heun" } } }));
    assert!(told[0].to_string().starts_with("stage base (8x8), expert 0: steps 1-2 of 4, sigma 80 to "), "{}", told[0]);
    assert!(told[0].to_string().lines().next().unwrap().ends_with(", heun, guidance 2.5"), "{}", told[0]);
}

/// A stage of the model whose experts own these intervals.
fn said(model: &Model, [first, second]: [&str; 2]) -> Result<StageConfig, serde_json::Error> {
    let mut config = serde_json::to_value(&model.config)?;
    for (index, said) in [first, second].into_iter().enumerate() {
        let expert = config["experts"][index].as_object_mut().unwrap();
        expert.remove("sigma");
        expert.insert("interval".to_owned(), said.into());
    }
    serde_json::from_value(config)
}

#[test]
fn a_manifest_says_intervals_in_any_unit() {
    let model = Model::new(&network(false), 8);
    let config = said(&model, ["sigma:1..", "log-snr:0.."]).unwrap();
    assert_eq!(
        config.experts.iter().map(|own| own.sigma).collect::<Vec<_>>(),
        [model.config.experts[0].sigma, model.config.experts[1].sigma]
    );
    assert_eq!(serde_json::from_value::<StageConfig>(json!(config)).unwrap(), config);
    for (intervals, words) in [
        (["timesteps:200..", "rest"], "the network counts no timesteps"),
        (["steps:..2", "steps:3.."], "no expert owns"),
        (["steps:..3", "steps:2.."], "two experts own"),
        (["steps:..9", "rest"], "some of the 4 steps"),
        (["rest", "colour:1.."], "`colour:1..`"),
    ] {
        let error = said(&model, intervals).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut both = serde_json::to_value(&model.config).unwrap();
    both["experts"][0]["interval"] = "sigma:1..".into();
    serde_json::from_value::<StageConfig>(both.clone()).unwrap();
    both["experts"][1]["interval"] = "sigma:..2".into();
    both["experts"][0]["interval"] = "sigma:2..".into();
    let error = serde_json::from_value::<StageConfig>(both.clone()).unwrap_err().to_string();
    assert!(error.contains("experts[0]: `sigma` says [1, inf), `interval` [2, inf)"), "{error}");
    both["experts"][0].as_object_mut().unwrap().remove("interval");
    both["experts"][0].as_object_mut().unwrap().remove("sigma");
    let error = serde_json::from_value::<StageConfig>(both).unwrap_err().to_string();
    assert!(error.contains("missing field `sigma` of experts[0]"), "{error}");
}

/// The last step of any number; a batch that waits and one that does not.
#[test]
fn intervals_by_steps_move_with_the_schedule() {
    let mut model = Model::new(&network(false), 8);
    model.config = said(&model, ["rest", "steps:-1.."]).unwrap();
    for residency in [Residency::All, Residency::Relay, Residency::RelayPrefetch] {
        let mut cascade = model.open(residency);
        for steps in [3, 6, 3] {
            let plan = &plans(&cascade, json!({ "steps": steps }))[0].plan;
            let found: Vec<usize> = plan.segments().iter().map(|segment| segment.steps.len()).collect();
            assert_eq!(found, [steps - 1, 1]);
            // The same by sigma: the border lies between the last two.
            let sigmas: Vec<f64> = plan.steps().iter().map(|step| step.sigma).collect();
            let border = (sigmas[steps - 2] * sigmas[steps - 1]).sqrt();
            let mut fixed = model.config.clone();
            for (expert, interval) in fixed.experts.iter_mut().zip([(border, f64::INFINITY), (0.0, border)]) {
                expert.interval = None;
                expert.sigma = ediffi_core::interval::SigmaInterval::new(interval.0, interval.1).unwrap();
            }
            let fixed = Model { config: fixed, folder: tempfile::tempdir().unwrap() };
            for name in ["config.json", "high.safetensors", "low.safetensors"] {
                std::fs::create_dir_all(fixed.folder.path().join("base")).unwrap();
                std::fs::copy(model.folder.path().join("base").join(name), fixed.folder.path().join("base").join(name))
                    .unwrap();
            }
            let expected = bytes(&plain(&mut fixed.open(residency), json!({ "steps": steps })));
            assert_eq!(bytes(&plain(&mut cascade, json!({ "steps": steps }))), expected, "{residency:?} {steps}");
        }
    }
}

#[test]
fn what_no_expert_can_do_is_refused_by_name() {
    let model = Model::new(&network(false), 8);
    let cascade = model.open(Residency::Relay);
    for (patch, words) in [
        (json!({ "experts": { "2": { "steps": 3 } } }), "there is no expert 2"),
        (json!({ "experts": { "1": { "steps": 0 } } }), "steps of expert 1"),
        (json!({ "experts": { "1": { "guidance_scale": -1.0 } } }), "expert 1: scale -1"),
        (json!({ "experts": { "1": { "solver": { "heun": { "s_churn": 4 } } } } }), "expert 1: churn"),
    ] {
        let patch: SettingsPatch = serde_json::from_value(patch).unwrap();
        let error = cascade.plan(0..=0, (None, None), |_| Some(&patch)).unwrap_err();
        let Error::Setting { field, source, .. } = &error else { unreachable!("{error}") };
        assert!(field == "experts" && source.to_string().contains(words), "{error}");
    }
    // Weights of the experts on both sides of a hole.
    let mut config = model.config.clone();
    config.experts[1].sigma = ediffi_core::interval::SigmaInterval::new(0.0, 0.5).unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("experts[0] (base/high.safetensors) and experts[1] (base/low.safetensors)"), "{error}");
    let mut cascade = model.open(Residency::Relay);
    let plans = plans(&cascade, json!({}));
    let (own, nothing) = (embeddings(&SEEDS), Conditioning::default());
    for (stage, expert) in [("base", 2), ("sr", 0)] {
        let told = [ToldExpert { stage, expert, unconditional: &nothing }];
        let job = CascadeJob { told_experts: &told, ..CascadeJob::new(&plans, &own, &SEEDS) };
        let error = cascade.run(job, &mut ()).unwrap_err();
        assert!(matches!(&error, Error::Job { input: "told_experts", .. }), "{error}");
    }
    assert_eq!(plans[0].settings.solver, Solver::DpmPp2M);
}
