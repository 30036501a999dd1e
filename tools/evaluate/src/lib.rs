//! Measures the models of this repository.
//!
//! [`judge::Judge`] is a small frozen network that says what a picture of icons shows: which objects where, in which style,
//! in which colours. [`icons`] asks a model for several hundred fixed prompts and compares what the judge sees with what the
//! captions asked for; [`compare`] does so for several models side by side; [`solvers`] compares the ways to sample; [`probes`] exchanges
//! captions on the way; [`seen`] measures what a person sees at full size; [`attention`] says where cross-attention looks; [`paint`] and [`styled`] measure the paper's two instruments; [`edited`] measures edits.
//! Everything measured has an interval (`bootstrap`), and goes into JSON, Markdown tables and plots ([`measured`], [`document`]).
//!
//! ```no_run
//! use evaluate::judge::{DEFAULT_PATH, Judge};
//!
//! let judge = Judge::open(DEFAULT_PATH)?;
//! let picture = image::open("out.png")?.to_rgb8();
//! for verdict in judge.look(&[picture])? {
//!     println!("{} style: {:?}", verdict.style.word(), verdict.detections);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod attention;
pub mod bootstrap;
pub mod compare;
pub mod document;
pub mod edited;
pub mod error;
mod frechet;
pub mod icons;
pub mod judge;
mod kept;
pub mod machine;
pub mod measured;
pub mod model;
pub mod paint;
mod pairs;
#[path = "../../../examples/shared/palette.rs"]
mod palette;
mod placed;
mod plot;
pub mod probes;
pub mod prompts;
mod rows;
pub mod seen;
pub mod solvers;
pub mod styled;
mod times;
mod wanted;
