//! What a preconditioning is.

use std::fmt::Debug;

/// The coefficients around a network, as functions of the noise level.
pub trait Precondition: Debug + Send + Sync {
    /// How much of the noisy image is kept.
    fn c_skip(&self, sigma: f64) -> f64;
    /// The scale of the network's output.
    fn c_out(&self, sigma: f64) -> f64;
    /// The scale of the network's input.
    fn c_in(&self, sigma: f64) -> f64;
    /// The number by which the network is told the noise level.
    fn c_noise(&self, sigma: f64) -> f64;
    /// The weight of the squared error of D in the loss.
    fn loss_weight(&self, sigma: f64) -> f64;
}
