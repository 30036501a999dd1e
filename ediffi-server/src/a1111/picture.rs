//! The picture that img2img begins with, and its mask.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{Edit, EditPicture, Limits};
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};

use crate::fields::{Fields, Wrong};

/// The blur of a mask in pixels, unless the request says otherwise: A1111's.
const BLUR: f64 = 4.0;

/// The strength, unless the request says otherwise: A1111's.
const STRENGTH: f64 = 0.75;

/// Fields that change nothing: the part to draw anew begins as it is, and the whole picture is drawn, not the part alone.
const WITHOUT_EFFECT: [&str; 6] =
    ["inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding", "mask_round", "latent_mask", "mask_blur_x"];

/// The picture fields of img2img.
#[derive(Debug)]
pub(super) struct Given {
    picture: EditPicture,
    mask: Option<EditPicture>,
    blur: f32,
    inverted: bool,
    /// Whether a picture of other proportions is cut, and not stretched.
    cut: bool,
    /// Whether the answer repeats the pictures.
    pub(super) repeated: bool,
}

impl Given {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Wrong> {
        let pictures = fields.texts("init_images")?.ok_or_else(|| Wrong::missing("init_images"))?;
        let [picture] = pictures.as_slice() else {
            return Err(Wrong::value("init_images", "`init_images` has to hold one picture in base64"));
        };
        let mask = fields.text("mask")?.map(|mask| file("mask", &mask)).transpose()?;
        // The two directions of a blur are the same here.
        let one_way = fields.number("mask_blur_y", 0.0..=64.0)?;
        let blur = fields.number("mask_blur", 0.0..=64.0)?.or(one_way).unwrap_or(BLUR) as f32;
        let resize = fields.integer("resize_mode", 0..=3)?.unwrap_or(0);
        if resize > 1 {
            return Err(Wrong::value("resize_mode", "`resize_mode` can be 0, to stretch the picture, or 1, to cut it"));
        }
        let given = Self {
            picture: file("init_images", picture)?,
            mask,
            blur,
            inverted: fields.integer("inpainting_mask_invert", 0..=1)? == Some(1),
            cut: resize == 1,
            repeated: fields.flag("include_init_images")?.unwrap_or(false),
        };
        fields.without_effect(&WITHOUT_EFFECT);
        Ok(given)
    }

    /// The edit of a picture of `size`. It decodes pictures.
    pub(super) fn edit(
        &self,
        strength: Option<f64>,
        size: (Option<u32>, Option<u32>),
        limits: &Limits,
    ) -> Result<Edit, Wrong> {
        for (name, picture) in [("init_images", Some(&self.picture)), ("mask", self.mask.as_ref())] {
            let pixels = picture.map_or(0, |picture| u64::from(picture.width()) * u64::from(picture.height()));
            if pixels > limits.edit_pixels {
                let message = format!("`{name}` has {pixels} pixels, the limit is {}", limits.edit_pixels);
                return Err(Wrong::value(name, message));
            }
        }
        let (w, h) = (self.picture.width(), self.picture.height());
        let fitted = match size {
            // Of other proportions, and no larger than what is drawn in any case.
            (Some(width), Some(height)) if u64::from(width) * u64::from(h) != u64::from(height) * u64::from(w) => {
                (u64::from(width) * u64::from(height) <= limits.pixels).then_some((width, height))
            }
            _ => None,
        };
        let picture = match fitted {
            None => self.picture.clone(),
            Some(size) => written("init_images", &self.fit(pixels("init_images", &self.picture)?, size))?,
        };
        let edit = Edit::new(picture).strength(strength.unwrap_or(STRENGTH));
        let Some(mask) = &self.mask else { return Ok(edit) };
        let mut white = pixels("mask", mask)?;
        if (mask.width(), mask.height()) != (w, h) {
            white = white.resize_exact(w, h, FilterType::Triangle);
        }
        if self.inverted {
            white.invert();
        }
        if self.blur > 0.0 {
            white = white.blur(self.blur);
        }
        let white = fitted.map_or(white.clone(), |size| self.fit(white, size));
        Ok(edit.mask(written("mask", &white)?))
    }

    fn fit(&self, picture: DynamicImage, (width, height): (u32, u32)) -> DynamicImage {
        if self.cut {
            picture.resize_to_fill(width, height, FilterType::CatmullRom)
        } else {
            picture.resize_exact(width, height, FilterType::CatmullRom)
        }
    }
}

/// The file of a picture in base64, with or without the head of a data URL.
fn file(name: &str, text: &str) -> Result<EditPicture, Wrong> {
    let wrong = |reason: String| Wrong::value(name, format!("`{name}`: {reason}"));
    let text = match text.split_once(',') {
        Some((head, text)) if head.starts_with("data:") => text,
        _ => text,
    };
    let file = STANDARD.decode(text.trim()).map_err(|error| wrong(format!("it is no base64: {error}")))?;
    EditPicture::from_bytes(file).map_err(|error| wrong(error.to_string()))
}

fn pixels(name: &str, picture: &EditPicture) -> Result<DynamicImage, Wrong> {
    let read = picture.pixels().map_err(|error| Wrong::value(name, format!("`{name}`: {error}")))?;
    Ok(DynamicImage::ImageRgb8(read))
}

fn written(name: &str, picture: &DynamicImage) -> Result<EditPicture, Wrong> {
    let pixels: RgbImage = picture.to_rgb8();
    EditPicture::new(&pixels).map_err(|error| Wrong::value(name, format!("`{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb};
    use serde_json::{Value, json};

    use super::*;

    fn base64(pixels: &RgbImage) -> String {
        let mut file = Cursor::new(Vec::new());
        pixels.write_to(&mut file, ImageFormat::Png).unwrap();
        format!("data:image/png;base64,{}", STANDARD.encode(file.into_inner()))
    }

    fn read(body: &Value) -> Result<Given, Wrong> {
        Given::read(&mut Fields::of_json(body.to_string().as_bytes()).unwrap())
    }

    fn edit(body: &Value, size: (Option<u32>, Option<u32>)) -> Edit {
        read(body).unwrap().edit(None, size, &Limits::default()).unwrap()
    }

    #[test]
    fn a_mask_is_inverted_and_blurred() {
        let picture = base64(&RgbImage::new(32, 16));
        let mask = base64(&RgbImage::from_fn(32, 16, |x, _| Rgb([if x < 16 { 255 } else { 0 }; 3])));
        let level =
            |body: &Value, x: u32| edit(body, (None, None)).mask.unwrap().pixels().unwrap().get_pixel(x, 8).0[0];
        let hard = json!({ "init_images": [picture], "mask": mask, "mask_blur": 0 });
        assert_eq!((level(&hard, 0), level(&hard, 15), level(&hard, 16)), (255, 255, 0));
        let inverted = json!({ "init_images": [picture], "mask": mask, "mask_blur": 0, "inpainting_mask_invert": 1 });
        assert_eq!((level(&inverted, 0), level(&inverted, 31)), (0, 255));
        let soft = json!({ "init_images": [picture], "mask": mask });
        assert!((20..240).contains(&level(&soft, 16)), "{}", level(&soft, 16));
        assert_eq!(edit(&soft, (None, None)).strength, Some(STRENGTH));
    }

    #[test]
    fn a_picture_of_other_proportions_is_stretched_or_cut() {
        // Black on the left half.
        let picture = base64(&RgbImage::from_fn(64, 32, |x, _| Rgb([if x < 32 { 0 } else { 255 }; 3])));
        let size = (Some(16), Some(32));
        let of =
            |mode: u32| edit(&json!({ "init_images": [picture], "resize_mode": mode }), size).picture.pixels().unwrap();
        assert_eq!((of(0).dimensions(), of(1).dimensions()), ((16, 32), (16, 32)));
        assert_eq!((of(0).get_pixel(0, 9).0[0], of(0).get_pixel(15, 9).0[0]), (0, 255));
        // The same proportions are left to the library.
        let same = edit(&json!({ "init_images": [picture] }), (Some(128), Some(64)));
        assert_eq!(same.picture.width(), 64);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let picture = base64(&RgbImage::new(4, 4));
        for (body, field) in [
            (json!({}), "init_images"),
            (json!({ "init_images": [] }), "init_images"),
            (json!({ "init_images": [picture, picture] }), "init_images"),
            (json!({ "init_images": ["%%"] }), "init_images"),
            (json!({ "init_images": ["Zm9v"] }), "init_images"),
            (json!({ "init_images": [picture], "mask": "Zm9v" }), "mask"),
            (json!({ "init_images": [picture], "resize_mode": 2 }), "resize_mode"),
        ] {
            assert_eq!(read(&body).unwrap_err().field.as_deref(), Some(field), "{body}");
        }
    }
}
