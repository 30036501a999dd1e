//! AdamW (Loshchilov & Hutter 2019) over f32 master weights, with warm-up and gradient clipping.
//!
//! `tch` gives no access to the state of libtorch's own optimizer, which a resumed training needs. Its kernel is called where it can be
//! had (`fused.rs`).

use tch::{Kind, Tensor};

use crate::Result;
use crate::error::{expect_decay, expect_not_negative, expect_positive, expect_setting};
use crate::flat::{Layout, norm};
use crate::fused::{self, Numbers, Tensors};

/// Elements that [`plain`] goes through at a time: its intermediate results then stay small.
const PART: i64 = 1 << 20;

/// Settings of AdamW. The defaults are eDiff-I's (table 7). Warm-up and clipping are those of NVIDIA's open relative (NeMo).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Decay of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices and kernels. Vectors (biases, gains) do not decay.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly from zero.
    pub warm_up: u64,
    /// Steps over which the learning rate falls along a half cosine to a tenth. `None` keeps it constant.
    pub decay_steps: Option<u64>,
    /// Largest norm of all gradients together; infinite for no limit.
    pub clip: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.01,
            warm_up: 10_000,
            decay_steps: None,
            clip: 1.0,
        }
    }
}

impl AdamWSettings {
    /// Fails with the first field that makes no sense.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self { learning_rate, betas, epsilon, weight_decay, clip, .. } = *self;
        expect_positive("learning_rate", learning_rate)?;
        expect_decay("betas.0", betas.0)?;
        expect_decay("betas.1", betas.1)?;
        expect_positive("epsilon", epsilon)?;
        expect_not_negative("weight_decay", weight_decay)?;
        expect_setting(clip > 0.0, "clip", clip, "is not positive")
    }

    /// Learning rate of step `step`, counted from 0.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let decay = self.decay_steps.map_or(1.0, |steps| {
            let done = (step as f64 / steps.max(1) as f64).min(1.0);
            0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
        });
        self.learning_rate * warm * decay
    }
}

/// The moments of AdamW, laid out as the parameters are.
#[derive(Debug)]
pub(crate) struct AdamW {
    pub(crate) settings: AdamWSettings,
    pub(crate) first: Tensor,
    pub(crate) second: Tensor,
}

impl AdamW {
    /// Moments at zero.
    pub(crate) fn new(settings: AdamWSettings, layout: &Layout) -> Result<Self> {
        settings.validate()?;
        Ok(Self { settings, first: layout.zeros(Kind::Float)?, second: layout.zeros(Kind::Float)? })
    }

    /// Step number `step`, from 0, with `gradients` divided by `accumulated`. Clears them and returns their norm before clipping,
    /// [] f64 where the weights are: nothing waits for it here. A parameter that is not `used` stays as it is. Where the norm is not
    /// finite, weights and moments stay as they were, and the caller may go on with another batch.
    pub(crate) fn step(
        &mut self,
        layout: &Layout,
        weights: &Tensor,
        (gradients, used): (&mut Tensor, &[bool]),
        step: u64,
        accumulated: f64,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let AdamWSettings { betas, epsilon, weight_decay, clip, .. } = self.settings;
        let norm = norm(gradients)?.f_div_scalar(accumulated)?;
        let scale = norm.f_div_scalar(clip)?.f_clamp_min(1.0)?.f_mul_scalar(accumulated)?.f_to_kind(Kind::Float)?;
        let skip = norm.f_isfinite()?.f_logical_not()?.f_to_kind(Kind::Float)?;
        let number = Tensor::f_full([] as [i64; 0], (step + 1) as f64, (Kind::Float, weights.device()))?;
        for (matrices, weight_decay) in [(true, weight_decay), (false, 0.0)] {
            let pieces = layout.pieces(used, matrices);
            if pieces.is_empty() {
                continue;
            }
            let cut = |buffer: &Tensor| -> Result<Vec<Tensor>> {
                pieces.iter().map(|piece| Ok(buffer.f_narrow(0, piece.start, piece.end - piece.start)?)).collect()
            };
            let (weights, gradients, first, second) =
                (cut(weights)?, cut(gradients)?, cut(&self.first)?, cut(&self.second)?);
            let tensors = Tensors { weights: &weights, gradients: &gradients, first: &first, second: &second };
            let rate = self.settings.rate(step);
            let numbers = Numbers { step: &number, scale: &scale, skip: &skip, rate, betas, weight_decay, epsilon };
            if !fused::adamw(&tensors, &numbers) {
                plain(&tensors, &numbers, step)?;
            }
        }
        let _ = gradients.f_zero_()?;
        Ok(norm)
    }
}

/// What [`fused::adamw`] does, in operations of `tch`. It waits for the norm.
fn plain(tensors: &Tensors<'_>, numbers: &Numbers<'_>, step: u64) -> Result<()> {
    let Numbers { rate, betas: (beta1, beta2), weight_decay, epsilon, .. } = *numbers;
    if numbers.skip.f_double_value(&[])? != 0.0 {
        return Ok(());
    }
    let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
    let (bias1, bias2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
    // m̂ / (√v̂ + ε) with both corrections in the two numbers: each pass over the weights counts.
    let (step_size, epsilon) = (rate * bias2.sqrt() / bias1, epsilon * bias2.sqrt());
    let pairs = tensors.weights.iter().zip(tensors.gradients);
    for ((weights, gradients), (first, second)) in pairs.zip(tensors.first.iter().zip(tensors.second)) {
        let parts = [weights, gradients, first, second].map(|buffer| buffer.f_split(PART, 0));
        let [weights, gradients, first, second] = parts;
        let pairs = weights?.into_iter().zip(gradients?);
        for ((mut weights, mut gradients), (mut first, mut second)) in pairs.zip(first?.into_iter().zip(second?)) {
            let _ = gradients.f_div_(numbers.scale)?;
            let _ = first.f_lerp_(&gradients, 1.0 - beta1)?;
            let _ = second.f_lerp_(&gradients.f_square()?, 1.0 - beta2)?;
            if weight_decay > 0.0 {
                let _ = weights.f_mul_scalar_(1.0 - rate * weight_decay)?;
            }
            let denominator = second.f_sqrt()?.f_add_scalar_(epsilon)?;
            let _ = weights.f_addcdiv_(&first.f_mul_scalar(-step_size)?, &denominator)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
            let given =
                |(values, shape): &(&[f32], &[i64])| ("w".to_owned(), Tensor::from_slice(values).reshape(*shape));
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
            let (number, scale, skip) =
                (number((step + 1) as f64), number(2.5), number(f64::from(u8::from(step == 2))));
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
                if kernel { fused::adamw(&tensors, &numbers) } else { plain(&tensors, &numbers, step).is_ok() }
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
}
