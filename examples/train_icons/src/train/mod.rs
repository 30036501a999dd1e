//! The training of the small model: its dimensions, its data as batches, and one room for each network.

pub mod assemble;
pub mod base;
pub mod batches;
pub mod clip;
pub mod dimensions;
pub mod encoders;
pub mod lineage;
pub mod preview;
pub mod run;
pub mod super_resolution;
pub mod vocabulary;

/// Programs report any error in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
