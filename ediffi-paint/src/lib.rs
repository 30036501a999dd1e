//! Paint-with-words: the user paints where a phrase of the prompt shall appear.
//!
//! eDiff-I (Balaji et al. 2022, arXiv 2211.01324, the section on paint-with-words) needs no training for this: every
//! cross-attention layer computes
//!
//! ```text
//! softmax( (Q·Kᵀ + w·A) / √d ) · V        with  w = w′ · log(1 + σ) · max(Q·Kᵀ)
//! ```
//!
//! where column j of `A` is the painted mask of the phrase that holds text token j, and zero for every other token.
//! This crate makes `w·A/√d` and hands it to the network through [`ediffi_core::nn::ScoreBias`].
//!
//! The way from a picture to a bias:
//!
//! 1. a [`Canvas`] holds [`Region`]s: a phrase, a [`Mask`], a weight, an [`Occurrence`] and the noise levels at which it
//!    acts. It is read from one mask per phrase ([`Canvas::from_masks`]) or from one colour picture and a [`Palette`]
//!    ([`Canvas::from_colours`]), or drawn in code ([`Shape`]);
//! 2. [`bind`] finds every phrase in the prompt, on characters, and then the token columns of each encoder through the
//!    character offsets of its tokens ([`TextTokens`]). A phrase that is not in the prompt is an error;
//! 3. a [`Painter`] averages the masks down to the size of each feature map and scales them with the [`Strength`].
//!
//! ```
//! use ediffi_paint::{Canvas, Region, Shape};
//!
//! // The apple is on the left, the cat on the right.
//! let circle = Shape::Ellipse { centre: (16.0, 32.0), radii: (12.0, 12.0) };
//! let canvas = Canvas::new([
//!     Region::shape("a red apple", (64, 64), &circle)?,
//!     Region::rectangle("cat", (64, 64), 32..64, 0..64)?.weight(1.5),
//! ])?;
//! let picture = canvas.preview();
//! assert_eq!(picture.dimensions(), (64, 64));
//! # Ok::<(), ediffi_paint::Error>(())
//! ```
//!
//! # Choices that the paper leaves open
//!
//! - **Scope of the maximum**: per image and attention head, over all pixels and text columns, in f32, and never below
//!   zero. A maximum over the whole batch would make an image depend on its neighbours.
//! - **Overlapping regions**: where several regions paint one token, the strongest counts (maximum of weight × mask, taken
//!   at the full resolution of the canvas). A sum would count a nested phrase (`car` inside `red car`) twice.
//! - **Down-scaling**: area average, not the paper's bilinear sampling, which loses small regions on an 8×8 feature map.
//! - **Both tokenizations are painted**; the image embedding and the null token are not, nor are unconditional rows.

mod bias;
mod bind;
mod canvas;
mod colours;
mod downscale;
mod error;
mod layers;
mod limits;
mod mask;
mod palette;
mod preview;
mod region;
mod shape;
mod span;
mod strength;
mod weight;

pub use bias::Painter;
pub use bind::{Binding, BoundTokens, TextTokens, bind};
pub use canvas::Canvas;
pub use colours::{ColourReading, Stray, Unmatched, UnmatchedColour};
pub use downscale::area_average;
#[doc(no_inline)]
pub use ediffi_core::window::Window;
pub use error::{Error, Result};
pub use limits::{MAX_REGIONS, MAX_SIDE};
pub use mask::Mask;
pub use palette::{Palette, PaletteEntry};
pub use preview::region_colour;
pub use region::{Occurrence, Region};
pub use shape::Shape;
pub use span::{find, locate, words};
pub use strength::{DEFAULT_WEIGHT, Growth, SIGMA_CAP, Statistic, Strength};
pub use weight::WeightFunction;
