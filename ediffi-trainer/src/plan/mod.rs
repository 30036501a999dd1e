//! Plans: which networks a model of anyone's pictures is trained as, in TOML.
//!
//! ```
//! use ediffi_trainer::plan::Plan;
//!
//! let plan = Plan::parse(r#"
//! name = "flowers"
//! seed = 1
//! batch = 16
//! encoders = { model = "icons" }
//! validation = { every = 500, bins = 4 }
//!
//! [[stages]]
//! name = "base"
//! side = 32
//! precondition = { edm = { sigma_data = 0.5 } }
//! sampler = { solver = "dpmpp-2m", steps = 16, schedule = { karras = { min = 0.02, max = 80.0, rho = 7.0 } },
//!     guidance = { scale = 3.0 } }
//!
//! [stages.network]
//! layout = "efficient"
//! patch = 2
//! channels = 32
//! head_channels = 32
//! norm = { group = 8 }
//! embedding_width = 64
//! levels = [{ multiplier = 1, blocks = 1, cross_attention = true }]
//! context = { width = 32, t5 = { tokens = 32, width = 128 } }
//!
//! [[stages.networks]]
//! name = "shared"
//! cell = "(0, 0)"
//! training = { steps = 4000, learning-rate = 1e-3, warm-up = 100, ema = 0.999 }
//! "#)?;
//! println!("{plan}");
//! # Ok::<(), ediffi_trainer::Error>(())
//! ```
//!
//! Networks that no other network starts from are the **experts** of their stage; their noise levels tile (0, ∞), as
//! [`ediffi_train::plan`] tells. Paths are relative to the folder in which the program runs. A key that is not understood is an error that
//! names it.

mod named;
mod network;
mod settings;
mod stage;
mod whole;

pub use named::{NAMES, find};
pub use network::Network;
pub use settings::{
    BucketPlan, DataPlan, DropoutPlan, EncoderPlan, Export, KeepPlan, OwnT5, SheetPlan, ValidationPlan,
};
pub use stage::{NetworkPlan, StagePlan};
pub(crate) use whole::OWN_T5;
pub use whole::Plan;
