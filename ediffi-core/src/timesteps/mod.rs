//! The timesteps of DDPM, seen as noise levels.

mod presets;
mod table;

pub use presets::Preset;
pub use table::NoiseTable;
