//! Weights: named parameters and where they come from.
//!
//! [`load`] reads a network from safetensors. It maps the file and checks every name, shape and dtype first; one error
//! reports all that is wrong. Then it copies each tensor once, straight to its device and precision.

mod folder;
mod fresh;
mod loader;
mod mapped;
mod params;
mod save;
mod table;

pub use folder::{candidates, find, find_called, shards};
pub use fresh::Fresh;
pub use loader::{WeightsFile, load};
pub use params::{Init, Names, Params, Role, Scope, Spec};
pub use save::save;
pub use table::Table;
