//! Paint-with-words: paint where a phrase of the prompt shall appear.
//!
//! eDiff-I does this without training (Balaji et al. 2022, arXiv 2211.01324, section "Paint-with-words"). Every
//! cross-attention layer computes
//!
//! ```text
//! softmax( (Q·Kᵀ + w·A) / √d ) · V        with  w = w′ · log(1 + σ) · max(Q·Kᵀ)
//! ```
//!
//! Column j of `A` is the mask of the phrase that holds text token j; it is zero for the tokens of no phrase. This crate
//! computes `w·A/√d` and gives it to the network through [`ediffi_core::nn::ScoreBias`].
//!
//! From a picture to a bias:
//!
//! 1. A [`Canvas`] holds [`Region`]s. Each has a phrase, a [`Mask`], a weight, an [`Occurrence`] and the noise levels at
//!    which it acts. Read it from one mask per phrase ([`Canvas::from_masks`]) or from a colour picture and a [`Palette`]
//!    ([`Canvas::from_colours`]), or draw it in code ([`Shape`]).
//! 2. [`bind`] finds every phrase in the prompt by its characters, and its tokens by their character offsets
//!    ([`TextTokens`]). A phrase that is not in the prompt is an error.
//! 3. A [`Painter`] averages the masks down to the size of each feature map and scales them by the [`Strength`].
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
//! - **Scope of the maximum**: each image and attention head has its own, over all pixels and text columns. It is taken in
//!   f32 and is at least 0. A maximum over the batch would make an image depend on the others.
//! - **Overlapping regions**: where several regions paint one token, the strongest counts: the maximum of weight × mask at
//!   the full resolution of the canvas. A sum would count a nested phrase (`car` inside `red car`) twice.
//! - **Downscaling**: area average. The paper samples bilinearly, which loses small regions on an 8×8 feature map.
//! - **What is painted**: the tokens of T5 and of CLIP, in the conditional rows. The image embedding and the null token are
//!   not painted.

mod bias;
mod bind;
mod canvas;
mod colours;
mod downscale;
mod error;
mod layers;
mod layout;
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
pub use layout::LayoutGuidance;
pub use limits::{MAX_LAYOUT, MAX_REGIONS, MAX_SIDE, MAX_WEIGHT};
pub use mask::Mask;
pub use palette::{Palette, PaletteEntry};
pub use preview::region_colour;
pub use region::{Occurrence, Region};
pub use shape::Shape;
pub use span::{find, locate, words};
pub use strength::{DEFAULT_WEIGHT, Growth, SIGMA_CAP, Statistic, Strength};
pub use weight::WeightFunction;
