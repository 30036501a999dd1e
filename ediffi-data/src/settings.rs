//! How batches are made of pictures.

use crate::error::expect_setting;
use crate::{Part, Result, Split};

/// Batches of several shapes, each of pictures that have about this shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AspectBuckets {
    /// The longest side of a shape over its shortest, at most: 2 for shapes from 1:2 to 2:1.
    pub widest: f64,
    /// Sides are multiples of this many pixels.
    pub multiple: u32,
}

/// How a [`Loader`](crate::Loader) makes batches.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderSettings {
    /// Where all that is random follows from: order, crops and flips.
    pub seed: u64,
    /// Pictures in a batch.
    pub batch: usize,
    /// Sides in pixels that pictures are brought to, by the shorter side, and cut to. With [`LoaderSettings::buckets`] the root of the area.
    pub side: u32,
    /// For super-resolution by this factor: [`Batch::smaller`](ediffi_train::batch::Batch::smaller) is the picture averaged over squares
    /// of this side.
    pub smaller: Option<u32>,
    /// Trains on crops of this side, cut out of the pictures of `side`.
    pub crop_side: Option<u32>,
    /// Cuts where chance says, instead of in the middle.
    pub random_crop: bool,
    /// Mirrors every other picture. What is written in pictures, and left and right in captions, come out wrong.
    pub flip: bool,
    /// The share of the samples that are held out, from 0 to below 1.
    pub held_out: f64,
    /// Which part to make batches of.
    pub part: Part,
    /// Threads that decode pictures; 0 for as many as there are cores.
    pub threads: usize,
    /// Batches of other shapes than the square.
    pub buckets: Option<AspectBuckets>,
}

/// Squares of 64 pixels, in batches of 16, without chance but in the order.
impl Default for LoaderSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            batch: 16,
            side: 64,
            smaller: None,
            crop_side: None,
            random_crop: false,
            flip: false,
            held_out: 0.0,
            part: Part::Train,
            threads: 0,
            buckets: None,
        }
    }
}

/// The largest side that pictures are brought to.
const LARGEST_SIDE: u32 = 8192;

impl LoaderSettings {
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) with the first that makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        expect_setting(self.batch > 0, "batch", || "a batch has at least one picture".to_owned())?;
        let side = self.side;
        expect_setting((1..=LARGEST_SIDE).contains(&side), "side", || format!("{side} is not in 1..={LARGEST_SIDE}"))?;
        Split::of_share(1, self.held_out)?;
        let trained = self.crop_side.unwrap_or(side);
        expect_setting((1..=side).contains(&trained), "crop_side", || format!("{trained} is not in 1..={side}"))?;
        let k = self.smaller.unwrap_or(1);
        expect_setting(self.smaller.is_none_or(|k| k > 1), "smaller", || {
            format!("{k} is no factor: it is at least 2")
        })?;
        let divides = trained.is_multiple_of(k);
        expect_setting(divides, "smaller", || format!("the side {trained} is no multiple of {k}"))?;
        let Some(AspectBuckets { widest, multiple }) = self.buckets else { return Ok(()) };
        let sensible = (1.0..=8.0).contains(&widest);
        expect_setting(sensible, "buckets.widest", || format!("{widest} is not in 1..=8"))?;
        let fits = multiple > 0 && side.is_multiple_of(multiple) && multiple.is_multiple_of(k);
        expect_setting(fits, "buckets.multiple", || {
            format!("{multiple} does not divide the side {side}, or is no multiple of `smaller` {k}")
        })?;
        let too_large = AspectBuckets { widest, multiple }.too_large(side);
        expect_setting(too_large.is_none(), "buckets.multiple", || {
            let (height, width) = too_large.unwrap_or_default();
            format!(
                "multiples of {multiple} make shapes as large as {width}x{height}, for pictures of about {side}x{side}: take a smaller one, or \
                 a smaller `widest`"
            )
        })?;
        expect_setting(self.crop_side.is_none(), "buckets", || "crops are squares: there is one shape only".to_owned())
    }
}
