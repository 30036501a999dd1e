//! Pictures near that of another seed.

use serde::{Deserialize, Serialize};

/// A seed whose picture the images of a request are variations of (other programs call theirs sub-seeds, or variation seeds).
///
/// The noise of image k is between that of this seed and its own, which is that of `seed + k`: turned from the one to the other by
/// `strength` · 90°. Noise of two seeds stands at right angles, so what is between them is noise of the same strength. At 0 every image is
/// the picture of this seed to the bit, at 1 that of its own. It holds for all noise of all stages.
///
/// ```
/// use ediffi::Request;
///
/// // Four variations of the picture that the seed 7 gives.
/// let request = Request::new("a red apple").seed(100).images(4).near(7, 0.2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Near {
    /// The seed of the picture.
    pub seed: u64,
    /// How far the images are from it: from 0, not at all, to 1, as far as any other.
    pub strength: f64,
}
