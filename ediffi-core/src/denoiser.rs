//! Denoisers: all that estimate the clean image behind a noisy one.
//!
//! A denoiser may wrap another: preconditioning wraps a network, an ensemble chooses a denoiser, guidance combines two
//! evaluations. A solver sees only `D(x; sigma)`.

use tch::{Kind, Tensor};

use crate::precondition::Precondition;
use crate::{Error, Result};

/// The result of one evaluation.
#[derive(Debug)]
pub struct Estimate {
    /// The clean image, `[n, channels, height, width]`.
    pub denoised: Tensor,
    /// Where the variance of DDPM's step lies between its two bounds, if the network predicts it: -1 at the lower bound, 1 at
    /// the upper one. It has the shape of `denoised`.
    pub variance: Option<Tensor>,
}

impl From<Tensor> for Estimate {
    fn from(denoised: Tensor) -> Self {
        Self { denoised, variance: None }
    }
}

/// `D(x; sigma)`: estimates the clean image from the noisy `x = y + sigma n`.
pub trait Denoiser {
    /// Evaluates the denoiser: the clean image, and the variance if the network predicts one.
    ///
    /// # Shapes
    /// `x`: `[n, channels, height, width]`, f32, at noise level `sigma`; the estimate has the same shape.
    ///
    /// # Errors
    /// All that keeps the network from running.
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate>;

    /// The clean image of [`estimate`](Self::estimate).
    ///
    /// # Errors
    /// As [`estimate`](Self::estimate).
    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.estimate(x, sigma)?.denoised)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &mut D {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        (**self).estimate(x, sigma)
    }
}

/// The conditioning of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Branch {
    /// The prompt.
    Conditional,
    /// No prompt, or the negative one.
    Unconditional,
    /// Both: `x` holds n rows for the prompt, then n rows without it.
    Both,
    /// The prompt, by a weaker network.
    Weaker,
}

/// A denoiser that knows a conditional and an unconditional conditioning of the same images.
pub trait BranchDenoiser {
    /// Evaluates the denoiser under the conditioning of `branch`.
    ///
    /// # Shapes
    /// `x`: `[n, channels, height, width]`, or `[2 n, ..]` for [`Branch::Both`]; the estimate has the same shape.
    ///
    /// # Errors
    /// All that keeps the network from running.
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate>;
}

impl<D: BranchDenoiser + ?Sized> BranchDenoiser for &mut D {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> Result<Estimate> {
        (**self).estimate_branch(x, sigma, branch)
    }
}

/// A [`Denoiser`] made from a closure by [`from_fn`].
pub struct FromFn<F>(F);

impl<F> std::fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

impl<F: FnMut(&Tensor, f64) -> Result<Tensor>> Denoiser for FromFn<F> {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        Ok((self.0)(x, sigma)?.into())
    }
}

/// Makes a denoiser from a closure `|x, sigma| D(x; sigma)`.
pub fn from_fn<F: FnMut(&Tensor, f64) -> Result<Tensor>>(denoise: F) -> FromFn<F> {
    FromFn(denoise)
}

/// Evaluates the network `F` once: `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)` (EDM, equation 7).
///
/// The arithmetic around the network is in f32 (in f64 if `x` is f64). The network may compute in any precision.
///
/// # Shapes
/// `x`: `[n, channels, height, width]`; `network` gets `c_in x` in the same shape and returns it.
///
/// # Errors
/// [`Error::SigmaOutOfRange`] unless `sigma` is positive and finite, [`Error::DenoisedShape`] if the network returns
/// another shape, and the errors of the network.
pub fn denoise_with<F>(precondition: &dyn Precondition, x: &Tensor, sigma: f64, network: F) -> Result<Tensor>
where
    F: FnOnce(&Tensor, f64) -> Result<Tensor>,
{
    check_sigma(sigma)?;
    let kind = state_kind(x)?;
    let x = x.f_to_kind(kind)?;
    let f = network(&x.f_mul_scalar(precondition.c_in(sigma))?, precondition.c_noise(sigma))?;
    check_shape(&x, &f, sigma)?;
    let skip = x.f_mul_scalar(precondition.c_skip(sigma))?;
    Ok(skip.f_add(&f.f_to_kind(kind)?.f_mul_scalar(precondition.c_out(sigma))?)?)
}

/// As [`denoise_with`], for a network that may also predict a variance.
///
/// # Shapes
/// `x`: `[n, channels, height, width]`; `network` returns the same shape, or twice the channels. The second half is then
/// the variance.
///
/// # Errors
/// As [`denoise_with`].
pub fn estimate_with<F>(precondition: &dyn Precondition, x: &Tensor, sigma: f64, network: F) -> Result<Estimate>
where
    F: FnOnce(&Tensor, f64) -> Result<Tensor>,
{
    let mut variance = None;
    let channels = x.size4()?.1;
    let denoised = denoise_with(precondition, x, sigma, |input, c_noise| {
        let answer = network(input, c_noise)?;
        if answer.size4()?.1 != 2 * channels {
            return Ok(answer);
        }
        variance = Some(answer.f_narrow(1, channels, channels)?);
        Ok(answer.f_narrow(1, 0, channels)?)
    })?;
    Ok(Estimate { denoised, variance })
}

/// Refuses what is no noise level.
pub(crate) fn check_sigma(sigma: f64) -> Result<()> {
    if sigma > 0.0 && sigma.is_finite() { Ok(()) } else { Err(Error::SigmaOutOfRange(sigma)) }
}

/// Refuses a result of another shape than `x`, which would broadcast silently.
pub(crate) fn check_shape(x: &Tensor, denoised: &Tensor, sigma: f64) -> Result<()> {
    let (expected, got) = (x.size(), denoised.size());
    if expected == got { Ok(()) } else { Err(Error::DenoisedShape { sigma, expected, got }) }
}

/// Whether every element of `tensor` is a finite number.
///
/// # Errors
/// [`Error::Torch`] if libtorch fails.
pub fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(bool::try_from(tensor.f_isfinite()?.f_all()?)?)
}

/// The kind a sampler computes in: f32, or f64 if its caller does.
pub(crate) fn state_kind(x: &Tensor) -> Result<Kind> {
    Ok(if x.f_kind()? == Kind::Double { Kind::Double } else { Kind::Float })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::precondition::Edm;

    #[test]
    fn the_perfect_network_makes_the_perfect_denoiser() {
        // For data y = 0 the perfect F is -(c_skip / c_out) x = -(c_skip / (c_out c_in)) (c_in x), and D is 0.
        let (edm, sigma) = (Edm::default(), 1.7);
        let x = Tensor::f_from_slice(&[1.0_f32, -2.0, 3.0]).unwrap();
        let perfect = -edm.c_skip(sigma) / (edm.c_out(sigma) * edm.c_in(sigma));
        let denoised = denoise_with(&edm, &x, sigma, |input, c_noise| {
            assert_eq!(c_noise, edm.c_noise(sigma));
            Ok(input.f_mul_scalar(perfect)?)
        })
        .unwrap();
        assert!(f64::try_from(denoised.abs().max()).unwrap() < 1e-6);
    }

    #[test]
    fn a_half_precision_network_keeps_an_f32_state() {
        let x = Tensor::ones([1, 1, 2, 2], (Kind::Float, Device::Cpu));
        let denoised = denoise_with(&Edm::default(), &x, 1.0, |input, _| Ok(input.f_to_kind(Kind::BFloat16)?)).unwrap();
        assert_eq!(denoised.kind(), Kind::Float);
    }

    #[test]
    fn wrong_sigmas_and_shapes_are_refused() {
        let x = Tensor::ones([2, 1, 2, 2], (Kind::Float, Device::Cpu));
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let result = denoise_with(&Edm::default(), &x, sigma, |input, _| Ok(input.shallow_clone()));
            assert!(matches!(result, Err(Error::SigmaOutOfRange { .. })));
        }
        let result = denoise_with(&Edm::default(), &x, 1.0, |input, _| Ok(input.f_narrow(0, 0, 1)?));
        assert!(matches!(result, Err(Error::DenoisedShape { .. })));
    }

    #[test]
    fn finiteness() {
        let finite = |values: &[f32]| is_finite(&Tensor::f_from_slice(values).unwrap()).unwrap();
        assert!(finite(&[1.0, 0.0]));
        assert!(!finite(&[1.0, f32::NAN]));
        assert!(!finite(&[f32::INFINITY, 0.0]));
    }
}
