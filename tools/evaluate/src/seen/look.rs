//! All measures of one picture, and what they are beside those of its renders.

use image::RgbImage;
use serde::Serialize;
use train_icons::colour::Rgb;

use super::contours::contours;
use super::curvature::curvature;
use super::plainness::bytes;
use super::roughness::roughness;
use super::sharpness::width;
use super::specks::{specks, too_many};
use super::views::{SMALL, apart, lightness, reduced};
use crate::bootstrap::middle;
use crate::error::{Error, Result};

/// What is measured of a picture on its own; pairs are at full size and at [`SMALL`].
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    bytes: f64,
    width: [Option<f64>; 2],
    roughness: [Option<f64>; 2],
    curvature: [Option<f64>; 2],
    specks: [usize; 2],
}

impl Look {
    /// Looks at a picture whose background has these tones, if they are known.
    pub fn at(picture: &RgbImage, tones: Option<[Rgb; 2]>) -> Result<Self> {
        let small = reduced(picture, SMALL);
        let views = [picture, &small];
        let [full, less] = views.map(|view| {
            let apart = apart(view, tones);
            let contours = contours(&apart)?;
            Ok::<_, Error>((width(&lightness(view)), roughness(&contours), curvature(&contours), specks(&apart)))
        });
        let (full, less) = (full?, less?);
        let failed = |error: std::io::Error| Error::Setting { what: "bytes of a picture", reason: error.to_string() };
        Ok(Self {
            bytes: bytes(picture).map_err(failed)?,
            width: [full.0, less.0],
            roughness: [full.1, less.1],
            curvature: [full.2, less.2],
            specks: [full.3, less.3],
        })
    }
}

/// A picture beside its renders; pairs are at full size and at [`SMALL`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seen {
    /// Its bytes over those of the render.
    pub plainness: f64,
    /// The width of its edges over that of the render's; `None` where one of them has none.
    pub width: [Option<f64>; 2],
    /// How rough its contours are over those of the render; `None` where one of them has none.
    pub roughness: [Option<f64>; 2],
    /// How much its contours turn over those of the render; `None` where one of them has none.
    pub curvature: [Option<f64>; 2],
    /// Its specks that the render does not have.
    pub specks: [f64; 2],
}

impl Seen {
    /// A picture beside the medians of its renders.
    pub fn beside(picture: &Look, renders: &[Look]) -> Self {
        let over = |of: fn(&Look) -> Option<f64>| {
            let render = middle(renders.iter().filter_map(of).collect())?;
            Some(of(picture)? / render)
        };
        let specks = |view: usize| {
            let of = |look: &Look| look.specks.get(view).copied().unwrap_or(0);
            too_many(of(picture), &renders.iter().map(of).collect::<Vec<_>>())
        };
        Self {
            plainness: over(|look| Some(look.bytes)).unwrap_or(1.0),
            width: [over(|look| look.width[0]), over(|look| look.width[1])],
            roughness: [over(|look| look.roughness[0]), over(|look| look.roughness[1])],
            curvature: [over(|look| look.curvature[0]), over(|look| look.curvature[1])],
            specks: [specks(0), specks(1)],
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A red disc on white, its radius wobbling by a part of it, with specks in a corner.
    fn picture(wobble: f32, planted: u32) -> RgbImage {
        RgbImage::from_fn(1024, 1024, |x, y| {
            let (dx, dy) = (x as f32 - 511.5, y as f32 - 511.5);
            let radius = 300.0 * (1.0 + wobble * (24.0 * dy.atan2(dx)).cos());
            let inside = (radius - dx.hypot(dy) + 0.5).clamp(0.0, 1.0);
            let speck =
                (0..planted).any(|number| (x as f32 - 40.0 - 60.0 * number as f32).hypot(y as f32 - 40.0) < 9.0);
            if speck {
                Rgb([0, 0, 0])
            } else {
                Rgb([220, 40, 40].map(|c| (c as f32 * inside + 255.0 * (1.0 - inside)) as u8))
            }
        })
    }

    #[test]
    fn a_render_beside_itself_is_one_and_none() {
        let tones = Some([[255; 3]; 2]);
        let render = Look::at(&picture(0.0, 0), tones).unwrap();
        let same = Seen::beside(&render, std::slice::from_ref(&render));
        let one = [Some(1.0); 2];
        assert_eq!(same, Seen { plainness: 1.0, width: one, roughness: one, curvature: one, specks: [0.0; 2] });
        let worse = Seen::beside(&Look::at(&picture(0.04, 2), tones).unwrap(), &[render]);
        assert_eq!(worse.specks, [2.0; 2]);
        assert!(worse.plainness > 1.1, "{worse:?}");
        // √(1 + (a k)²/2) to second order, as long as the wobble is smoothed away.
        for rough in worse.roughness.map(Option::unwrap) {
            assert!(rough > 1.1 && rough < 1.25, "{rough}");
        }
        // The circle turns once; each wave of slope 0.96 turns by 4 tan⁻¹ 0.96, less what is smoothed away, on a way 1.2 times as long.
        for turned in worse.curvature.map(Option::unwrap) {
            assert!(turned > 6.0 && turned < 24.0 * 4.0 * 0.96_f64.atan() / std::f64::consts::TAU, "{turned}");
        }
        // The edges are as sharp; those of the specks are a little sharper.
        assert!((worse.width[0].unwrap() - 1.0).abs() < 0.1, "{worse:?}");
    }
}
