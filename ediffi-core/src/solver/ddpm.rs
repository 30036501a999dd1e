//! Ancestral sampling of DDPM.

use tch::Tensor;

use super::evaluated::{Evaluated, Next, combine, noise_like};
use crate::denoiser::{Estimate, check_shape};
use crate::noise::NoiseSource;
use crate::{Error, Result};

/// The variance of the noise that DDPM adds in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variance {
    /// The network predicts where it lies between its two bounds, in logarithms (Nichol and Dhariwal 2021, equation 15;
    /// diffusers' `learned_range`).
    Learned,
    /// The lower bound, which is the variance of the posterior (Ho et al. 2020, section 3.2; diffusers' `fixed_small`). It is
    /// for networks that predict no variance, and for those that were tuned without training it.
    FixedSmall,
}

/// Ho et al. 2020, algorithm 2, in the variables of the paper: `x` is divided by `sqrt(1 + sigma^2)` for a step and
/// multiplied again after it. The coefficients are made by f32 arithmetic in the published order: at low noise they are
/// small differences of numbers near 1, whose roundings show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ddpm {
    variance: Variance,
}

impl Ddpm {
    /// The rule for a schedule with these positive sigmas, which have to be timesteps.
    pub(super) fn new(variance: Variance, sigmas: &[f64]) -> Result<Self> {
        sigmas.iter().try_for_each(|&sigma| alpha_bar(sigma).map(drop))?;
        Ok(Self { variance })
    }

    pub(super) fn advance(self, evaluated: &Evaluated<'_>, noise: &mut dyn NoiseSource) -> Result<Next> {
        let &Evaluated { x, t, t_next, estimate } = evaluated;
        let products = (alpha_bar(t)?, alpha_bar(t_next)?);
        let inner = x.f_mul_scalar(norm(t).recip())?;
        let inner = step(&inner, estimate, &noise_like(x, noise)?, products, self.variance)?;
        Ok(Next::Reached(inner.f_mul_scalar(norm(t_next))?))
    }
}

/// `sqrt(1 + sigma^2)`: the length of EDM's `x` in units of DDPM's.
pub(super) fn norm(sigma: f64) -> f64 {
    1_f64.hypot(sigma)
}

/// The product of alphas, an f32, from which a table of timesteps has the noise level `sigma`. No table is needed to find it:
/// a table computes its noise levels from such products, so the nearest f32 gives `sigma` back to the last bit. This refuses
/// nearly every other noise level, but not those of another table.
fn alpha_bar(sigma: f64) -> Result<f32> {
    let alpha_bar = sigma.mul_add(sigma, 1.0).recip() as f32;
    let exact = f64::from(alpha_bar);
    if ((1.0 - exact) / exact).sqrt() == sigma {
        return Ok(alpha_bar);
    }
    let reason = format!("ddpm goes along timesteps (schedules `leading` and `preset`), sigma {sigma} is none of them");
    Err(Error::InvalidSolver(reason))
}

/// One step in DDPM's variables, from the product of alphas `here` to that `there`.
fn step(
    x: &Tensor,
    estimate: &Estimate,
    noise: &Tensor,
    (here, there): (f32, f32),
    variance: Variance,
) -> Result<Tensor> {
    let alpha = here / there;
    let (beta, noise_here, noise_there) = (1.0 - alpha, 1.0 - here, 1.0 - there);
    let of_denoised = there.sqrt() * beta / noise_here;
    let of_x = alpha.sqrt() * noise_there / noise_here;
    let mean = combine((of_denoised.into(), &estimate.denoised), &[(of_x.into(), x)])?;
    let smallest = (noise_there / noise_here * beta).max(1e-20);
    let added = match variance {
        Variance::FixedSmall => noise.f_mul_scalar(f64::from(smallest.sqrt()))?,
        Variance::Learned => {
            let Some(fraction) = &estimate.variance else {
                let reason = "the network predicts no variance for ddpm: use ddpm-fixed-small".to_owned();
                return Err(Error::InvalidSolver(reason));
            };
            check_shape(x, fraction, norm(0.0))?;
            let fraction = fraction.f_to_kind(x.f_kind()?)?.f_add_scalar(1.0)?.f_div_scalar(2.0)?;
            let upper = fraction.f_mul_scalar(f64::from(beta.ln()))?;
            let lower = fraction.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(f64::from(smallest.ln()))?;
            upper.f_add(&lower)?.f_mul_scalar(0.5)?.f_exp()?.f_mul(noise)?
        }
    };
    Ok(mean.f_add(&added)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::denoiser::{Denoiser, estimate_with};
    use crate::guidance::Thresholding;
    use crate::precondition::Epsilon;
    use crate::schedule::Schedule;
    use crate::seed::Noise;
    use crate::solver::Solver;
    use crate::timesteps::NoiseTable;

    fn tensors() -> BTreeMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/deepfloyd/ddpm.safetensors");
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    }

    /// DeepFloyd IF's stage I.
    const THRESHOLDING: Thresholding = Thresholding::Dynamic { percentile: 0.95, cap: Some(1.5) };

    /// What the recorded prediction means for the recorded sample at timestep `t`.
    fn estimate(io: &BTreeMap<String, Tensor>, t: usize) -> Estimate {
        let table = NoiseTable::SquaredCosine;
        let sigma = table.sigmas()[t];
        let x = io["sample"].f_mul_scalar(norm(sigma)).unwrap();
        let network = |_: &Tensor, _: f64| Ok(io["prediction"].shallow_clone());
        let estimate = estimate_with(&Epsilon::new(table), &x, sigma, network).unwrap();
        Estimate { denoised: THRESHOLDING.apply(estimate.denoised).unwrap(), ..estimate }
    }

    /// The greatest difference in units of the greatest value.
    fn relative(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max() / b.abs().max()).unwrap()
    }

    /// The image behind strong noise is a difference of two numbers as large as sigma: so large are its roundings, in the
    /// recorded values too. Swapped coefficients fail here, and a variance that is not interpolated in logarithms.
    #[test]
    fn single_steps_are_those_of_diffusers() {
        let (io, table) = (tensors(), NoiseTable::SquaredCosine);
        let products = |t: usize, next: usize| (table.alpha_bars()[t], table.alpha_bars()[next]);
        for (t, next) in [(990, 980), (500, 490), (10, 0)] {
            let estimate = estimate(&io, t);
            let denoised = relative(&estimate.denoised, &io[&format!("denoised_{t}")]) / table.sigmas()[t].max(1.0);
            let noise = &io[&format!("noise_{t}")];
            let previous = step(&io["sample"], &estimate, noise, products(t, next), Variance::Learned).unwrap();
            let previous = relative(&previous, &io[&format!("previous_{t}")]);
            assert!(denoised < 1e-6 && previous < 1e-6, "{t}: {denoised:.1e} {previous:.1e}");
        }
        // The last step is a plain denoising.
        let last = estimate(&io, 0);
        assert!(relative(&last.denoised, &io["denoised_0"]) < 1e-6);
        assert!(relative(&last.denoised, &io["previous_0"]) < 1e-6);
        let fixed =
            step(&io["sample"], &estimate(&io, 500), &io["noise_500"], products(500, 490), Variance::FixedSmall);
        assert!(relative(&fixed.unwrap(), &io["fixed_small_500"]) < 1e-6);
    }

    /// For data that is one point, the states of the chain have the distribution that the table says.
    #[test]
    fn states_have_the_noise_of_their_timestep() {
        let mut point = crate::denoiser::from_fn(|x, _| Ok(x.f_full_like(0.25)?));
        let sigmas = NoiseTable::SquaredCosine.schedule(&[900, 600, 300]);
        let mut noise = Noise::new(&[5], 0);
        let mut seen = Vec::new();
        let mut watched = crate::denoiser::from_fn(|x: &Tensor, sigma: f64| {
            seen.push((sigma, f64::try_from(x.std(true)).unwrap(), f64::try_from(x.mean(tch::Kind::Float)).unwrap()));
            point.denoise(x, sigma)
        });
        // The solver multiplies its start by this.
        let start = (noise.normal(&[1, 1, 100, 100]).unwrap() * sigmas[0] + 0.25) / norm(sigmas[0]);
        let solver = Solver::Ddpm(Variance::FixedSmall);
        let end = solver.solve(&mut watched, start, &sigmas, &mut noise, &mut ()).unwrap();
        assert_eq!(f64::try_from(end.mean(tch::Kind::Float)).unwrap(), 0.25);
        assert_eq!(seen.len(), 3);
        for (sigma, std, mean) in seen {
            // Five standard errors of 10^4 values.
            assert!((std / sigma - 1.0).abs() < 0.036 && (mean - 0.25).abs() < 0.05 * sigma, "{sigma}: {std} {mean}");
        }
    }

    #[test]
    fn every_timestep_has_its_product_of_alphas() {
        let table = NoiseTable::SquaredCosine;
        for (&sigma, &product) in table.sigmas().iter().zip(table.alpha_bars()) {
            assert_eq!(alpha_bar(sigma).unwrap(), product);
        }
        for sigma in Schedule::edm().sigmas(999).unwrap() {
            assert!(sigma == 0.0 || alpha_bar(sigma).is_err(), "{sigma}");
        }
    }

    #[test]
    fn what_ddpm_cannot_do_is_said() {
        let solve = |variance, sigmas: &[f64]| {
            let mut zero = crate::denoiser::from_fn(|x, _| Ok(x.f_zeros_like()?));
            let x = Tensor::ones([1, 3, 2, 2], (tch::Kind::Float, tch::Device::Cpu));
            let noise = &mut Noise::new(&[1], 0);
            Solver::Ddpm(variance).solve(&mut zero, x, sigmas, noise, &mut ()).unwrap_err().to_string()
        };
        let leading = Schedule::Leading.sigmas(4).unwrap();
        assert!(solve(Variance::Learned, &leading).contains("predicts no variance"));
        assert!(solve(Variance::FixedSmall, &[80.0, 1.0, 0.0]).contains("sigma 80 is none of them"));
    }
}
