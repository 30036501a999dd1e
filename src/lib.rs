//! eDiff-I (Balaji et al. 2022, [arXiv 2211.01324](https://arxiv.org/abs/2211.01324)) in Rust: from a prompt to a picture
//! with an ensemble of expert denoisers and a cascade of resolutions.
//!
//! ```no_run
//! use ediffi::{Pipeline, Request};
//!
//! let pipeline = Pipeline::open(ediffi::icons()?)?;
//! let generation = pipeline.generate(&Request::new("a red apple left of a cat, noto style").seed(7))?;
//! generation.images[0].save("apple.png")?;
//! # Ok::<(), ediffi::Error>(())
//! ```
//!
//! - A [`Pipeline`] is an opened model: a folder of this library, or one or several of published models (Stable Diffusion,
//!   DeepFloyd IF). [`PipelineBuilder`] chooses device, precision and memory.
//! - A [`Request`] says what to draw: prompt, negative prompt, seed, size, settings of the stages, a [`Style`] taken
//!   from pictures, a painted [`Canvas`], and an [`Edit`] of a picture.
//! - A [`Generation`] holds the images. A saved image holds its request: [`Request::from_png`].
//! - An [`Observer`] receives a generation's [`Event`]s, previews and finished images, and may stop it.
//! - [`Pipeline::encode`] and [`Pipeline::sample`] are the two halves of [`Pipeline::generate`], with [`Embeddings`] between.
//! - A [`Worker`] owns a pipeline on a thread of its own and is used from many threads. A [`JobHandle`] is a `Future`, and [`events`] are a
//!   bounded stream beside it; neither needs a runtime.
//!
//! # What decides a picture
//!
//! The request and the model. Image k of a request has the seed `seed + k`, its noise is drawn on the CPU from a stream
//! cipher, and no other image changes it; libtorch's global generator is never touched. So on one machine the same request
//! gives the same bytes on the CPU. Between machines, devices, precisions and batch sizes libtorch adds up numbers in another order,
//! and pixels differ by rounding.
//!
//! # Threads and errors
//!
//! A pipeline computes on the thread that calls it, and libtorch on threads of its own. Gradients are switched off for the
//! time of a call. Everything that can fail returns an [`Error`] that names the culprit. The library does not print; it
//! emits `tracing` events.

mod base64;
mod bindings;
mod bounds;
mod builder;
mod collector;
mod deepfloyd;
mod edit;
mod embeddings;
mod embeddings_file;
mod encode;
mod encoders;
mod error;
mod events;
mod generate;
mod generation;
#[cfg(feature = "hub")]
pub mod hub;
mod job;
mod lazy;
mod limits;
mod loras;
mod made;
mod manifest;
mod many;
mod memory;
mod metadata;
mod micro;
mod near;
mod observer;
mod on_cpu;
mod open;
mod outpaint;
mod pipeline;
mod pixels;
mod preset;
mod problem;
mod prompts;
mod provenance;
mod published;
mod queue;
mod recent;
mod request;
mod shape;
mod shipped;
mod stable_diffusion;
mod style;
mod sync;
mod told;
mod unclip;
mod validate;
mod worker;

pub use bounds::{MAX_SIDE, MAX_STRENGTH};
pub use builder::{BATCH, PipelineBuilder, RECENT_TEXTS};
pub use edit::{Edit, EditPicture};
pub use embeddings::Embeddings;
pub use error::{Error, Result};
pub use events::{Events, JobEvent, Reporter, events};
pub use generation::{GeneratedImage, Generation, StageReport};
pub use job::{Canceller, JobHandle, Phase, Progress};
pub use limits::Limits;
pub use manifest::{EncoderFolders, MANIFEST_FILE, MANIFEST_FORMAT, Manifest};
pub use memory::PartMemory;
pub use micro::MicroConditioning;
pub use near::Near;
pub use observer::{Event, Observer, Preview};
pub use outpaint::Margins;
pub use pipeline::Pipeline;
pub use preset::SettingsPreset;
pub use problem::Problem;
pub use prompts::{Mix, StagePrompt};
pub use provenance::{Provenance, StageProvenance};
pub use request::Request;
pub use shipped::{MODEL_VARIABLE, icons, located};
pub use style::{STYLE_SIDE, Style, StyleEmbedding, StyleImage, StyleReference, StyleSource};
pub use worker::{QUEUE_CAPACITY, Worker};

// What a user of this crate sets or reads, so that no other crate has to be named.
#[doc(no_inline)]
pub use {
    ediffi_cascade::{
        AutoencoderFiles, Decoding, Enlarger, ExpertConfig, ExpertSettings, Jumps, PreconditionConfig, Prior,
        SamplerSettings, SettingsPatch, StageConfig, StageNoise, StagePlan, Tiling,
    },
    ediffi_core::{
        conditioning::Conditioning,
        expert_interval::{ExpertInterval, HalfOpen},
        guidance::{Guidance, Rows, Thresholding},
        interrupt,
        interval::SigmaInterval,
        nn::Site,
        noise::NoiseSource,
        plan::Plan,
        pool::Residency,
        runtime::{DeviceChoice, Precision, Runtime},
        schedule::Schedule,
        solver::{Churn, FreshNoise, Solver, Variance},
        timesteps::{Ends, NoiseTable, Preset, Sampler, Spacing, Timesteps},
        weights::Lora,
    },
    ediffi_encoders::{PICTURE_BYTES, PICTURE_SIDE, Picture, PictureError, T5Weights},
    ediffi_paint::{
        Binding, BoundTokens, Canvas, ColourReading, Growth, LayoutGuidance, Mask, Occurrence, Painter, Palette,
        PaletteEntry, Region, Shape, Statistic, Stray, Strength, Unmatched, UnmatchedColour, WeightFunction,
        region_colour,
    },
    image::RgbImage,
    tch::{Device, Kind, Tensor},
};

/// The guides' programs compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/deepfloyd.md")]
#[doc = include_str!("../docs/editing.md")]
#[doc = include_str!("../docs/experts.md")]
#[doc = include_str!("../docs/mixing.md")]
#[doc = include_str!("../docs/published.md")]
#[doc = include_str!("../docs/paint-with-words.md")]
#[doc = include_str!("../docs/style.md")]
struct Guides;
