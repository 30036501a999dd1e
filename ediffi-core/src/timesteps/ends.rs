//! The two ends of a trajectory.

/// Where a trajectory begins and ends, for published samplers that see it as DDPM does: the default is noise of the first sigma, and a clean image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ends {
    /// The first state is noise whose variance is 1 in DDPM's view, `sqrt(1 + sigma^2)` in EDM's, and not the sigma of the schedule. So
    /// begin all samplers that know no sigma.
    pub unit_start: bool,
    /// The positive noise level that the last step goes to, in the place of 0. What comes out is the state there in DDPM's view, with its
    /// noise: Stable Diffusion's samplers end so, at the noise level of timestep 0 (diffusers' `set_alpha_to_one: false`).
    pub last: Option<f64>,
}
