//! DeepFloyd IF's sampling beside diffusers': guided loops state by state, and the noise predictor as D(x; σ).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use common::devices;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Branch, BranchDenoiser, Denoiser, Estimate, estimate_with};
use ediffi_core::guidance::{Guidance, Guided, Rows, Thresholding};
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::{Epsilon, Precondition};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::{Solver, Variance};
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::{Context, PublishedUNet, Tokens, UNet};
use ediffi_core::{Result, weights};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/deepfloyd").join(name)
}

fn tensors(name: &str) -> Tensors {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

/// The network of a stage, for texts of 7 tokens.
fn network(stage: &str, file: &str, device: Device) -> UNet {
    let folder = fixture(stage).join("unet");
    let mut config = PublishedUNet::read(&folder.join("config.json")).unwrap().network;
    let context = config.dimensions.context.as_mut().unwrap();
    context.t5 = context.t5.map(|t5| Tokens { tokens: 7, ..t5 });
    let names = |name: &str| Some(name.to_owned());
    weights::load(&folder.join(file), names, device, Kind::Float, |scope| UNet::new(scope, &config, Kind::Float))
        .unwrap()
}

fn stage_1(device: Device) -> UNet {
    network("stage-1", "diffusion_pytorch_model.fp16.safetensors", device)
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a.to_device(Device::Cpu) - b.to_device(Device::Cpu)).abs().max()).unwrap()
}

/// A network with both conditionings of one picture; keeps what it is given.
struct Recording {
    network: UNet,
    conditional: Context,
    unconditional: Context,
    both: Context,
    /// In DDPM's view.
    states: Vec<Tensor>,
}

impl Recording {
    fn new(network: UNet, io: &Tensors, low_res: Option<(&Tensor, i64)>) -> Self {
        let context = |texts: &[&Tensor]| {
            let rows = texts.len() as i64;
            let repeated = |x: &Tensor| x.repeat([rows, 1, 1, 1]).to_device(network.device());
            let t5 = Some(Tensor::cat(texts, 0));
            let noise_level = low_res.map(|(_, level)| Tensor::full([rows], level, (Kind::Int64, Device::Cpu)));
            let low_res = low_res.map(|(x, _)| repeated(x));
            let conditioning = Conditioning { t5, low_res, noise_level, ..Conditioning::default() };
            network.context(&conditioning, rows).unwrap()
        };
        let (emb, neg) = (&io["emb"], io.get("neg").unwrap_or(&io["emb"]));
        let (conditional, unconditional, both) = (context(&[emb]), context(&[neg]), context(&[emb, neg]));
        Self { network, conditional, unconditional, both, states: Vec::new() }
    }
}

impl BranchDenoiser for Recording {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        self.states.push(x.narrow(0, 0, 1) * epsilon().c_in(sigma));
        let context = match branch {
            Branch::Conditional => &self.conditional,
            Branch::Unconditional => &self.unconditional,
            Branch::Both => &self.both,
            Branch::Weaker => return Err(ediffi_core::Error::NoWeakerNetwork),
        };
        estimate_with(&epsilon(), x, sigma, |input, t| {
            let t = Tensor::full([input.size()[0]], t, (Kind::Float, input.device()));
            self.network.forward(input, &t, context, None)
        })
    }
}

/// DeepFloyd IF's preconditioning.
fn epsilon() -> Epsilon {
    Epsilon::new(NoiseTable::SquaredCosine)
}

/// Noise that was recorded.
struct Recorded(VecDeque<Tensor>);

impl NoiseSource for Recorded {
    fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
        let noise = self.0.pop_front().unwrap();
        assert_eq!(noise.size(), shape);
        Ok(noise)
    }
}

fn recorded(io: &Tensors) -> Recorded {
    Recorded((0..).map_while(|i| io.get(&format!("noise_{i}")).map(Tensor::shallow_clone)).collect())
}

/// Runs a loop and compares every state. Taking the variance of the unconditional half puts the first state off by 0.05 in
/// stage 1 and 0.14 in stage 2.
fn check_loop(denoiser: Recording, io: &Tensors, steps: usize, guidance: Guidance, rows: Rows) {
    let sigmas = Schedule::Leading.sigmas(steps).unwrap();
    let (solver, device) = (Solver::Ddpm(Variance::Learned), denoiser.network.device());
    let mut guided = Guided::new(denoiser, guidance, rows).unwrap();
    let start = io["start"].to_device(device);
    let end = solver.solve(&mut guided, start, &sigmas, &mut recorded(io), &mut ()).unwrap();
    // With rows one after the other, each state is seen twice.
    let mut states = guided.into_inner().states;
    if rows == Rows::Sequential {
        states = states.into_iter().step_by(2).collect();
    }
    assert_eq!(states.len(), steps);
    assert!(difference(&states[0], &io["start"]) < 1e-6);
    states.push(end);
    for (i, state) in states.iter().skip(1).enumerate() {
        let tolerance = if i == 0 { 1e-4 } else { 1e-3 };
        let found = difference(state, &io[&format!("state_{i}")]);
        assert!(found < tolerance, "state {i} is off by {found:.1e}");
    }
}

fn dynamic(scale: f64, cap: f64) -> Guidance {
    Guidance { thresholding: Thresholding::Dynamic { percentile: 0.95, cap: Some(cap) }, ..Guidance::new(scale) }
}

#[test]
fn the_guided_loop_of_stage_1_is_that_of_diffusers() {
    let io = tensors("loop-stage-1.safetensors");
    for device in devices() {
        for rows in [Rows::Batched, Rows::Sequential] {
            check_loop(Recording::new(stage_1(device), &io, None), &io, 8, dynamic(7.0, 1.5), rows);
        }
    }
}

#[test]
fn the_guided_loop_of_stage_2_is_that_of_diffusers() {
    let io = tensors("loop-stage-2.safetensors");
    for device in devices() {
        let network = network("stage-2", "diffusion_pytorch_model.safetensors", device);
        let denoiser = Recording::new(network, &io, Some((&io["noised"], 250)));
        check_loop(denoiser, &io, 6, dynamic(4.0, 1.0), Rows::Batched);
    }
}

#[test]
fn the_noise_predictor_is_the_denoiser_of_k_diffusion() {
    let io = tensors("edm.safetensors");
    for device in devices() {
        let recording = Recording::new(stage_1(device), &io, None);
        let mut denoiser = Guided::new(recording, Guidance::default(), Rows::Batched).unwrap();
        for (i, sigma) in Vec::<f64>::try_from(&io["sigma"]).unwrap().into_iter().enumerate() {
            let denoised = denoiser.denoise(&(&io["unit"] * sigma).to_device(device), sigma).unwrap();
            let found = difference(&denoised, &io[&format!("denoised_{i}")]);
            assert!(found < 2e-5 * sigma.max(1.0), "{device:?}, sigma {sigma}: {found:.1e}");
        }
    }
}

/// The probability-flow solvers see a denoiser like any other: all of them come to the same state as their steps get short.
/// (A random network is the score of no data, its flow is rough: a short piece of it is followed.)
#[test]
fn every_solver_works_on_the_noise_predictor() {
    let io = tensors("loop-stage-1.safetensors");
    let run = |device: Device, solver: Solver, steps: usize| {
        let sigmas = Schedule::Karras { min: 1.97, max: 2.0, rho: 7.0 }.sigmas(steps).unwrap();
        let denoiser = Recording::new(stage_1(device), &io, None);
        let mut guided = Guided::new(denoiser, Guidance::default(), Rows::Batched).unwrap();
        // A corner of it is enough.
        let start = io["start"].narrow(2, 0, 4).narrow(3, 0, 4).to_device(device);
        solver.solve(&mut guided, start, &sigmas, &mut recorded(&io), &mut ()).unwrap()
    };
    for device in devices() {
        let reference = run(device, Solver::Kutta3, 8);
        for solver in Solver::deterministic() {
            let [coarse, fine] = [2, 8].map(|steps| difference(&run(device, solver, steps), &reference));
            assert!(fine < 5e-3 && fine < 0.2 * coarse, "{device:?}, {solver}: {coarse:.1e} {fine:.1e}");
        }
    }
}

/// A state that is no timestep's is refused before anything is computed.
#[test]
fn ddpm_refuses_other_schedules_before_it_computes() {
    let io = tensors("loop-stage-1.safetensors");
    let sigmas = Schedule::edm().sigmas(4).unwrap();
    let mut guided =
        Guided::new(Recording::new(stage_1(Device::Cpu), &io, None), dynamic(7.0, 1.5), Rows::Batched).unwrap();
    let solver = Solver::Ddpm(Variance::Learned);
    let error =
        solver.solve(&mut guided, io["start"].shallow_clone(), &sigmas, &mut recorded(&io), &mut ()).unwrap_err();
    assert!(error.to_string().contains("timesteps"), "{error}");
    assert!(guided.into_inner().states.is_empty());
}
