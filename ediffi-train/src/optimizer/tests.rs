//! AdamW by hand, beside libtorch's own, and beside its kernel.

use std::sync::Arc;

use tch::nn::OptimizerConfig;
use tch::{Device, nn};

use super::*;
use crate::Error;
use crate::flat::Gradients;

/// Parameters with what trains them.
struct Training {
    layout: Arc<Layout>,
    parameters: Vec<Tensor>,
    weights: Tensor,
    gradients: Gradients,
    optimizer: AdamW,
}

impl Training {
    fn of(settings: AdamWSettings, parameters: &[(&[f32], &[i64])]) -> Self {
        let given = |(values, shape): &(&[f32], &[i64])| ("w".to_owned(), Tensor::from_slice(values).reshape(*shape));
        let given: Vec<_> = parameters.iter().map(given).collect();
        let layout = Arc::new(Layout::of(&given).unwrap());
        let weights = layout.zeros(Kind::Float).unwrap();
        let views = layout.views(&weights).unwrap();
        let parameters = views.into_iter().zip(&given).map(|(mut view, (_, value))| {
            view.copy_(value);
            view.set_requires_grad(true)
        });
        let parameters: Vec<_> = parameters.collect();
        let leaves = parameters.iter().map(Tensor::shallow_clone).enumerate().collect();
        let gradients = Gradients::of(&layout, leaves);
        let optimizer = AdamW::new(settings, &layout).unwrap();
        Self { layout, parameters, weights, gradients, optimizer }
    }

    /// Leaves `gradient` in a parameter, on top of what is there.
    fn push(&self, parameter: usize, gradient: &Tensor) {
        (&self.parameters[parameter] * gradient).sum(Kind::Float).backward();
    }

    fn step(&mut self, step: u64) -> f64 {
        let gathered = self.gradients.gathered().unwrap().unwrap();
        let norm = self.optimizer.step(&self.layout, &self.weights, gathered, step, 1.0).unwrap();
        norm.double_value(&[])
    }

    fn first(&self, parameter: usize) -> Tensor {
        self.layout.views(&self.optimizer.first).unwrap().swap_remove(parameter)
    }
}

fn plain_settings(learning_rate: f64) -> AdamWSettings {
    AdamWSettings { learning_rate, warm_up: 1, clip: f64::INFINITY, ..AdamWSettings::default() }
}

/// With β = (0.9, 0.99) and gradients 0.5, −0.25: m₁ = 0.05, v₁ = 0.0025, m₂ = 0.02, v₂ = 0.0031; the decay takes
/// 5 % first. w₁ = 0.95 − 0.1 · 0.5 / 0.5, w₂ = 0.95 w₁ − 0.1 · (0.02 / 0.19) / √(0.0031 / 0.0199).
#[test]
fn two_steps_by_hand() {
    let settings = AdamWSettings { betas: (0.9, 0.99), weight_decay: 0.5, ..plain_settings(0.1) };
    let mut training = Training::of(settings, &[(&[1.0], &[1, 1])]);
    for (step, (gradient, norm, expected)) in (0..).zip([(0.5, 0.5, 0.85), (-0.25, 0.25, 0.780_830_06)]) {
        training.push(0, &Tensor::from_slice(&[gradient as f32]));
        assert_eq!(training.step(step), norm);
        let w = &training.parameters[0];
        assert!((w.double_value(&[0, 0]) - expected).abs() < 1e-6, "step {step}");
        assert_eq!(w.grad().double_value(&[0, 0]), 0.0);
    }
}

#[test]
fn agrees_with_libtorch() {
    let start: Vec<f32> = (0..12_u8).map(|i| (f32::from(i) * 1.3).sin()).collect();
    // The larger one is of the size of the gradients, so that it matters how it is corrected.
    for epsilon in [1e-8, 0.1] {
        let settings = AdamWSettings { weight_decay: 0.1, epsilon, ..plain_settings(3e-3) };
        let mut training = Training::of(settings, &[(&start, &[3, 4])]);
        let store = nn::VarStore::new(Device::Cpu);
        let theirs = store.root().var_copy("w", &Tensor::from_slice(&start).reshape([3, 4]));
        let reference = nn::AdamW { wd: 0.1, eps: epsilon, ..nn::AdamW::default() };
        let mut reference = reference.build(&store, 3e-3).unwrap();
        for step in 0..50 {
            let gradient =
                (&training.parameters[0].detach() * (step as f64 * 0.7).cos() + (step as f64).sin()).contiguous();
            training.push(0, &gradient);
            training.step(step);
            reference.zero_grad();
            (&theirs * &gradient).sum(Kind::Float).backward();
            reference.step();
        }
        let ours = &training.parameters[0];
        let moved = (ours - Tensor::from_slice(&start).reshape([3, 4])).abs().max().double_value(&[]);
        let apart = (ours - &theirs).abs().max().double_value(&[]);
        assert!(moved > 0.01 && apart < 1e-6, "epsilon {epsilon}: moved {moved}, apart {apart}");
    }
}

/// The kernel and what stands in for it: weights, moments and scaled gradients after some steps, and a step that is left out.
#[test]
fn the_kernel_does_what_the_operations_do() {
    let waves = |frequency: f64| (Tensor::arange(5000, (Kind::Float, Device::Cpu)) * frequency).sin();
    let buffers = || [waves(1.7), waves(0.3), Tensor::zeros_like(&waves(1.0)), Tensor::zeros_like(&waves(1.0))];
    let (fused, by_operations) = (buffers(), buffers());
    let number = |value: f64| Tensor::from(value as f32);
    for step in 0..4 {
        for [_, gradients, ..] in [&fused, &by_operations] {
            gradients.shallow_clone().copy_(&waves(0.3 + step as f64));
        }
        let (number, scale, skip) = (number((step + 1) as f64), number(2.5), number(f64::from(u8::from(step == 2))));
        let before = fused[0].copy();
        let numbers = Numbers {
            step: &number,
            scale: &scale,
            skip: &skip,
            rate: 0.01,
            betas: (0.9, 0.99),
            weight_decay: 0.1,
            epsilon: 1e-3,
        };
        let tensors = |[weights, gradients, first, second]: &'_ [Tensor; 4]| {
            [weights, gradients, first, second].map(|x| [x.narrow(0, 0, 3000), x.narrow(0, 3001, 1999)])
        };
        let run = |buffers: &[Tensor; 4], kernel: bool| {
            let [weights, gradients, first, second] = tensors(buffers);
            let tensors = Tensors { weights: &weights, gradients: &gradients, first: &first, second: &second };
            if kernel { fused::adamw(&tensors, &numbers).unwrap() } else { plain(&tensors, &numbers, step).is_ok() }
        };
        let had = run(&fused, true);
        assert_eq!(had, cfg!(all(target_os = "linux", target_arch = "x86_64")));
        if !had {
            return;
        }
        assert!(run(&by_operations, false));
        assert_eq!(before == fused[0], step == 2, "step {step}");
        for (part, (fused, other)) in fused.iter().zip(&by_operations).enumerate() {
            // A step that is left out may leave the gradients as they are: they are cleared next.
            let apart = (fused - other).abs().max().double_value(&[]);
            assert!(apart < 1e-6 || (part, step) == (1, 2), "step {step}, part {part}: {apart}");
        }
    }
}

#[test]
fn a_kernel_that_fails_is_an_error() {
    // AdamW of whole numbers: nothing that the kernel computes.
    let whole = [Tensor::zeros([3], (Kind::Int64, Device::Cpu))];
    let (number, skip) = (Tensor::from(1.0_f32), Tensor::from(0.0_f32));
    let (betas, weight_decay, epsilon) = ((0.9, 0.99), 0.0, 1e-8);
    let numbers = Numbers { step: &number, scale: &number, skip: &skip, rate: 0.1, betas, weight_decay, epsilon };
    let tensors = Tensors { weights: &whole, gradients: &whole, first: &whole, second: &whole };
    match fused::adamw(&tensors, &numbers) {
        Ok(had) => assert!(!had),
        Err(error) => assert!(matches!(error, crate::Error::Fused)),
    }
}

#[test]
fn vectors_do_not_decay() {
    for (shape, expected) in [(vec![2], 1.0), (vec![1, 2], 0.9)] {
        let settings = AdamWSettings { weight_decay: 1.0, ..plain_settings(0.1) };
        let mut training = Training::of(settings, &[(&[1.0, 1.0], &shape)]);
        training.push(0, &Tensor::zeros(&shape, (Kind::Float, Device::Cpu)));
        training.step(0);
        assert!((training.parameters[0].max().double_value(&[]) - expected).abs() < 1e-6, "{shape:?}");
    }
}

/// Gradients (3, 4) of norm 5, limited to 1, are (0.6, 0.8); below the limit they are left alone.
#[test]
fn clips_the_norm_of_all_gradients_together() {
    for (clip, first) in [(1.0, [0.06, 0.08]), (5.5, [0.3, 0.4])] {
        let settings = AdamWSettings { clip, ..plain_settings(0.1) };
        let mut training = Training::of(settings, &[(&[0.0], &[1]), (&[0.0], &[1, 1])]);
        training.push(0, &Tensor::from_slice(&[3.0_f32]));
        training.push(1, &Tensor::from_slice(&[4.0_f32]));
        assert_eq!(training.step(0), 5.0);
        for (parameter, expected) in first.into_iter().enumerate() {
            let moment = training.first(parameter).sum(Kind::Float).double_value(&[]);
            assert!((moment - expected).abs() < 1e-6, "limit {clip}");
        }
    }
}

#[test]
fn warms_up_linearly_and_falls_along_a_cosine_to_a_tenth() {
    let settings = AdamWSettings { learning_rate: 2.0, warm_up: 4, ..AdamWSettings::default() };
    let rates: Vec<f64> = [0, 1, 3, 4, 1_000_000].map(|step| settings.rate(step)).to_vec();
    assert_eq!(rates, [0.5, 1.0, 2.0, 2.0, 2.0]);
    let settings = AdamWSettings { warm_up: 0, decay_steps: Some(100), ..settings };
    for (step, expected) in [(0, 2.0), (50, 1.1), (100, 0.2), (500, 0.2)] {
        assert!((settings.rate(step) - expected).abs() < 1e-12, "step {step}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_but_is_cleared() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut training = Training::of(plain_settings(0.1), &[(&[1.0, 2.0], &[1, 2])]);
        training.push(0, &Tensor::from_slice(&[bad, 1.0]));
        assert!(!training.step(9).is_finite());
        assert_eq!(Vec::<f32>::try_from(training.parameters[0].reshape([-1])).unwrap(), [1.0, 2.0]);
        assert_eq!(training.first(0).abs().max().double_value(&[]), 0.0);
        training.push(0, &Tensor::from_slice(&[1.0_f32, 1.0]));
        assert!(training.step(9).is_finite(), "the bad gradient is gone");
    }
}

/// One that no loss uses does not even decay. From its first gradient on it does, and its moments live on.
#[test]
fn a_parameter_without_gradient_stays() {
    let settings = AdamWSettings { weight_decay: 0.5, ..plain_settings(0.1) };
    let mut training = Training::of(settings, &[(&[1.0], &[1, 1]), (&[1.0], &[1, 1]), (&[1.0], &[1, 1])]);
    let one = Tensor::from_slice(&[1.0_f32]);
    let moved = |training: &Training, before: &[f64]| -> Vec<bool> {
        training.parameters.iter().zip(before).map(|(w, before)| w.double_value(&[0, 0]) != *before).collect()
    };
    let values =
        |training: &Training| -> Vec<f64> { training.parameters.iter().map(|w| w.double_value(&[0, 0])).collect() };
    for (step, pushed, expected) in
        [(0, 0, [true, false, false]), (1, 2, [true, false, true]), (2, 2, [true, false, true])]
    {
        let before = values(&training);
        training.push(pushed, &one);
        training.step(step);
        assert_eq!(moved(&training, &before), expected, "step {step}");
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let good = AdamWSettings::default();
    for (wrong, name) in [
        (AdamWSettings { learning_rate: 0.0, ..good }, "learning_rate"),
        (AdamWSettings { betas: (1.0, 0.9), ..good }, "betas.0"),
        (AdamWSettings { betas: (0.9, f64::NAN), ..good }, "betas.1"),
        (AdamWSettings { epsilon: 0.0, ..good }, "epsilon"),
        (AdamWSettings { weight_decay: -0.1, ..good }, "weight_decay"),
        (AdamWSettings { clip: 0.0, ..good }, "clip"),
    ] {
        let error = AdamW::new(wrong, &Layout::of(&[]).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Setting { field, .. } if field == name), "{error}");
    }
}
