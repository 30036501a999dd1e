//! The preprocessing of pictures: pictures of any size become the input of CLIP's picture half.

use std::path::Path;

use ediffi_core::files::read_json;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Mean of the red, green and blue channel in [0, 1] that CLIP's pictures are normalised with (Radford et al. 2021,
/// released code).
pub const CHANNEL_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];

/// Standard deviation of the same, from the same source.
pub const CHANNEL_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// From bytes to [0, 1].
const SCALE: f64 = 1.0 / 255.0;

/// The most times that a picture may be as long as wide. A longer one, enlarged to the network's size, could fill the memory.
const STRETCH: i64 = 100;

/// The most times that the resized picture may be as large as its crop. Published files say 1 to 1.15.
const MARGIN: i64 = 4;

/// The preprocessing for one network. It resizes the shorter side to `size` with Pillow's bicubic filter, crops the middle
/// square of `crop` pixels, multiplies bytes by `scale`, and normalises the channels by mean and standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    size: i64,
    crop: i64,
    scale: f64,
    mean: [f64; 3],
    std: [f64; 3],
}

/// The keys of `preprocessor_config.json` that are read. A missing key has the value of OpenAI's models.
#[derive(Deserialize)]
struct File {
    size: Option<Size>,
    crop_size: Option<Size>,
    resample: Option<i64>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    /// Of older files.
    Number(i64),
    ShortestEdge {
        shortest_edge: i64,
    },
    Square {
        height: i64,
        width: i64,
    },
}

impl Preprocess {
    /// The preprocessing of OpenAI's models, for a network that takes pictures of `image_size` pixels.
    #[must_use]
    pub fn new(image_size: i64) -> Self {
        Self { size: image_size, crop: image_size, scale: SCALE, mean: CHANNEL_MEAN, std: CHANNEL_STD }
    }

    /// Reads the preprocessing from the file at `path`, for a network that takes pictures of `image_size` pixels. Without the
    /// file, and for keys that it leaves out, it is that of [`new`](Self::new).
    ///
    /// # Errors
    /// A file that is unreadable; [`Error::Preprocessor`] for a step that is not supported.
    pub fn open(path: &Path, image_size: i64) -> Result<Self> {
        let default = Self::new(image_size);
        if !path.is_file() {
            return Ok(default);
        }
        let file: File = read_json(path)?;
        let wrong = |key, reason: String| Err(Error::Preprocessor { path: path.to_owned(), key, reason });
        // Without them a picture would have any size, and the network takes one.
        for (key, step) in [("do_resize", file.do_resize), ("do_center_crop", file.do_center_crop)] {
            if step == Some(false) {
                return wrong(key, format!("pictures have to become squares of {image_size} pixels"));
            }
        }
        let crop = match file.crop_size {
            None => image_size,
            Some(Size::Number(side) | Size::ShortestEdge { shortest_edge: side }) => side,
            Some(Size::Square { height, width }) if height == width => height,
            Some(Size::Square { height, width }) => {
                return wrong("crop_size", format!("{width}x{height} is no square"));
            }
        };
        if crop != image_size {
            return wrong("crop_size", format!("{crop} is not the network's image_size {image_size}"));
        }
        let size = match file.size {
            None => image_size,
            Some(Size::Number(side) | Size::ShortestEdge { shortest_edge: side }) => side,
            Some(Size::Square { .. }) => return wrong("size", "only a shortest_edge is supported".to_owned()),
        };
        let most = crop.saturating_mul(MARGIN);
        if !(crop..=most).contains(&size) {
            return wrong("size", format!("{size} is not between crop_size {crop} and {most}"));
        }
        // Pillow's number of the bicubic filter.
        if let Some(filter) = file.resample.filter(|&filter| filter != 3) {
            return wrong("resample", format!("filter {filter} is not the bicubic one, 3"));
        }
        let scale = if file.do_rescale == Some(false) { 1.0 } else { file.rescale_factor.unwrap_or(SCALE) };
        if !(scale > 0.0 && scale.is_finite()) {
            return wrong("rescale_factor", format!("{scale} is not positive"));
        }
        let (mean, std) = match file.do_normalize {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (file.image_mean.unwrap_or(CHANNEL_MEAN), file.image_std.unwrap_or(CHANNEL_STD)),
        };
        if std.iter().any(|&s| s <= 0.0) {
            return wrong("image_std", format!("{std:?} is not positive"));
        }
        Ok(Self { size, crop, scale, mean, std })
    }

    /// Preprocesses one picture.
    ///
    /// # Shapes
    /// `picture`: [3, height, width] RGB, u8 or floating point in [0, 1] → [3, image_size, image_size] f32, on the CPU
    ///
    /// # Errors
    /// [`Error::Picture`] for a tensor that is no picture, or one more than 100 times as long as wide.
    pub fn apply(&self, picture: &Tensor) -> Result<Tensor> {
        let refuse =
            |reason| Err(Error::Picture { shape: picture.size(), kind: format!("{:?}", picture.kind()), reason });
        let (height, width) = match picture.size().as_slice() {
            &[3, height, width] if height > 0 && width > 0 => (height, width),
            _ => return refuse("expected [3, height, width]"),
        };
        let (shorter, longer) = (height.min(width), height.max(width));
        if longer > STRETCH * shorter {
            return refuse("one side is more than 100 times the other");
        }
        let picture = picture.f_to_device(Device::Cpu)?.f_unsqueeze(0)?;
        let size = |side: i64| if side == shorter { self.size } else { self.size * side / shorter };
        let (height, width) = (size(height), size(width));
        // The reference sees pictures of 8 bits a channel.
        let picture = match picture.kind() {
            Kind::Uint8 => picture,
            Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => {
                let bytes = picture.f_to_kind(Kind::Float)?.f_clamp(0.0, 1.0)?.f_mul_scalar(255.0)?;
                bytes.f_round()?.f_to_kind(Kind::Uint8)?
            }
            _ => return refuse("expected u8, or floating point in [0, 1]"),
        };
        let middle = self.resize(&picture, height, width)?.f_to_kind(Kind::Float)?.f_mul_scalar(self.scale)?;
        let channels = |values: &[f64; 3]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?.f_reshape([1, 3, 1, 1])?)
        };
        Ok(middle.f_sub(&channels(&self.mean)?)?.f_div(&channels(&self.std)?)?.f_squeeze_dim(0)?)
    }

    /// Resizes `picture` with Pillow's bicubic filter and crops the middle. The filter works on one axis after the other, and
    /// rounds to bytes after each. The vertical axis is first if the height shrinks by more than twice as many pixels as the
    /// width (Pillow 13, `Resample.c`).
    ///
    /// The filter along one axis treats each row or column by itself. So the picture is cropped along the first axis before
    /// the second is filtered, and a long picture is never whole in its new size.
    ///
    /// # Shapes
    /// `picture`: [1, 3, h, w] u8, to be made `height` · `width` → [1, 3, crop, crop] u8
    fn resize(&self, picture: &Tensor, height: i64, width: i64) -> Result<Tensor> {
        let (_, _, old_height, old_width) = picture.size4()?;
        let shrinks = old_height - height;
        let vertical_first = shrinks > 0 && shrinks > 2 * (old_width - width);
        let axes = if vertical_first { [(2, height), (3, width)] } else { [(3, width), (2, height)] };
        let mut picture = picture.shallow_clone();
        for (axis, side) in axes {
            let (_, _, rows, columns) = picture.size4()?;
            let shape = if axis == 2 { [side, columns] } else { [rows, side] };
            let made = picture.f_internal_upsample_bicubic2d_aa(shape, false, None, None)?;
            picture = made.f_narrow(axis, (side - self.crop) / 2, self.crop)?;
        }
        Ok(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(json: &str, image_size: i64) -> Result<Preprocess> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(&path, json).unwrap();
        Preprocess::open(&path, image_size)
    }

    #[test]
    fn a_missing_file_and_one_that_says_nothing_are_openai_s() {
        let missing = Preprocess::open(Path::new("no/such/file.json"), 224).unwrap();
        assert_eq!(missing, Preprocess::new(224));
        assert_eq!(open("{}", 224).unwrap(), Preprocess::new(224));
    }

    #[test]
    fn sizes_of_old_and_new_files_are_read() {
        let old = open(r#"{ "size": 230, "crop_size": 224, "resample": 3 }"#, 224).unwrap();
        let new = open(r#"{ "size": { "shortest_edge": 230 }, "crop_size": { "height": 224, "width": 224 } }"#, 224);
        assert_eq!(old, new.unwrap());
        assert_eq!((old.size, old.crop), (230, 224));
    }

    #[test]
    fn what_cannot_be_done_is_an_error_that_names_the_key() {
        for (json, culprit) in [
            (r#"{ "crop_size": 336 }"#, "crop_size"),
            (r#"{ "crop_size": { "height": 224, "width": 220 } }"#, "crop_size"),
            (r#"{ "size": 200 }"#, "size"),
            (r#"{ "size": { "height": 224, "width": 224 } }"#, "size"),
            (r#"{ "size": 897 }"#, "size"),
            (r#"{ "size": 16384 }"#, "size"),
            (r#"{ "resample": 2 }"#, "resample"),
            (r#"{ "do_resize": false }"#, "do_resize"),
            (r#"{ "do_center_crop": false }"#, "do_center_crop"),
            (r#"{ "rescale_factor": 0 }"#, "rescale_factor"),
            (r#"{ "rescale_factor": -0.5 }"#, "rescale_factor"),
            (r#"{ "image_std": [1, 1, 0] }"#, "image_std"),
        ] {
            match open(json, 224).unwrap_err() {
                Error::Preprocessor { key, .. } => assert_eq!(key, culprit),
                other => panic!("{json}: {other}"),
            }
        }
    }

    #[test]
    fn steps_that_a_file_leaves_out_or_changes_are_so() {
        // One colour, which no filter changes: 51 is a fifth of 255.
        let grey = Tensor::full([3, 8, 8], 51, (Kind::Uint8, Device::Cpu));
        let first = |json: &str| open(json, 4).unwrap().apply(&grey).unwrap().double_value(&[0, 0, 0]);
        let close =
            |json: &str, expected: f64| assert!((first(json) - expected).abs() < 1e-4, "{json}: {}", first(json));
        close(
            r#"{ "do_resize": true, "do_rescale": true, "do_normalize": true }"#,
            (0.2 - CHANNEL_MEAN[0]) / CHANNEL_STD[0],
        );
        close(r#"{ "do_normalize": false }"#, 0.2);
        close(r#"{ "do_normalize": false, "do_rescale": false, "rescale_factor": 7 }"#, 51.0);
        close(r#"{ "rescale_factor": 0.5, "image_mean": [1, 1, 1], "image_std": [2, 2, 2] }"#, 12.25);
    }

    #[test]
    fn a_picture_cut_between_the_axes_is_the_middle_of_the_whole() {
        let options = (Kind::Int64, Device::Cpu);
        for (height, width) in [(9, 40), (40, 9), (37, 23), (300, 41), (5, 5), (3, 290)] {
            let picture = (Tensor::arange(3 * height * width, options) * 7).remainder(251);
            let picture = picture.reshape([1, 3, height, width]).to_kind(Kind::Uint8);
            let side = |side: i64| 16 * side / height.min(width);
            let (new_height, new_width) = (side(height), side(width));
            let cut = Preprocess { size: 16, ..Preprocess::new(10) };
            let kept = cut.resize(&picture, new_height, new_width).unwrap();
            let shrinks = height - new_height;
            let between = match shrinks > 0 && shrinks > 2 * (width - new_width) {
                true => [new_height, width],
                false => [height, new_width],
            };
            let whole = picture.internal_upsample_bicubic2d_aa(between, false, None, None);
            let whole = whole.internal_upsample_bicubic2d_aa([new_height, new_width], false, None, None);
            let middle = whole.narrow(2, (new_height - 10) / 2, 10).narrow(3, (new_width - 10) / 2, 10);
            assert!(kept.equal(&middle), "{height}x{width}");
        }
    }

    #[test]
    fn the_middle_of_a_picture_of_any_shape_is_kept() {
        let preprocess = Preprocess { mean: [0.0; 3], std: [1.0; 3], ..Preprocess::new(4) };
        // Columns 0 to 11 hold 0, 10, .. 110: unresized, the middle four are 4 to 7.
        let row = Tensor::arange(12, (Kind::Float, Device::Cpu)) * 10.0;
        let wide = row.expand([3, 4, 12], false).to_kind(Kind::Uint8);
        let kept = preprocess.apply(&wide).unwrap();
        let columns = Vec::<f32>::try_from(kept.select(0, 1).select(0, 2) * 255.0).unwrap();
        assert_eq!(columns.iter().map(|c| c.round()).collect::<Vec<_>>(), [40.0, 50.0, 60.0, 70.0]);
        for shape in [[3, 1, 1], [3, 2, 90], [3, 300, 7], [3, 4, 4]] {
            assert_eq!(preprocess.apply(&Tensor::zeros(shape, (Kind::Uint8, Device::Cpu))).unwrap().size(), [3, 4, 4]);
        }
    }

    #[test]
    fn resizing_does_not_leave_the_range_of_pixels() {
        let preprocess = Preprocess { mean: [0.0; 3], std: [1.0; 3], ..Preprocess::new(16) };
        // A bicubic filter overshoots at edges.
        let edge = Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 1.0]).expand([3, 4, 4], false);
        for picture in [edge.shallow_clone(), (edge * 255.0).to_kind(Kind::Uint8)] {
            let prepared = preprocess.apply(&picture).unwrap();
            assert_eq!((prepared.min().double_value(&[]), prepared.max().double_value(&[])), (0.0, 1.0));
        }
    }

    #[test]
    fn tensors_that_are_no_pictures_are_errors() {
        let preprocess = Preprocess::new(4);
        for (shape, kind) in [
            (vec![4, 4], Kind::Float),
            (vec![1, 4, 4], Kind::Float),
            (vec![3, 0, 4], Kind::Float),
            (vec![3, 4, 4], Kind::Int64),
            (vec![3, 2, 201], Kind::Uint8),
        ] {
            let picture = Tensor::zeros(&shape, (kind, Device::Cpu));
            assert!(matches!(preprocess.apply(&picture), Err(Error::Picture { .. })), "{shape:?}");
        }
    }
}
