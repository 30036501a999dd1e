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
            if !fused::adamw(&tensors, &numbers)? {
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
mod tests;
