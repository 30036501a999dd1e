//! Weights: named parameters and where they come from.
//!
//! [`load`] reads a network from safetensors: the file is mapped, every name, shape and dtype is checked first, and all
//! that is wrong is reported in one error; then each tensor is copied once, straight to its device and precision.

mod folder;
mod fresh;
mod loader;
mod mapped;
mod params;
mod pointer;
mod save;
mod table;

pub use folder::{candidates, find, find_called, shards};
pub use fresh::Fresh;
pub use loader::{WeightsFile, load};
pub use params::{Init, Names, Params, Role, Scope, Spec};
pub use save::save;
pub use table::Table;
