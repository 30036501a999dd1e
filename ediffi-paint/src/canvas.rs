//! The canvas: what the user painted, and its stored form.

use ediffi_core::interval::SigmaInterval;
use image::GrayImage;
use serde::{Deserialize, Serialize};

use crate::region::{default_weight, every_sigma};
use crate::{Error, MAX_REGIONS, MAX_WEIGHT, Mask, Occurrence, Region, Result, Strength};

/// What the user painted: regions of one size, and how strongly they act. The regions have been checked.
///
/// serde stores the size, the strength and the regions. A mask is stored as text: runs of `level*count`, row after row.
/// Reading gives an equal canvas back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Canvas {
    width: u32,
    height: u32,
    regions: Vec<Region>,
    strength: Strength,
}

impl Canvas {
    /// A canvas of these regions, as large as their masks, with the default [`Strength`].
    ///
    /// # Errors
    /// [`Error::EmptyCanvas`], [`Error::TooManyRegions`], [`Error::EmptyPhrase`], [`Error::MaskSize`] if the masks differ
    /// in size, [`Error::EmptyMask`] if a mask paints nothing, and [`Error::Weight`] if a weight is not from 0 to [`MAX_WEIGHT`].
    pub fn new(regions: impl IntoIterator<Item = Region>) -> Result<Self> {
        let regions: Vec<Region> = regions.into_iter().collect();
        let Some(first) = regions.first() else {
            return Err(Error::EmptyCanvas);
        };
        if regions.len() > MAX_REGIONS {
            return Err(Error::TooManyRegions(regions.len()));
        }
        let (width, height) = (first.mask.width(), first.mask.height());
        for (index, Region { phrase, mask, weight, .. }) in regions.iter().enumerate() {
            let named = || phrase.clone();
            if phrase.trim().is_empty() {
                return Err(Error::EmptyPhrase(index));
            }
            if (mask.width(), mask.height()) != (width, height) {
                return Err(Error::MaskSize {
                    phrase: named(),
                    width: mask.width(),
                    height: mask.height(),
                    canvas_width: width,
                    canvas_height: height,
                });
            }
            if mask.is_empty() {
                return Err(Error::EmptyMask(named()));
            }
            if !(0.0..=MAX_WEIGHT).contains(weight) {
                return Err(Error::Weight { phrase: named(), weight: *weight });
            }
        }
        Ok(Self { width, height, regions, strength: Strength::default() })
    }

    /// A canvas from one grey picture for each phrase. White is inside the region.
    ///
    /// # Errors
    /// The errors of [`Region::from_image`] and [`Canvas::new`].
    pub fn from_masks<'a, P: Into<String>>(masks: impl IntoIterator<Item = (P, &'a GrayImage)>) -> Result<Self> {
        let regions: Vec<Region> =
            masks.into_iter().map(|(phrase, mask)| Region::from_image(phrase, mask)).collect::<Result<_>>()?;
        Self::new(regions)
    }

    /// Sets how strongly the regions act.
    ///
    /// # Errors
    /// The errors of [`Strength::check`].
    pub fn with_strength(mut self, strength: Strength) -> Result<Self> {
        strength.check()?;
        self.strength = strength;
        Ok(self)
    }

    /// The width of every mask in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height of every mask in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The regions, in the order in which they were given.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// How strongly the regions act.
    #[must_use]
    pub fn strength(&self) -> &Strength {
        &self.strength
    }
}

/// The stored form of a canvas.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    width: u32,
    height: u32,
    #[serde(default)]
    strength: Strength,
    regions: Vec<StoredRegion>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRegion {
    phrase: String,
    #[serde(default = "default_weight")]
    weight: f64,
    #[serde(default)]
    occurrence: Occurrence,
    #[serde(default = "every_sigma")]
    sigma: SigmaInterval,
    mask: String,
}

impl From<Canvas> for Stored {
    fn from(canvas: Canvas) -> Self {
        let store = |region: Region| StoredRegion {
            mask: region.mask.to_text(),
            phrase: region.phrase,
            weight: region.weight,
            occurrence: region.occurrence,
            sigma: region.sigma,
        };
        Self {
            width: canvas.width,
            height: canvas.height,
            strength: canvas.strength,
            regions: canvas.regions.into_iter().map(store).collect(),
        }
    }
}

impl TryFrom<Stored> for Canvas {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        // Checked before a mask is unpacked: a short text may stand for millions of pixels.
        if stored.regions.len() > MAX_REGIONS {
            return Err(Error::TooManyRegions(stored.regions.len()));
        }
        let restore = |region: StoredRegion| {
            let mask = Mask::from_text(&region.phrase, stored.width, stored.height, &region.mask)?;
            let StoredRegion { phrase, weight, occurrence, sigma, .. } = region;
            Ok(Region { phrase, mask, weight, occurrence, sigma })
        };
        let regions: Vec<Region> = stored.regions.into_iter().map(restore).collect::<Result<_>>()?;
        Self::new(regions)?.with_strength(stored.strength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cat() -> Region {
        Region::rectangle("cat", (4, 4), 0..2, 0..2).unwrap()
    }

    #[test]
    fn the_size_is_that_of_the_masks() {
        let canvas = Canvas::new([Region::rectangle("cat", (5, 3), 0..1, 0..1).unwrap()]).unwrap();
        assert_eq!((canvas.width(), canvas.height(), canvas.regions().len()), (5, 3, 1));
    }

    #[test]
    fn no_region_is_an_error() {
        assert!(matches!(Canvas::new([]), Err(Error::EmptyCanvas)));
    }

    #[test]
    fn too_many_regions_are_an_error() {
        let regions = std::iter::repeat_n(cat(), MAX_REGIONS + 1);
        assert!(matches!(Canvas::new(regions), Err(Error::TooManyRegions(65))));
        let region = serde_json::json!({ "phrase": "cat", "mask": "255" });
        let stored = serde_json::json!({ "width": 1, "height": 1, "regions": vec![region; MAX_REGIONS + 1] });
        let error = serde_json::from_value::<Canvas>(stored).unwrap_err();
        assert!(error.to_string().contains("65 regions"), "{error}");
    }

    #[test]
    fn a_blank_phrase_is_an_error() {
        let blank = Region::rectangle("  ", (4, 4), 0..2, 0..2).unwrap();
        assert!(matches!(Canvas::new([cat(), blank]), Err(Error::EmptyPhrase(1))));
    }

    #[test]
    fn masks_of_two_sizes_are_an_error_that_names_the_phrase() {
        let odd = Region::rectangle("dog", (4, 5), 0..2, 0..2).unwrap();
        let error = Canvas::new([cat(), odd]).unwrap_err();
        assert_eq!(error.to_string(), "the mask of phrase `dog` is 4x5, but the canvas is 4x4");
    }

    #[test]
    fn a_mask_of_nothing_is_an_error() {
        let error = Canvas::from_masks([("dog", &GrayImage::new(4, 4))]).unwrap_err();
        assert!(matches!(error, Error::EmptyMask(ref phrase) if phrase == "dog"), "{error}");
    }

    #[test]
    fn a_weight_out_of_range_is_an_error() {
        for weight in [-0.5, f64::NAN, f64::INFINITY, 1e308, MAX_WEIGHT + 1.0] {
            assert!(matches!(Canvas::new([cat().weight(weight)]), Err(Error::Weight { .. })));
        }
        assert!(Canvas::new([cat().weight(0.0)]).is_ok());
    }

    #[test]
    fn a_stored_canvas_needs_only_the_essentials() {
        let text = r#"{ "width": 2, "height": 1, "regions": [{ "phrase": "cat", "mask": "0 255" }] }"#;
        let canvas: Canvas = serde_json::from_str(text).unwrap();
        assert_eq!(canvas, Canvas::new([Region::rectangle("cat", (2, 1), 1..2, 0..1).unwrap()]).unwrap());
    }

    #[test]
    fn a_stored_canvas_is_checked() {
        let read = |text: &str| serde_json::from_str::<Canvas>(text).unwrap_err().to_string();
        let unknown = r#"{ "width": 1, "height": 1, "regions": [{ "phrase": "cat", "mask": "255", "hue": 1 }] }"#;
        assert!(read(unknown).contains("hue"));
        let short = r#"{ "width": 2, "height": 1, "regions": [{ "phrase": "cat", "mask": "255" }] }"#;
        assert!(read(short).contains("phrase `cat` holds 1 pixels"));
        let strength = r#"{ "width": 1, "height": 1, "strength": {"weight": -1}, "regions": [{ "phrase": "cat", "mask": "255" }] }"#;
        assert!(read(strength).contains("paint weight is -1"));
    }

    fn any_region(width: u32, height: u32) -> impl Strategy<Value = Region> {
        let levels = prop::collection::vec(any::<u8>(), (width * height) as usize);
        ("[a-z]{1,8}", levels, 0.0_f64..4.0, prop::option::of(1_usize..4)).prop_map(
            move |(phrase, mut levels, weight, nth)| {
                levels[0] = 255;
                let picture = GrayImage::from_raw(width, height, levels).unwrap();
                let region = Region::from_image(phrase, &picture).unwrap().weight((weight * 16.0).round() / 16.0);
                let region = region.sigma(SigmaInterval::new(weight, 80.0).unwrap());
                match nth {
                    Some(3) => region.span(2..5),
                    Some(nth) => region.occurrence(nth),
                    None => region,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_stored_canvas_comes_back_unchanged(
            regions in (1_u32..7, 1_u32..7).prop_flat_map(|(w, h)| prop::collection::vec(any_region(w, h), 1..4)),
            weight in 0_u8..8,
        ) {
            let strength = Strength { weight: f64::from(weight) / 4.0, ..Strength::deviation(1.0) };
            let canvas = Canvas::new(regions).unwrap().with_strength(strength).unwrap();
            let text = serde_json::to_string(&canvas).unwrap();
            prop_assert_eq!(serde_json::from_str::<Canvas>(&text).unwrap(), canvas);
        }
    }
}
