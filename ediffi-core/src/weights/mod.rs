//! Weights: named parameters and where they come from.
//!
//! [`load`] reads a network from safetensors. It opens the file and checks every name, shape and dtype first; one error
//! reports all that is wrong. Then it copies each tensor once, straight to its device, precision and
//! order: at once, or when a layer first knows which order is best.

mod folder;
mod fresh;
mod lent;
mod loader;
mod lora;
mod original;
mod params;
mod sample;
mod save;
mod stored;
mod table;

pub use folder::{candidates, find, find_called, shards};
pub use fresh::Fresh;
pub use lent::Lent;
pub use loader::{WeightsFile, load};
pub use lora::{Lora, LoraFile, LoraPart};
pub use original::{Original, OriginalModel};
pub use params::{Init, Names, Params, Role, Scope, Spec};
pub use save::save;
pub use stored::parse;
pub use table::Table;
