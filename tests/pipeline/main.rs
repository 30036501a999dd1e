//! The public API over a tiny model with random weights, which every test writes for itself: two stages (8 and 16 pixels),
//! two experts in the first, T5, and CLIP with both halves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod by_hand;
mod cancel;
mod edit;
mod embeddings;
mod enlarger;
mod errors;
mod events;
mod exit;
mod generate;
mod limits;
mod many;
mod mix;
mod model;
mod paint;
mod png;
mod provenance;
mod replaced;
mod style;
mod worker;
