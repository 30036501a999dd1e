//! Preconditioning: how a raw network becomes a denoiser.
//!
//! `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)` (EDM, equation 7 and table 1; eDiff-I, section 3, writes
//! `sigma* = sqrt(sigma^2 + sigma_data^2)`). The loss weight is here, too, so that training and sampling share their
//! constants. [`crate::denoiser::denoise_with`] applies the coefficients to tensors.

mod coefficients;
mod edm;
mod on_table;

pub use coefficients::Precondition;
pub use edm::{Edm, SIGMA_DATA, Sample};
pub use on_table::{Epsilon, SampleOnTable, Velocity};
