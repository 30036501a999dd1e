//! The training of the small model by a plan: its data as batches, its encoders, its networks, and the model folder.

pub mod assemble;
pub mod batches;
pub mod clip;
pub mod encoder_training;
pub mod encoders;
pub mod execute;
pub mod networks;
pub mod plans;
pub mod preview;
pub mod redraw;
pub mod redrawn;
pub mod stages;
pub mod t5;
pub mod vocabulary;
pub mod workshop;

/// Programs report any error in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
