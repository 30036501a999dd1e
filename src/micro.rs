//! What SDXL's networks are told of a picture beside the text.

use serde::{Deserialize, Serialize};

/// Micro-conditioning (Podell et al. 2023, "SDXL", section 2.2): the size that the training picture of such a picture had, where it was cut, and
/// how a model of aesthetics rated it. SDXL's base and refiner are told; other models take none.
///
/// ```
/// use ediffi::{MicroConditioning, Request};
///
/// // As if cut out of a large picture, away from its corner.
/// let micro = MicroConditioning { original_size: Some((4096, 4096)), crop: (512, 256), ..MicroConditioning::default() };
/// let request = Request::new("a corgi").micro(micro);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MicroConditioning {
    /// Width and height in pixels of the original (default: those of the picture). Small ones make blurred pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_size: Option<(u32, u32)>,
    /// How far from the left and from the top of the original it was cut, in pixels (default: 0, 0). Others move things out of the picture.
    pub crop: (u32, u32),
    /// Width and height of the cut picture (default: those of the picture). The refiner is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_size: Option<(u32, u32)>,
    /// The aesthetic score, which the refiner alone is told: from 1 to 10 in training (default: 6). Others than the default are an error
    /// without it, and so are those above 100 or below -100.
    pub aesthetic_score: f64,
    /// The score that guidance leads away from (default: 2.5).
    pub negative_aesthetic_score: f64,
}

/// The values that diffusers' pipelines take by themselves.
impl Default for MicroConditioning {
    fn default() -> Self {
        Self {
            original_size: None,
            crop: (0, 0),
            target_size: None,
            aesthetic_score: 6.0,
            negative_aesthetic_score: 2.5,
        }
    }
}

/// Which numbers a network is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// None.
    Nothing,
    /// Size, crop and target: SDXL's base.
    Sizes,
    /// Size, crop and score: its refiner.
    Score,
}

impl Told {
    /// How many numbers these are.
    pub(crate) fn count(self) -> i64 {
        match self {
            Self::Nothing => 0,
            Self::Sizes => 6,
            Self::Score => 5,
        }
    }
}

impl MicroConditioning {
    /// The numbers of a picture of this width and height; `negative`: those that guidance leads away from.
    pub(crate) fn numbers(&self, told: Told, size: (u32, u32), negative: bool) -> Vec<f32> {
        let (width, height) = self.original_size.unwrap_or(size);
        let (left, top) = self.crop;
        let mut numbers = [height, width, top, left].map(|number| number as f32).to_vec();
        match told {
            Told::Nothing => numbers.clear(),
            Told::Sizes => {
                let (width, height) = self.target_size.unwrap_or(size);
                numbers.extend([height as f32, width as f32]);
            }
            Told::Score => {
                let score = if negative { self.negative_aesthetic_score } else { self.aesthetic_score };
                numbers.push(score as f32);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// diffusers' `_get_add_time_ids` has heights before widths.
    #[test]
    fn numbers_are_in_the_order_of_diffusers() {
        let micro = MicroConditioning { crop: (3, 4), target_size: Some((5, 6)), ..MicroConditioning::default() };
        let numbers = |told, negative| micro.numbers(told, (1, 2), negative);
        assert_eq!(numbers(Told::Sizes, false), [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]);
        assert_eq!(numbers(Told::Sizes, true), numbers(Told::Sizes, false));
        assert_eq!(numbers(Told::Score, false), [2.0, 1.0, 4.0, 3.0, 6.0]);
        assert_eq!(numbers(Told::Score, true), [2.0, 1.0, 4.0, 3.0, 2.5]);
        assert!(numbers(Told::Nothing, false).is_empty());
        for told in [Told::Nothing, Told::Sizes, Told::Score] {
            assert_eq!(numbers(told, false).len() as i64, told.count());
        }
        let json: MicroConditioning = serde_json::from_str(r#"{"original_size": [7, 8]}"#).unwrap();
        assert_eq!(json, MicroConditioning { original_size: Some((7, 8)), ..MicroConditioning::default() });
    }
}
