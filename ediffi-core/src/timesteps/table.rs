//! Tables of timesteps.
//!
//! DDPM mixes image and noise so that the variance stays: `x_t = sqrt(a_t) y + sqrt(1 - a_t) n`, where `a_t` is the product
//! of `1 - beta_i` up to `t` (Ho et al. 2020, equation 4). Divided by `sqrt(a_t)`, that is EDM's `y + sigma n` with
//! `sigma_t = sqrt((1 - a_t) / a_t)`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::interval::SigmaInterval;
use crate::{Error, Result};

/// The noise levels of the timesteps that a network was trained on.
///
/// There are two readings of a table. The exact one is in f64. Published samplers hold betas and products in f32, which
/// moves a sigma by up to 3e-4 of itself where `1 - a_t` is small. [`sigmas`](Self::sigmas) and the schedules made of
/// timesteps have the published reading, so that a sampler gives what the published ones give;
/// [`timestep`](Self::timestep) knows both.
///
/// In JSON it is a name: `"squared-cosine"`, `"linear"` or `"scaled-linear"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoiseTable {
    /// Nichol and Dhariwal 2021 (equation 17): 1000 timesteps, `beta_t = 1 - f((t + 1) / 1000) / f(t / 1000)` with
    /// `f(s) = cos^2((s + 0.008) / 1.008 pi / 2)`, the last beta cut to 0.999. DeepFloyd IF uses it.
    #[default]
    SquaredCosine,
    /// Ho et al. 2020 (section 4): 1000 timesteps, betas from 1e-4 to 0.02 at even distances.
    Linear,
    /// Stable Diffusion's (Rombach et al. 2022): 1000 timesteps, betas from 0.00085 to 0.012 whose roots are at even distances.
    ScaledLinear,
}

struct Entries {
    alpha_bars: Vec<f32>,
    published: Vec<f64>,
    exact: Vec<f64>,
}

impl Entries {
    /// Those of 1000 betas, which published samplers compute in f64.
    fn new(beta: impl Fn(f64) -> f64) -> Self {
        Self::rounded(&beta, |t| beta(t) as f32)
    }

    /// Those of 1000 betas, which published samplers compute in f32, as `published` says.
    fn rounded(beta: impl Fn(f64) -> f64, published: impl Fn(f64) -> f32) -> Self {
        let betas = || (0..1000_u32).map(|t| beta(f64::from(t)));
        let sigma = |alpha_bar: f64| ((1.0 - alpha_bar) / alpha_bar).sqrt();
        let product = |product: &mut f64, alpha: f64| {
            *product *= alpha;
            Some(*product)
        };
        // libtorch adds up a product of f32 in f64 and rounds every entry.
        let rounded = (0..1000_u32).map(|t| f64::from(1.0 - published(f64::from(t))));
        let alpha_bars: Vec<f32> = rounded.scan(1.0, product).map(|p| p as f32).collect();
        let published = alpha_bars.iter().map(|&alpha_bar| sigma(f64::from(alpha_bar))).collect();
        let exact = betas().map(|beta| 1.0 - beta).scan(1.0, product).map(sigma).collect();
        Self { alpha_bars, published, exact }
    }
}

static SQUARED_COSINE: LazyLock<Entries> = LazyLock::new(|| {
    let f = |s: f64| ((s + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
    Entries::new(|t| (1.0 - f((t + 1.0) / 1000.0) / f(t / 1000.0)).min(0.999))
});

static LINEAR: LazyLock<Entries> = LazyLock::new(|| Entries::new(|t| 1e-4 + (0.02 - 1e-4) * t / 999.0));

static SCALED_LINEAR: LazyLock<Entries> = LazyLock::new(|| {
    let root = |t: f64| {
        let (first, last) = (0.00085_f64.sqrt(), 0.012_f64.sqrt());
        first + (last - first) * t / 999.0
    };
    Entries::rounded(|t| root(t).powi(2), |t| (root(t) as f32).powi(2))
});

impl NoiseTable {
    fn entries(self) -> &'static Entries {
        match self {
            Self::SquaredCosine => &SQUARED_COSINE,
            Self::Linear => &LINEAR,
            Self::ScaledLinear => &SCALED_LINEAR,
        }
    }

    /// How many timesteps there are.
    #[expect(clippy::len_without_is_empty, reason = "a table is never empty")]
    #[must_use]
    pub fn len(self) -> usize {
        self.entries().exact.len()
    }

    /// The products of `1 - beta` as published samplers hold them.
    #[must_use]
    pub fn alpha_bars(self) -> &'static [f32] {
        &self.entries().alpha_bars
    }

    /// The noise levels of the published f32 products, rising: those of schedules made of timesteps.
    #[must_use]
    pub fn sigmas(self) -> &'static [f64] {
        &self.entries().published
    }

    /// The timestep whose published noise level is exactly `sigma`.
    #[must_use]
    pub fn index_of(self, sigma: f64) -> Option<usize> {
        self.sigmas().binary_search_by(|entry| entry.total_cmp(&sigma)).ok()
    }

    /// What a network of this table is told at the noise level `sigma`: the timestep, with a fraction between two. It is
    /// linear in `ln(sigma)` between the entries of the table (k-diffusion's `sigma_to_t`) and ends with the table.
    #[must_use]
    pub fn timestep(self, sigma: f64) -> f64 {
        if let Some(index) = self.index_of(sigma) {
            return index as f64;
        }
        let exact = &self.entries().exact;
        let above = exact.partition_point(|&entry| entry <= sigma).clamp(1, exact.len() - 1);
        match exact.get(above - 1..=above) {
            Some([low, high]) => {
                let fraction = (sigma.ln() - low.ln()) / (high.ln() - low.ln());
                (above - 1) as f64 + fraction.clamp(0.0, 1.0)
            }
            _ => 0.0,
        }
    }

    /// The noise levels below a timestep: those of the timesteps before it, and what is under them. An expert with this interval draws what
    /// remains when a sampler comes to `timestep`.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] for timestep 0 and for one that the table does not have.
    pub fn below(self, timestep: usize) -> Result<SigmaInterval> {
        match self.sigmas().get(timestep) {
            Some(&sigma) if timestep > 0 => SigmaInterval::new(0.0, sigma),
            _ => {
                Err(Error::InvalidSchedule(format!("there is nothing below timestep {timestep}, or no such timestep")))
            }
        }
    }

    /// The noise levels that are left when a `fraction` of the schedule is done, counted in timesteps as diffusers counts its
    /// `denoising_start`: 0.8 leaves the timesteps below 200, which SDXL's refiner was trained on.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] unless the fraction is above 0 and below 1, by a timestep at least.
    pub fn after(self, fraction: f64) -> Result<SigmaInterval> {
        self.below(self.left_after(fraction))
    }

    /// How many timesteps are left when a `fraction` is done: diffusers' `round(n - fraction n)`, where Python rounds halves to even.
    pub(crate) fn left_after(self, fraction: f64) -> usize {
        let all = self.len() as f64;
        let left = (all - fraction * all).round_ties_even();
        if left > 0.0 { left as usize } else { 0 }
    }

    /// `steps` timesteps at even distances from 0, descending: diffusers' spacing "leading". With few steps it does not
    /// begin near the top: 10 steps begin at timestep 900 of 1000, where the sigma of the squared cosine is 6.4.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] unless `steps` is in `1..=`[`len`](Self::len).
    pub fn leading(self, steps: usize) -> Result<Vec<usize>> {
        let all = self.len();
        if !(1..=all).contains(&steps) {
            let reason = format!("{steps} steps: there are {all} timesteps, and at least one is needed");
            return Err(Error::InvalidSchedule(reason));
        }
        let distance = all / steps;
        Ok((0..steps).rev().map(|step| step * distance).collect())
    }

    /// The published noise levels of descending timesteps, then 0. Timesteps beyond the table are left out.
    pub(crate) fn schedule(self, timesteps: &[usize]) -> Vec<f64> {
        let sigmas = timesteps.iter().filter_map(|&t| self.sigmas().get(t).copied());
        sigmas.chain(std::iter::once(0.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tch::{Kind, Tensor};

    use super::*;
    use crate::denoiser::denoise_with;
    use crate::precondition::{Epsilon, Precondition, SampleOnTable, Velocity};

    fn table() -> NoiseTable {
        NoiseTable::SquaredCosine
    }

    fn tensors(name: &str) -> BTreeMap<String, Tensor> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/deepfloyd/");
        Tensor::read_safetensors(format!("{folder}{name}")).unwrap().into_iter().collect()
    }

    fn doubles(x: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(&x.to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn the_table_is_that_of_diffusers_bit_for_bit() {
        let io = tensors("ddpm.safetensors");
        assert_eq!(Vec::<f32>::try_from(&io["alphas_cumprod"]).unwrap(), table().alpha_bars());
    }

    #[test]
    fn leading_timesteps_are_those_of_diffusers() {
        let io = tensors("ddpm.safetensors");
        for steps in [8, 50, 100, 185] {
            let expected = Vec::<i64>::try_from(&io[&format!("leading_{steps}")]).unwrap();
            let found: Vec<i64> = table().leading(steps).unwrap().into_iter().map(|t| t as i64).collect();
            assert_eq!(found, expected, "{steps}");
        }
        assert_eq!(table().leading(1000).unwrap().len(), 1000);
        assert!(table().leading(0).is_err() && table().leading(1001).is_err());
    }

    /// A last beta that is not cut fails here and bit for bit above; a timestep that is rounded fails here and in the closed
    /// form.
    #[test]
    fn the_exact_noise_levels_and_their_timesteps_are_those_of_k_diffusion() {
        let io = tensors("edm.safetensors");
        for (t, (found, expected)) in table().entries().exact.iter().zip(doubles(&io["sigmas"])).enumerate() {
            assert!((found / expected - 1.0).abs() < 1e-12, "{t}: {found} {expected}");
        }
        for (sigma, expected) in doubles(&io["sigma"]).into_iter().zip(doubles(&io["timestep"])) {
            assert!(
                (table().timestep(sigma) - expected).abs() < 1e-6,
                "{sigma}: {} {expected}",
                table().timestep(sigma)
            );
        }
        assert_eq!((table().timestep(1e-9), table().timestep(1e9)), (0.0, 999.0));
    }

    /// The closed form of the squared cosine, which only the cut of the last beta departs from; between two entries it is
    /// not quite linear.
    #[test]
    fn timesteps_follow_the_closed_form() {
        let f0 = (0.008_f64 / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
        for sigma in [0.3_f64, 1.0, 6.0, 80.0] {
            let s = 1.008 * 2.0 / std::f64::consts::PI * (f0 / (1.0 + sigma * sigma)).sqrt().acos() - 0.008;
            assert!((table().timestep(sigma) - (1000.0 * s - 1.0)).abs() < 4e-3, "{sigma}");
        }
    }

    /// Ho et al. give both ends of the betas; for few steps of small betas the product is about the exponential of their sum.
    #[test]
    fn the_linear_table_has_the_published_ends() {
        let bars = NoiseTable::Linear.alpha_bars();
        assert!((f64::from(bars[0]) - (1.0 - 1e-4)).abs() < 1e-7 && (bars[999] / bars[998] - 0.98).abs() < 1e-4);
        let log: f64 = (0..1000).map(|t| -(1e-4 + 0.0199 * f64::from(t) / 999.0)).map(f64::ln_1p).sum();
        assert!((f64::from(bars[999]).ln() / log - 1.0).abs() < 1e-5);
    }

    /// Published samplers compute the betas of both linear tables in f32, by instructions that differ between machines: a product is off
    /// by a few units in its last place. The betas of the squared cosine are computed in f64.
    #[test]
    fn every_table_is_that_of_diffusers() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stable-diffusion/tables.safetensors");
        let io: BTreeMap<String, Tensor> = Tensor::read_safetensors(folder).unwrap().into_iter().collect();
        for (name, table, tolerance) in [
            ("squared_cosine", NoiseTable::SquaredCosine, 0.0),
            ("linear", NoiseTable::Linear, 2e-6),
            ("scaled_linear", NoiseTable::ScaledLinear, 2e-6),
        ] {
            let expected = doubles(&io[&format!("{name}.alpha_bars")]);
            assert_eq!(expected.len(), table.len());
            for (t, (&found, expected)) in table.alpha_bars().iter().zip(expected).enumerate() {
                assert!((f64::from(found) / expected - 1.0).abs() <= tolerance, "{name} {t}: {found} {expected}");
            }
        }
    }

    /// The denoised image of each kind of prediction, at five timesteps of each table.
    #[test]
    fn predictions_on_every_table_are_those_of_diffusers() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stable-diffusion/tables.safetensors");
        let io: BTreeMap<String, Tensor> = Tensor::read_safetensors(folder).unwrap().into_iter().collect();
        let mut seen = 0;
        for (name, table) in [
            ("squared_cosine", NoiseTable::SquaredCosine),
            ("linear", NoiseTable::Linear),
            ("scaled_linear", NoiseTable::ScaledLinear),
        ] {
            let predictions: [(&str, &dyn Precondition); 3] = [
                ("epsilon", &Epsilon::new(table)),
                ("v_prediction", &Velocity::new(table)),
                ("sample", &SampleOnTable::new(table)),
            ];
            for (prediction, precondition) in predictions {
                for t in Vec::<i64>::try_from(&io["steps"]).unwrap() {
                    let sigma = table.sigmas()[t as usize];
                    let x = &io["state"].to_kind(Kind::Double) * 1_f64.hypot(sigma);
                    let denoised = denoise_with(precondition, &x, sigma, |input, c_noise| {
                        assert_eq!(c_noise, t as f64);
                        assert!((input - &io["state"]).abs().max().double_value(&[]) < 1e-6);
                        Ok(io["answer"].shallow_clone())
                    });
                    let expected = io[&format!("{name}.{prediction}.{t}")].to_kind(Kind::Double);
                    let off = (denoised.unwrap() - &expected).abs().max().double_value(&[]);
                    // Where 1 - a_t is small, a product off by its last place moves sigma by up to 1e-4 of itself.
                    let bound = 5e-6 * expected.abs().max().double_value(&[]).max(1.0);
                    assert!(off <= bound, "{name} {prediction} {t}: {off:.1e}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 45);
    }

    #[test]
    fn a_published_level_has_its_own_timestep() {
        for (t, &sigma) in table().sigmas().iter().enumerate() {
            assert_eq!((table().index_of(sigma), table().timestep(sigma)), (Some(t), t as f64));
        }
        assert_eq!(table().index_of(0.5), None);
        let (table, sigmas) = (table(), table().sigmas().to_vec());
        assert_eq!(table.schedule(&[999, 10, 0]), [sigmas[999], sigmas[10], sigmas[0], 0.0]);
    }

    /// diffusers: `round(1000 - denoising_start * 1000)` is the first timestep that the refiner leaves to the base.
    #[test]
    fn intervals_are_counted_in_timesteps() {
        let table = NoiseTable::ScaledLinear;
        assert_eq!(table.after(0.8).unwrap(), table.below(200).unwrap());
        let interval = table.below(200).unwrap();
        assert!(interval.contains(table.sigmas()[199]) && !interval.contains(table.sigmas()[200]));
        assert!(interval.contains(table.sigmas()[0]));
        for wrong in [table.below(0), table.below(1000), table.after(1.0), table.after(0.0), table.after(f64::NAN)] {
            assert!(matches!(wrong, Err(Error::InvalidSchedule(_))), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn timesteps_rise_with_the_noise(ln_sigma in -6.0..11.0_f64, factor in 1.001..3.0_f64) {
            let sigma: f64 = ln_sigma.exp();
            let (low, high) = (table().timestep(sigma), table().timestep(sigma * factor));
            prop_assert!((0.0..=999.0).contains(&low) && low <= high);
        }
    }
}
