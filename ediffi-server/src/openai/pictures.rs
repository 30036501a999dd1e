//! The pictures of a form, as the library takes them.

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{Edit, EditPicture, Limits, Request, Style};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;

use super::settings::Task;
use crate::fields::Wrong;

/// How much of a picture a variation draws anew, unless the request says otherwise.
const VARIATION: f64 = 0.6;

/// Puts the pictures of a form into a request: the first is edited, the style is that of the others.
pub(super) fn place(
    request: Request,
    task: Task,
    strength: Option<f64>,
    pictures: &[Bytes],
    mask: Option<&Bytes>,
    limits: &Limits,
) -> Result<Request, Wrong> {
    let Some((first, others)) = pictures.split_first() else { return Err(Wrong::missing("image")) };
    let picture = EditPicture::from_bytes(first.to_vec()).map_err(|error| Wrong::value("image", error.to_string()))?;
    let mut edit = Edit::new(picture);
    if let Some(mask) = mask {
        if task == Task::Variation {
            return Err(Wrong::value("mask", "a variation takes no `mask`: use /v1/images/edits"));
        }
        edit = edit.mask(repainted(mask, limits)?);
    }
    edit.strength = strength.or((task == Task::Variation).then_some(VARIATION));
    let mut request = request.edit(edit);
    if !others.is_empty() {
        if task == Task::Variation {
            return Err(Wrong::value("image", "a variation is of one picture"));
        }
        if request.style.is_some() {
            return Err(Wrong::value(
                "image",
                "the pictures after the first are a style, and there is an `ediffi.style`",
            ));
        }
        request = request.style(style(others)?);
    }
    Ok(request)
}

/// The style of all these pictures alike. They are decoded when the limits have been checked.
fn style(pictures: &[Bytes]) -> Result<Style, Wrong> {
    let reference = |picture: &Bytes| json!({ "image": STANDARD.encode(picture) });
    let style = json!({ "references": pictures.iter().map(reference).collect::<Vec<_>>() });
    serde_json::from_value(style).map_err(|error| Wrong::value("image", format!("a picture after the first: {error}")))
}

/// OpenAI's mask is drawn anew where it is transparent; the library's where it is white.
fn repainted(mask: &Bytes, limits: &Limits) -> Result<EditPicture, Wrong> {
    let wrong = |reason: String| Wrong::value("mask", format!("`mask`: {reason}"));
    let sides = EditPicture::from_bytes(mask.to_vec()).map_err(|error| wrong(error.to_string()))?;
    let pixels = u64::from(sides.width()) * u64::from(sides.height());
    if pixels > limits.edit_pixels {
        return Err(wrong(format!("it has {pixels} pixels, the limit is {}", limits.edit_pixels)));
    }
    let read = image::load_from_memory_with_format(mask, ImageFormat::Png).map_err(|error| wrong(error.to_string()))?;
    if !read.color().has_alpha() {
        return Err(wrong("it has no transparency: what is transparent is drawn anew".to_owned()));
    }
    let read = read.into_rgba8();
    let white = RgbImage::from_fn(read.width(), read.height(), |x, y| {
        let [_, _, _, alpha] = read.get_pixel(x, y).0;
        Rgb([u8::MAX - alpha; 3])
    });
    EditPicture::new(&white).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, Rgba, RgbaImage};

    use super::*;

    fn png(pixels: impl Into<DynamicImage>) -> Bytes {
        let mut file = Cursor::new(Vec::new());
        pixels.into().write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    fn placed(task: Task, pictures: &[Bytes], mask: Option<&Bytes>) -> Result<Request, Wrong> {
        place(Request::new("a cat"), task, None, pictures, mask, &Limits { edit_pixels: 100, ..Limits::default() })
    }

    #[test]
    fn what_is_transparent_is_drawn_anew() {
        let picture = [png(RgbImage::new(4, 2))];
        let mask = png(RgbaImage::from_fn(4, 2, |x, _| Rgba([9, 9, 9, if x < 2 { 0 } else { 255 }])));
        let edit = placed(Task::Edit, &picture, Some(&mask)).unwrap().edit.unwrap();
        let mask = edit.mask.unwrap().pixels().unwrap();
        assert_eq!((mask.get_pixel(0, 1).0, mask.get_pixel(3, 1).0), ([255; 3], [0; 3]));
        assert_eq!(edit.strength, None);
        for (mask, said) in [
            (png(RgbImage::new(4, 2)), "no transparency"),
            (png(RgbaImage::new(20, 20)), "limit is 100"),
            (Bytes::from_static(b"GIF"), "PNG"),
        ] {
            let wrong = placed(Task::Edit, &picture, Some(&mask)).unwrap_err();
            assert!(wrong.field.as_deref() == Some("mask") && wrong.message.contains(said), "{wrong:?}");
        }
    }

    #[test]
    fn the_pictures_after_the_first_are_a_style() {
        let pictures = [4, 5, 6].map(|width| png(RgbImage::new(width, 4)));
        let request = placed(Task::Edit, &pictures, None).unwrap();
        assert_eq!(request.edit.unwrap().picture.width(), 4);
        assert_eq!(request.style.unwrap().references.len(), 2);
        assert!(placed(Task::Variation, &pictures, None).is_err());
        let one = placed(Task::Variation, &pictures[..1], None).unwrap();
        assert_eq!(one.edit.unwrap().strength, Some(VARIATION));
        assert_eq!(
            placed(Task::Edit, &[Bytes::from_static(b"text")], None).unwrap_err().field.as_deref(),
            Some("image")
        );
    }
}
