//! The timesteps of DDPM, seen as noise levels.

mod presets;
mod spacing;
mod table;

pub use presets::Preset;
pub use spacing::Spacing;
pub use table::NoiseTable;
