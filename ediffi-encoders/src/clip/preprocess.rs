//! The preprocessing of pictures: pictures of any size become the input of CLIP's picture half.

use std::path::Path;

use ediffi_core::files::read_json;
use ediffi_core::published::unknown_key;
use serde::Deserialize;
use serde_json::{Map, Value};
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

/// The keys that are read. A missing key has the value of OpenAI's models.
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
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The classes whose steps these are.
const CLASSES: [&str; 6] = [
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPProcessor",
    "CLIPVisionProcessor",
];

/// Keys that change nothing: pictures are RGB here in any case, and the others say how Python hands them on.
const WITHOUT_EFFECT: [&str; 13] = [
    "_name_or_path",
    "_valid_processor_keys",
    "auto_map",
    "backend",
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "input_data_format",
    "processor_class",
    "return_tensors",
    "transformers_version",
];

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

    /// Reads the preprocessing of a model folder, for a network that takes pictures of `image_size` pixels: from `image_processor` in
    /// `processor_config.json`, where transformers 5 writes it, or else from `preprocessor_config.json`. Without either it is that of
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_folder(folder: &Path, image_size: i64) -> Result<Self> {
        #[derive(Deserialize)]
        struct Processor {
            image_processor: Option<File>,
        }
        let path = folder.join("processor_config.json");
        let nested = if path.is_file() { read_json::<Processor>(&path)?.image_processor } else { None };
        match nested {
            Some(file) => Self::of(&file, &path, image_size),
            None => Self::open(&folder.join("preprocessor_config.json"), image_size),
        }
    }

    /// Reads the preprocessing from the file at `path`, for a network that takes pictures of `image_size` pixels. Without the
    /// file, and for keys that it leaves out, it is that of [`new`](Self::new).
    ///
    /// # Errors
    /// A file that is unreadable; [`Error::Preprocessor`] for a step that is not supported.
    pub fn open(path: &Path, image_size: i64) -> Result<Self> {
        if path.is_file() { Self::of(&read_json(path)?, path, image_size) } else { Ok(Self::new(image_size)) }
    }

    fn of(file: &File, path: &Path, image_size: i64) -> Result<Self> {
        let wrong =
            |key: &str, reason: String| Err(Error::Preprocessor { path: path.to_owned(), key: key.to_owned(), reason });
        for (key, class) in [
            ("image_processor_type", &file.image_processor_type),
            ("feature_extractor_type", &file.feature_extractor_type),
        ] {
            if let Some(class) = class.as_deref().filter(|class| !CLASSES.contains(class)) {
                return wrong(key, format!("`{class}` prepares pictures in another way than CLIP"));
            }
        }
        if let Some(key) = unknown_key(&file.others, &WITHOUT_EFFECT) {
            return wrong(key, "this library does not know it".to_owned());
        }
        // Without them a picture would have any size, and the network takes one.
        for (key, step) in [("do_resize", file.do_resize), ("do_center_crop", file.do_center_crop)] {
            if step == Some(false) {
                return wrong(key, format!("pictures have to become squares of {image_size} pixels"));
            }
        }
        let crop = match &file.crop_size {
            None => image_size,
            Some(Size::Number(side) | Size::ShortestEdge { shortest_edge: side }) => *side,
            Some(Size::Square { height, width }) if height == width => *height,
            Some(Size::Square { height, width }) => {
                return wrong("crop_size", format!("{width}x{height} is no square"));
            }
        };
        if crop != image_size {
            return wrong("crop_size", format!("{crop} is not the network's image_size {image_size}"));
        }
        let size = match &file.size {
            None => image_size,
            Some(Size::Number(side) | Size::ShortestEdge { shortest_edge: side }) => *side,
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
mod tests;
