//! *Patch distance*: the Fréchet distance between patches of pictures and patches of other renders, in the features of a
//! network that was not trained here ([`Lite0`]).
//!
//! A patch is an eighth of the side at full size and a quarter of it at the small one: 128 and 64 pixels. Its feature is the
//! mean over the patch of the network's map of the whole picture, so what lies around a patch counts a little, and no patch
//! has an edge of its own.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::files::make_folder_of;
use ediffi_core::weights::save;
use ediffi_train::pixels::from_rgb;
use image::RgbImage;
use tch::Tensor;

use super::lite0::{Lite0, STRIDE};
use super::views::SMALL;
use crate::error::{Error, Result};

/// Side of a patch at full size and at the small one, in pixels.
const PATCH: [i64; 2] = [128, 64];

/// The features of a picture's patches.
///
/// # Shapes
/// → [patches, 112]
pub fn features(network: &Lite0, picture: &RgbImage) -> Result<Tensor> {
    let side = i64::from(picture.width());
    let map = network.map(&from_rgb(&[picture.as_raw()], side, side)?)?;
    let cells = PATCH[usize::from(picture.width() <= SMALL)] / STRIDE;
    let means = map.f_avg_pool2d([cells, cells], [cells, cells], [0, 0], false, true, None)?;
    Ok(means.f_flatten(2, 3)?.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_contiguous()?)
}

/// How far the mean feature of a picture is from that of its render: what the worst pictures are found by, as a distance of
/// sets says nothing about one picture.
pub fn apart(picture: &Tensor, render: &Tensor) -> Result<f64> {
    let mean = |x: &Tensor| x.f_mean_dim([0_i64].as_slice(), false, tch::Kind::Double);
    Ok(mean(picture)?.f_sub(&mean(render)?)?.f_square()?.f_sum(tch::Kind::Double)?.f_sqrt()?.f_double_value(&[])?)
}

/// The features in a file, which are made and written where there is none.
pub fn kept(path: &Path, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    const NAME: &str = "features";
    if path.exists() {
        let found = Tensor::read_safetensors(path)?.into_iter().find(|(name, _)| name == NAME);
        let none = || Error::Picture { path: path.to_owned(), reason: format!("it holds no `{NAME}`") };
        return Ok(found.ok_or_else(none)?.1);
    }
    let made = make()?;
    make_folder_of(path)?;
    save(path, &[(NAME.to_owned(), made.shallow_clone())], HashMap::new())?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn patches_are_those_of_the_grid_and_a_picture_is_no_way_from_itself() {
        let test = "patches_are_those_of_the_grid_and_a_picture_is_no_way_from_itself";
        let Some(network) = super::super::lite0::tests::fetched(test) else { return };
        // Plain above, a chessboard of 4 pixels below.
        let at = |x: u32, y: u32, side: u32| y >= side / 2 && (x / 4 + y / 4).is_multiple_of(2);
        let picture = |side: u32| {
            RgbImage::from_fn(side, side, |x, y| if at(x, y, side) { Rgb([0; 3]) } else { Rgb([240, 240, 200]) })
        };
        let (large, small) = (features(&network, &picture(1024)).unwrap(), features(&network, &picture(256)).unwrap());
        assert_eq!((large.size(), small.size()), (vec![64, 112], vec![16, 112]));
        let way = |a: i64, b: i64| (large.get(a) - large.get(b)).square().mean(tch::Kind::Double).double_value(&[]);
        // The second and third rows of patches are alike within and unlike across the chessboard's edge.
        assert!(way(9, 10) < 1e-3 * way(9, 41) && way(42, 43) < 1e-3 * way(9, 41), "{} {}", way(9, 10), way(9, 41));
        assert_eq!(apart(&large, &large).unwrap(), 0.0);
        assert!(apart(&large, &(&large + 1.0)).unwrap() - 112_f64.sqrt() < 1e-4);
    }

    #[test]
    fn features_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/features.safetensors");
        let made = kept(&path, || Ok(Tensor::from_slice(&[1.0_f32, 2.0]))).unwrap();
        assert_eq!(kept(&path, || Err(Error::Worker)).unwrap(), made);
        assert!(kept(&folder.path().join("b"), || Err(Error::Worker)).is_err());
    }
}
