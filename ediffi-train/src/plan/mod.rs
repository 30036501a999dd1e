//! Training plans: the expert tree as data (eDiff-I §4.1, appendix B).
//!
//! A plan lists the networks in the order of training. Each has the noise levels that it is trained on, as a
//! [`NoiseCell`](crate::noise_cell::NoiseCell) of the tree, the network that it starts from, its steps and its learning rate. A plan is
//! written in TOML:
//!
//! ```
//! use ediffi_train::plan::TrainingPlan;
//!
//! let plan = TrainingPlan::parse(r#"
//! name = "two experts"
//! seed = 1
//! batch = 16
//!
//! [[stages]]
//! name = "base"
//! noise = { p_mean = -1.2, p_std = 1.2 }
//! tail = { share = 0.1, from = 9.61, to = 80.0 }
//! sampling = { steps = 25, schedule = { karras = { min = 0.002, max = 80.0, rho = 7.0 } } }
//!
//! [[stages.networks]]
//! name = "shared"
//! cell = "(0, 0)"
//! training = { steps = 4000, learning-rate = 1e-3, warm-up = 200, ema = 0.999 }
//!
//! [[stages.networks]]
//! name = "high"
//! cell = "(9, 511)"
//! parent = "shared"
//! training = { steps = 1000, learning-rate = 5e-4, warm-up = 50, ema = 0.998 }
//!
//! [[stages.networks]]
//! name = "rest"
//! cell = "all but (9, 511)"
//! parent = "shared"
//! training = { steps = 1000, learning-rate = 5e-4, warm-up = 50, ema = 0.998 }
//! "#)?;
//! let experts = plan.stages[0].experts()?;
//! let names: Vec<_> = experts.iter().map(|expert| expert.network.name.as_str()).collect();
//! assert_eq!(names, ["rest", "high"]);
//! println!("{plan}");
//! # Ok::<(), ediffi_train::Error>(())
//! ```
//!
//! Networks that no other network starts from are the **experts** of their stage. Their noise levels have to tile (0, ∞); this is
//! checked when a plan is read. [`paper`] makes the plans of the configurations that the paper compares.

pub mod paper;
mod redrawn;
mod stage;
mod table;
mod task;
mod training;
mod training_plan;

pub use redrawn::Redrawn;
pub use stage::{Expert, NetworkTraining, Sampling, StageTraining};
pub use task::{Batches, EncoderTraining, Task};
pub use training::Training;
pub use training_plan::TrainingPlan;
