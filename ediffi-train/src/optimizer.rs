//! AdamW (Loshchilov & Hutter 2019) over f32 master weights, with warm-up and gradient clipping.
//!
//! `tch` gives no access to the state of libtorch's own optimizer, which a resumed training needs.

use tch::{Kind, Tensor};

use crate::error::{expect_decay, expect_not_negative, expect_positive, expect_setting};
use crate::{Error, Result};

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

/// The moments of AdamW for a list of parameters.
#[derive(Debug)]
pub(crate) struct AdamW {
    pub(crate) settings: AdamWSettings,
    pub(crate) first: Vec<Tensor>,
    pub(crate) second: Vec<Tensor>,
}

impl AdamW {
    /// Moments at zero.
    pub(crate) fn new(settings: AdamWSettings, parameters: &[(String, Tensor)]) -> Result<Self> {
        settings.validate()?;
        let zeros = || parameters.iter().map(|(_, p)| Ok(p.f_detach()?.f_zeros_like()?)).collect::<Result<_>>();
        Ok(Self { settings, first: zeros()?, second: zeros()? })
    }

    /// Step number `step`, from 0, with the gradients in `parameters` and in `copies` of them, added in their order and divided by
    /// `accumulated`. Clears the gradients and returns their norm before clipping. A parameter without a gradient stays as it is.
    /// Where the norm is not finite, weights and moments stay as they were, and the caller may go on with another batch.
    pub(crate) fn step(
        &mut self,
        parameters: &[(String, Tensor)],
        copies: &[&[(String, Tensor)]],
        step: u64,
        accumulated: f64,
    ) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let mut gradients = Vec::with_capacity(parameters.len());
        let mut norms = Vec::with_capacity(parameters.len());
        for (index, (_, parameter)) in parameters.iter().enumerate() {
            let mut gradient = parameter.f_grad()?;
            for (_, copy) in copies.iter().filter_map(|copy| copy.get(index)) {
                let mut other = copy.f_grad()?;
                if !gradient.defined() {
                    gradient = other;
                } else if other.defined() {
                    let _ = gradient.f_add_(&other)?;
                    let _ = other.f_zero_()?;
                }
            }
            if gradient.defined() {
                norms.push(gradient.f_norm()?);
            }
            gradients.push(gradient);
        }
        let norm = match norms.is_empty() {
            true => 0.0,
            false => Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?.f_norm()?.f_double_value(&[])? / accumulated,
        };
        if !norm.is_finite() {
            clear(&mut gradients)?;
            return Err(Error::Diverged { step, what: "norm of the gradients", value: norm });
        }
        let scale = (self.settings.clip / norm.max(1e-12)).min(1.0) / accumulated;
        let rate = self.settings.rate(step);
        let decay = rate * self.settings.weight_decay;
        let (beta1, beta2) = self.settings.betas;
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
        // m̂ / (√v̂ + ε) with both corrections in the two numbers: each pass over the weights counts.
        let (step_size, epsilon) = (rate * bias2.sqrt() / bias1, self.settings.epsilon * bias2.sqrt());
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for (((_, parameter), gradient), (first, second)) in parameters.iter().zip(&mut gradients).zip(moments) {
            if !gradient.defined() {
                continue;
            }
            let mut parameter = parameter.shallow_clone();
            let _ = gradient.f_mul_scalar_(scale)?;
            let _ = first.f_lerp_(gradient, 1.0 - beta1)?;
            let _ = second.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
            if parameter.dim() > 1 {
                let _ = parameter.f_mul_scalar_(1.0 - decay)?;
            }
            let denominator = second.f_sqrt()?.f_add_scalar_(epsilon)?;
            let _ = parameter.f_addcdiv_(&first.f_mul_scalar(-step_size)?, &denominator)?;
        }
        clear(&mut gradients)?;
        Ok(norm)
    }
}

fn clear(gradients: &mut [Tensor]) -> Result<()> {
    for gradient in gradients.iter_mut().filter(|gradient| gradient.defined()) {
        let _ = gradient.f_zero_()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::nn::OptimizerConfig;
    use tch::{Device, nn};

    use super::*;

    fn parameter(values: &[f32], shape: &[i64]) -> Vec<(String, Tensor)> {
        vec![("w".to_owned(), Tensor::from_slice(values).reshape(shape).set_requires_grad(true))]
    }

    /// Leaves `gradient` in the parameter, on top of what is there.
    fn push(parameters: &[(String, Tensor)], gradient: &Tensor) {
        (&parameters[0].1 * gradient).sum(Kind::Float).backward();
    }

    fn plain(learning_rate: f64) -> AdamWSettings {
        AdamWSettings { learning_rate, warm_up: 1, clip: f64::INFINITY, ..AdamWSettings::default() }
    }

    /// With β = (0.9, 0.99) and gradients 0.5, −0.25: m₁ = 0.05, v₁ = 0.0025, m₂ = 0.02, v₂ = 0.0031; the decay takes
    /// 5 % first. w₁ = 0.95 − 0.1 · 0.5 / 0.5, w₂ = 0.95 w₁ − 0.1 · (0.02 / 0.19) / √(0.0031 / 0.0199).
    #[test]
    fn two_steps_by_hand() {
        let w = parameter(&[1.0], &[1, 1]);
        let settings = AdamWSettings { betas: (0.9, 0.99), weight_decay: 0.5, ..plain(0.1) };
        let mut optimizer = AdamW::new(settings, &w).unwrap();
        for (step, (gradient, norm, expected)) in (0..).zip([(0.5, 0.5, 0.85), (-0.25, 0.25, 0.780_830_06)]) {
            push(&w, &Tensor::from_slice(&[gradient as f32]));
            assert_eq!(optimizer.step(&w, &[], step, 1.0).unwrap(), norm);
            assert!((w[0].1.double_value(&[0, 0]) - expected).abs() < 1e-6, "step {step}");
            assert_eq!(w[0].1.grad().double_value(&[0, 0]), 0.0);
        }
    }

    #[test]
    fn agrees_with_libtorch() {
        let start: Vec<f32> = (0..12_u8).map(|i| (f32::from(i) * 1.3).sin()).collect();
        // The larger one is of the size of the gradients, so that it matters how it is corrected.
        for epsilon in [1e-8, 0.1] {
            let ours = parameter(&start, &[3, 4]);
            let settings = AdamWSettings { weight_decay: 0.1, epsilon, ..plain(3e-3) };
            let mut optimizer = AdamW::new(settings, &ours).unwrap();
            let store = nn::VarStore::new(Device::Cpu);
            let theirs = store.root().var_copy("w", &Tensor::from_slice(&start).reshape([3, 4]));
            let reference = nn::AdamW { wd: 0.1, eps: epsilon, ..nn::AdamW::default() };
            let mut reference = reference.build(&store, 3e-3).unwrap();
            for step in 0..50 {
                let gradient = (&ours[0].1.detach() * (step as f64 * 0.7).cos() + (step as f64).sin()).contiguous();
                push(&ours, &gradient);
                optimizer.step(&ours, &[], step, 1.0).unwrap();
                reference.zero_grad();
                (&theirs * &gradient).sum(Kind::Float).backward();
                reference.step();
            }
            let moved = (&ours[0].1 - Tensor::from_slice(&start).reshape([3, 4])).abs().max().double_value(&[]);
            let apart = (&ours[0].1 - &theirs).abs().max().double_value(&[]);
            assert!(moved > 0.01 && apart < 1e-6, "epsilon {epsilon}: moved {moved}, apart {apart}");
        }
    }

    #[test]
    fn vectors_do_not_decay() {
        for (shape, expected) in [(vec![2], 1.0), (vec![1, 2], 0.9)] {
            let w = parameter(&[1.0, 1.0], &shape);
            let mut optimizer = AdamW::new(AdamWSettings { weight_decay: 1.0, ..plain(0.1) }, &w).unwrap();
            push(&w, &Tensor::zeros(&shape, (Kind::Float, Device::Cpu)));
            optimizer.step(&w, &[], 0, 1.0).unwrap();
            assert!((w[0].1.max().double_value(&[]) - expected).abs() < 1e-6, "{shape:?}");
        }
    }

    /// Gradients (3, 4) of norm 5, limited to 1, are (0.6, 0.8); below the limit they are left alone.
    #[test]
    fn clips_the_norm_of_all_gradients_together() {
        for (clip, first) in [(1.0, [0.06, 0.08]), (5.5, [0.3, 0.4])] {
            let mut w = parameter(&[0.0], &[1]);
            w.extend(parameter(&[0.0], &[1]));
            let mut optimizer = AdamW::new(AdamWSettings { clip, ..plain(0.1) }, &w).unwrap();
            push(&w[..1], &Tensor::from_slice(&[3.0_f32]));
            push(&w[1..], &Tensor::from_slice(&[4.0_f32]));
            assert_eq!(optimizer.step(&w, &[], 0, 1.0).unwrap(), 5.0);
            for (moment, expected) in optimizer.first.iter().zip(first) {
                assert!((moment.double_value(&[0]) - expected).abs() < 1e-6, "limit {clip}");
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
            let w = parameter(&[1.0, 2.0], &[1, 2]);
            let mut optimizer = AdamW::new(plain(0.1), &w).unwrap();
            push(&w, &Tensor::from_slice(&[bad, 1.0]));
            let error = optimizer.step(&w, &[], 9, 1.0).unwrap_err();
            assert!(matches!(error, Error::Diverged { step: 9, value, .. } if !value.is_finite()), "{error}");
            assert_eq!(Vec::<f32>::try_from(w[0].1.reshape([-1])).unwrap(), [1.0, 2.0]);
            assert_eq!(optimizer.first[0].abs().max().double_value(&[]), 0.0);
            push(&w, &Tensor::from_slice(&[1.0_f32, 1.0]));
            assert!(optimizer.step(&w, &[], 9, 1.0).unwrap().is_finite(), "the bad gradient is gone");
        }
    }

    #[test]
    fn a_parameter_without_gradient_stays() {
        let w = parameter(&[1.0], &[1, 1]);
        let mut optimizer = AdamW::new(plain(0.1), &w).unwrap();
        assert_eq!(optimizer.step(&w, &[], 0, 1.0).unwrap(), 0.0);
        assert_eq!(w[0].1.double_value(&[0, 0]), 1.0);
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
            let error = AdamW::new(wrong, &[]).unwrap_err();
            assert!(matches!(error, Error::Setting { field, .. } if field == name), "{error}");
        }
    }
}
