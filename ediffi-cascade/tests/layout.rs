//! Layout guidance: what it adds to the estimate is the gradient of the hook's energy.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;
use std::sync::Mutex;

use common::{Model, difference, embeddings, network};
use ediffi_cascade::{Cascade, CascadeJob, SettingsPatch, StageEvent, StagePlan, Tiling};
use ediffi_core::Result;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::Noise;
use ediffi_core::solver::Solver;
use tch::{Kind, Tensor};

const SEEDS: [u64; 2] = [1, 2];
const SIGMA: f64 = 2.0;

/// Biases the scores, and has the sum of their squares, of both kinds of columns, as energy from noise level 1 up.
#[derive(Debug, Default)]
struct Squares {
    guides: bool,
    /// Of every layer and evaluation.
    seen: Mutex<Vec<Tensor>>,
}

impl Squares {
    /// The mean over layers of the energies that are seen while `draw` draws.
    fn energy_at(&self, draw: impl FnOnce(&Self)) -> Tensor {
        self.seen.lock().unwrap().clear();
        draw(self);
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.iter().map(Tensor::shallow_clone).reduce(|sum, layer| sum + layer).unwrap() / seen.len() as f64
    }
}

impl ScoreBias for Squares {
    fn bias(&self, site: &Site<'_>) -> Result<Option<Bias>> {
        // The same for every picture: what a bias owes to the scores has no part in the gradient.
        let shape = site.shape();
        let count = shape.iter().skip(2).product::<i64>();
        let bias = Tensor::f_arange(count, (Kind::Float, site.device()))?.f_div_scalar(count)?;
        Ok(Some(Bias::Dense(bias.f_view([1, 1, shape[2], shape[3]])?)))
    }

    fn guides(&self, sigma: f64) -> bool {
        self.guides && sigma >= 1.0
    }

    fn energy(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        let all = Tensor::f_cat(&[site.scores()?, site.other_scores()?], -1)?;
        let energy = all.f_square()?.f_sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Float)?;
        self.seen.lock().unwrap().push(energy.detach());
        Ok(Some(energy))
    }
}

/// Noise from elsewhere.
struct Given(Tensor);

impl NoiseSource for Given {
    fn normal(&mut self, _: &[i64]) -> Result<Tensor> {
        Ok(self.0.shallow_clone())
    }
}

fn plan(cascade: &Cascade, sigma: f64, guidance: f64, tiling: Option<Tiling>) -> StagePlan {
    let schedule = serde_json::json!({ "custom": [sigma, 0.0] });
    let patch = serde_json::json!({ "solver": Solver::Euler, "schedule": schedule, "guidance": { "scale": guidance } });
    let mut patch: SettingsPatch = serde_json::from_value(patch).unwrap();
    patch.tiling = tiling;
    cascade.plan(0..=0, (None, None), |_| Some(&patch)).unwrap().remove(0)
}

/// The estimate of the only step, at the noisy pictures `x`.
fn estimate(cascade: &mut Cascade, plan: StagePlan, x: &Tensor, hook: &Squares) -> Tensor {
    let (sigma, plans) = (plan.plan.steps()[0].sigma, [plan]);
    let start = x / sigma;
    let mut noise = |_: &str, _: &[u64]| -> Box<dyn NoiseSource> { Box::new(Given(start.shallow_clone())) };
    let mut kept = None;
    let mut watch = |event: &StageEvent<'_>| {
        if let StageEvent::Step { denoised, .. } = event {
            assert!(!denoised.requires_grad());
            kept = Some(denoised.copy());
        }
        ControlFlow::Continue(())
    };
    let conditioning = embeddings(&SEEDS);
    let job =
        CascadeJob { paint: Some(hook), noise: Some(&mut noise), ..CascadeJob::new(&plans, &conditioning, &SEEDS) };
    cascade.run(job, &mut watch).unwrap();
    kept.unwrap()
}

fn noisy(sigma: f64) -> Tensor {
    Noise::new(&SEEDS, 3).normal(&[2, 3, 8, 8]).unwrap() * sigma
}

#[test]
fn the_estimate_moves_against_the_gradient_of_the_energy() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::Relay);
    let (off, on) = (Squares::default(), Squares { guides: true, ..Squares::default() });
    let x = noisy(SIGMA);
    for guidance in [1.0, 3.0] {
        let mut at = |x: &Tensor, hook: &Squares| {
            let plan = plan(&cascade, SIGMA, guidance, None);
            estimate(&mut cascade, plan, x, hook)
        };
        let pull = at(&x, &on) - at(&x, &off);
        // Along a direction of each picture of its own, by differences in the middle.
        let along = Noise::new(&SEEDS, 4).normal(&[2, 3, 8, 8]).unwrap();
        let step = 1e-2;
        let mut energy = |x: &Tensor| on.energy_at(|hook| drop(at(x, hook)));
        let slope = (energy(&(&x + &along * step)) - energy(&(&x - &along * step))) / (2.0 * step);
        let expected = slope * -(SIGMA * SIGMA);
        let found = (pull * along).sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Float);
        let error = (&found - &expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
        assert!(error < 5e-3, "{found:?} {expected:?}");
    }
}

#[test]
fn it_acts_at_its_noise_levels_alone_and_each_picture_has_its_own() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::All);
    let (off, on) = (Squares::default(), Squares { guides: true, ..Squares::default() });
    let x = noisy(0.5);
    let mut late = |hook: &Squares| {
        let plan = plan(&cascade, 0.5, 3.0, None);
        estimate(&mut cascade, plan, &x, hook)
    };
    assert_eq!(difference(&late(&on), &late(&off)), 0.0);
    // What the second picture is does not matter to the first.
    let (x, other) = (noisy(SIGMA), noisy(SIGMA));
    let _ = other.narrow(0, 1, 1).zero_();
    let mut first = |x: &Tensor| {
        let plan = plan(&cascade, SIGMA, 3.0, None);
        estimate(&mut cascade, plan, x, &on).narrow(0, 0, 1)
    };
    assert!(difference(&first(&x), &first(&other)) < 1e-5);
}

#[test]
fn tiles_are_pulled_each_and_blended() {
    let model = Model::new(&network(false), 8);
    let mut cascade = model.open(Residency::All);
    let (off, on) = (Squares::default(), Squares { guides: true, ..Squares::default() });
    let tiling = Some(Tiling { tile: 4, overlap: 0 });
    let mut pull = |x: &Tensor| {
        let [with, without] = [&on, &off].map(|hook| {
            let plan = plan(&cascade, SIGMA, 3.0, tiling);
            estimate(&mut cascade, plan, x, hook)
        });
        with - without
    };
    let (x, other) = (noisy(SIGMA), noisy(SIGMA));
    let _ = other.narrow(3, 4, 4).zero_();
    let (whole, changed) = (pull(&x), pull(&other));
    let left = |x: &Tensor| x.narrow(3, 0, 4);
    assert!(difference(&left(&whole), &left(&changed)) < 1e-5);
    assert!(left(&whole).abs().max().double_value(&[]) > 1e-3);
    assert!(difference(&whole, &changed) > 1e-3);
}
