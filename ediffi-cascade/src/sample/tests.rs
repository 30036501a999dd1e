use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ediffi_core::ensemble::Ensemble;
use ediffi_core::nn::Norm;
use ediffi_core::runtime::Runtime;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver};
use ediffi_core::unet::{Adm, Dimensions, Level, UNet, UNetConfig};
use ediffi_core::weights::{self, Fresh, Scope};

use super::*;
use crate::expert::Expert;
use crate::observer::StageEvent;
use crate::settings::SettingsPatch;
use crate::tiling::Tiling;
use crate::{Cascade, CascadeJob, StageConfig};

const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };

/// Three experts without words that meet at sigma 5 and 1.
fn write(folder: &Path) -> StageConfig {
    tch::set_num_threads(1);
    let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false };
    let network: UNetConfig = Adm(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 1,
        channels: 4,
        levels: vec![level],
        head_channels: 4,
        norm: Norm::Group(4),
        embedding_width: 8,
        context: None,
        detail: None,
    })
    .into();
    std::fs::write(folder.join("config.json"), serde_json::to_string(&network).unwrap()).unwrap();
    for expert in 0..3 {
        let mut fresh = Fresh::new(expert, Device::Cpu);
        let _ = UNet::new(Scope::root(&mut fresh), &network, Kind::Float).unwrap();
        let mut jitter = Noise::new(&[expert], 99);
        // Zeros and the identity would hide which expert has worked.
        let mut jittered = |x: Tensor| &x + jitter.normal(&[1, x.numel() as i64]).unwrap().view_as(&x) * 0.1;
        let named: Vec<_> = fresh.into_named().into_iter().map(|(name, x)| (name, jittered(x))).collect();
        weights::save(&folder.join(format!("{expert}.safetensors")), &named, HashMap::new()).unwrap();
    }
    serde_json::from_value(serde_json::json!({
        "name": "base", "size": 8, "network": "config.json", "precondition": { "edm": { "sigma_data": 0.5 } },
        "experts": [
            { "weights": "0.safetensors", "sigma": [5, null] },
            { "weights": "1.safetensors", "sigma": [1, 5] },
            { "weights": "2.safetensors", "sigma": [0, 1] },
        ],
        "sampler": { "solver": "euler", "steps": 6, "schedule": { "karras": { "min": 0.1, "max": 20, "rho": 7 } } },
    }))
    .unwrap()
}

/// What was loaded in a run, and the bits of its pictures.
struct Run {
    loads: Vec<usize>,
    pictures: Vec<u32>,
}

/// Draws pictures in batches of one.
fn run(folder: &Path, config: &StageConfig, residency: Residency, seeds: &[u64], patch: &SettingsPatch) -> Run {
    let mut stage = Stage::open(folder, config, CPU, residency).unwrap();
    let loads = Arc::new(Mutex::new(Vec::new()));
    let (files, told) = (stage.files().to_vec(), Arc::clone(&loads));
    let precondition = config.precondition;
    let loader = Box::new(move |index: usize| {
        told.lock().unwrap().push(index);
        Expert::load(&files[index], precondition, CPU)
    });
    stage.ensemble = Ensemble::new(config.experts().unwrap(), residency, loader);
    let mut cascade = Cascade::new(vec![stage]).unwrap();
    let plans = cascade.plan(0..=0, (None, None), |_| Some(patch)).unwrap();
    let nothing = Conditioning::default();
    let (mut pictures, mut order) = (Vec::new(), Vec::new());
    let mut watch = |event: &StageEvent<'_>| {
        if let StageEvent::Pictures { batch, pictures: drawn } = event {
            order.push(batch.index);
            pictures.extend(Vec::<f32>::try_from(&drawn.flatten(0, -1)).unwrap().into_iter().map(f32::to_bits));
        }
        ControlFlow::Continue(())
    };
    cascade.run(CascadeJob { batch: 1, ..CascadeJob::new(&plans, &nothing, seeds) }, &mut watch).unwrap();
    assert_eq!(order, (0..seeds.len()).collect::<Vec<_>>());
    assert_eq!(cascade.stages()[0].resident().is_empty(), residency != Residency::All);
    let loads = loads.lock().unwrap().clone();
    Run { loads, pictures }
}

/// Every solver, and one in tiles. The steps cross from one expert to the next in their middle: with Heun's rule the second evaluation
/// of such a step and the first of the following one belong to the same expert.
#[test]
fn each_expert_is_loaded_once_for_all_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, config) = (folder.path(), write(folder.path()));
    let heun = Solver::Heun(Churn::NONE);
    let tiles = Tiling { tile: 4, overlap: 0 };
    for (solver, tiling) in Solver::deterministic().map(|solver| (solver, None)).chain([(heun, Some(tiles))]) {
        let patch = SettingsPatch { solver: Some(solver), tiling, ..SettingsPatch::default() };
        let all = run(folder, &config, Residency::All, &[1, 2, 3, 4], &patch);
        assert_eq!(all.loads, [0, 1, 2]);
        for (residency, seeds) in [
            (Residency::Relay, &[1, 2, 3, 4][..]),
            (Residency::Relay, &[1]),
            (Residency::RelayPrefetch, &[1, 2, 3, 4]),
            (Residency::RelayPrefetch, &[1]),
        ] {
            let relay = run(folder, &config, residency, seeds, &patch);
            assert_eq!(relay.loads, [0, 1, 2], "{solver}, {tiling:?}, {residency:?}, {seeds:?}");
            let same = relay.pictures == all.pictures[..relay.pictures.len()];
            assert!(same, "{solver}, {tiling:?}, {residency:?}, {seeds:?}");
        }
    }
}

/// Churn lifts the noise level of a step over the border to the expert before: that is loaded again, once for all batches. Where the
/// first step lies just below a border, the first expert to work is one that the plan does not have.
#[test]
fn churn_goes_back_no_more_often_than_for_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, config) = (folder.path(), write(folder.path()));
    // gamma is sqrt(2) - 1.
    let solver = Some(Solver::Heun(Churn { s_churn: 1e3, ..Churn::NONE }));
    for (sigmas, loads) in [
        (vec![9.0, 4.0, 0.9, 0.3, 0.0], vec![0, 1, 0, 2, 1, 2]),
        (vec![4.0, 3.9, 0.3, 0.0], vec![0, 1, 0, 2]),
        (vec![3.0, 2.0, 1.1, 0.0], vec![1]),
    ] {
        let schedule = Some(Schedule::Custom(sigmas.clone()));
        let patch = SettingsPatch { solver, schedule, ..SettingsPatch::default() };
        let all = run(folder, &config, Residency::All, &[1, 2, 3, 4], &patch);
        for seeds in [&[1][..], &[1, 2, 3, 4]] {
            let relay = run(folder, &config, Residency::Relay, seeds, &patch);
            assert_eq!(relay.loads, loads, "{sigmas:?}, {seeds:?}");
            let ahead = run(folder, &config, Residency::RelayPrefetch, seeds, &patch);
            for run in [relay, ahead] {
                assert!(run.pictures == all.pictures[..run.pictures.len()], "{sigmas:?}, {seeds:?}");
            }
        }
    }
}
