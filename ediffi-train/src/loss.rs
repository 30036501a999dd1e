//! The denoising loss (Karras et al. 2022, eq. 2 and table 1; eDiff-I §3).

use ediffi_core::precondition::Precondition;
use tch::{Kind, Tensor};

use crate::Result;
use crate::error::expect_shape;

/// λ(σ) ‖D(x₀ + σε; σ) − x₀‖², averaged over pixels, one value a picture.
///
/// It is computed from the network's own error, as λ c_out² ‖F − (x₀ − c_skip x) / c_out‖². With EDM's λ = 1 / c_out² the factor
/// is 1.
///
/// # Shapes
/// `clean` and `noise`: [n, 3, h, w] f32; `sigmas`: n levels; `network`: (c_in·x [n, 3, h, w], c_noise \[n\]) → F of the
/// same shape; → \[n\] f32
///
/// # Errors
/// An error of the network, or [`Error::Shape`](crate::Error::Shape) for a noise, a number of levels or an F that does
/// not fit.
pub fn denoising_loss(
    precondition: &dyn Precondition,
    clean: &Tensor,
    noise: &Tensor,
    sigmas: &[f64],
    network: impl FnOnce(&Tensor, &Tensor) -> ediffi_core::Result<Tensor>,
) -> Result<Tensor> {
    expect_shape("noise", &clean.size(), &noise.size())?;
    expect_shape("list of noise levels", &[clean.size4()?.0], &[sigmas.len() as i64])?;
    let column = |of: &dyn Fn(f64) -> f64| -> Result<Tensor> {
        let values: Vec<f32> = sigmas.iter().map(|&sigma| of(sigma) as f32).collect();
        Ok(Tensor::f_from_slice(&values)?.f_to_device(clean.device())?.f_reshape([-1, 1, 1, 1])?)
    };
    let x = clean.f_add(&noise.f_mul(&column(&|s| s)?)?)?;
    let skipped = clean.f_sub(&x.f_mul(&column(&|s| precondition.c_skip(s))?)?)?;
    let target = skipped.f_div(&column(&|s| precondition.c_out(s))?)?;
    let input = x.f_mul(&column(&|s| precondition.c_in(s))?)?;
    let f = network(&input, &column(&|s| precondition.c_noise(s))?.f_reshape([-1])?)?;
    // Another shape might broadcast, and train on nonsense.
    expect_shape("output of the network", &target.size(), &f.size())?;
    let squared = f.f_to_kind(Kind::Float)?.f_sub(&target)?.f_square()?;
    let weights = column(&|s| precondition.loss_weight(s) * precondition.c_out(s).powi(2))?.f_reshape([-1])?;
    Ok(squared.f_mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float)?.f_mul(&weights)?)
}

#[cfg(test)]
mod tests {
    use ediffi_core::denoiser::denoise_with;
    use ediffi_core::precondition::{Edm, Sample};
    use tch::{Device, Tensor};

    use super::*;
    use crate::Error;

    /// The definition, term by term, on a network that halves its input.
    #[test]
    fn equals_the_weighted_error_of_the_denoiser() {
        let preconditions: [&dyn Precondition; 2] = [&Edm::default(), &Sample::default()];
        let clean = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([2, 3, 2, 2]) / 12.0 - 1.0;
        let noise = (&clean * 1.7).sin();
        let sigmas = [0.05, 12.0];
        for p in preconditions {
            let got = denoising_loss(p, &clean, &noise, &sigmas, |x, _| Ok(x * 0.5)).unwrap();
            for (row, &sigma) in (0..).zip(&sigmas) {
                let (x0, e) = (clean.narrow(0, row, 1), noise.narrow(0, row, 1));
                let d = denoise_with(p, &(&x0 + &e * sigma), sigma, |x, _| Ok(x * 0.5)).unwrap();
                let expected = (d - x0).square().mean(Kind::Float).double_value(&[]) * p.loss_weight(sigma);
                assert!((got.double_value(&[row]) - expected).abs() < 1e-4 * expected, "{p:?} sigma {sigma}");
            }
        }
    }

    /// The gradient of the mean loss by F is 2 (F − target) / numel, and the target is (x₀ − c_skip x) / c_out.
    #[test]
    fn gradient_by_the_network_s_output_is_the_closed_form() {
        let edm = Edm::default();
        let clean = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([2, 3, 2, 2]) / 12.0 - 1.0;
        let noise = (&clean * 2.3).cos();
        let sigmas = [0.3, 4.0];
        let f = (&clean * 0.7 + 0.1).set_requires_grad(true);
        let loss = denoising_loss(&edm, &clean, &noise, &sigmas, |_, _| Ok(f.shallow_clone())).unwrap();
        loss.mean(Kind::Float).backward();
        for (row, &sigma) in (0..).zip(&sigmas) {
            let (x0, e) = (clean.narrow(0, row, 1), noise.narrow(0, row, 1));
            let target = (&x0 - (&x0 + &e * sigma) * edm.c_skip(sigma)) / edm.c_out(sigma);
            let expected = (f.detach().narrow(0, row, 1) - target) * (2.0 / 24.0);
            let error = (f.grad().narrow(0, row, 1) - expected).abs().max().double_value(&[]);
            assert!(error < 1e-6, "sigma {sigma}: {error}");
        }
    }

    #[test]
    fn the_network_sees_scaled_input_and_noise_level() {
        let edm = Edm::default();
        let clean = Tensor::ones([2, 3, 2, 2], (Kind::Float, Device::Cpu));
        let sigmas = [0.5, 3.0];
        let _ = denoising_loss(&edm, &clean, &(&clean * 2.0), &sigmas, |x, c_noise| {
            for (row, &sigma) in (0..).zip(&sigmas) {
                let expected = edm.c_in(sigma) * (1.0 + 2.0 * sigma);
                assert!((x.double_value(&[row, 0, 1, 1]) - expected).abs() < 1e-6);
                assert!((c_noise.double_value(&[row]) - sigma.ln() / 4.0).abs() < 1e-6);
            }
            Ok(x.shallow_clone())
        })
        .unwrap();
    }

    #[test]
    fn shapes_that_would_broadcast_are_refused() {
        let edm = Edm::default();
        let x = Tensor::zeros([2, 3, 2, 2], (Kind::Float, Device::Cpu));
        let row = x.narrow(0, 0, 1);
        let refused =
            |noise: &Tensor, sigmas: &[f64], f: &Tensor| match denoising_loss(&edm, &x, noise, sigmas, |_, _| {
                Ok(f.shallow_clone())
            })
            .unwrap_err()
            {
                Error::Shape { what, .. } => what,
                error => panic!("{error}"),
            };
        assert_eq!(refused(&row, &[1.0, 1.0], &x), "noise");
        assert_eq!(refused(&x, &[1.0], &x), "list of noise levels");
        assert_eq!(refused(&x, &[1.0, 1.0], &row), "output of the network");
    }
}
