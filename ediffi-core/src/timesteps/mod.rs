//! The timesteps of DDPM, seen as noise levels.

mod ends;
mod presets;
mod sampler;
mod spacing;
mod table;

pub use ends::Ends;
pub use presets::Preset;
pub use sampler::{Sampler, Timesteps};
pub use spacing::Spacing;
pub use table::NoiseTable;
