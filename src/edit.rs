//! Editing: a picture that a request begins with, and what of it stays.

use std::path::Path;
use std::sync::Arc;

use ediffi_cascade::Jumps;
use ediffi_core::files;
use ediffi_encoders::{PICTURE_BYTES, Picture, PictureError};
use image::{GrayImage, ImageFormat, RgbImage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result, base64};

/// How much is drawn anew of a picture without a mask, unless a request says otherwise: that of diffusers' `IFImg2ImgPipeline`.
const STRENGTH: f64 = 0.7;

/// A picture to edit.
///
/// - **Image to image:** the first stage adds noise to the picture and goes on from there, so layout and colours stay, more or less.
/// - **Inpainting:** with a [mask](field@Self::mask), only what is white in it is drawn anew; all else is the given picture.
/// - **Enlarging:** if the [first stage](crate::Request::first_stage) of the request is one of super-resolution, it enlarges the picture.
///
/// ```no_run
/// use ediffi::{Edit, EditPicture, Request};
///
/// let (photo, sky) = (EditPicture::open("photo.jpg")?, EditPicture::open("sky.png")?);
/// let redrawn = Request::new("a cat").edit(Edit::new(photo.clone()).strength(0.5));
/// let inpainted = Request::new("a red kite").edit(Edit::new(photo.clone()).mask(sky));
/// let enlarged = Request::unconditional().first_stage("sr256").edit(Edit::new(photo));
/// # Ok::<(), ediffi::Error>(())
/// ```
///
/// In JSON: `{"picture": "BASE64", "strength": 0.5, "mask": "BASE64", "jumps": {"length": 5, "count": 2}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct Edit {
    /// The picture. A request that sets no size draws in its proportions.
    pub picture: EditPicture,
    /// How much is drawn anew, from 0, nothing, to 1, everything: the share of the first stage's steps that are made (default: 1 with a
    /// mask, else 0.7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// What is drawn anew: white. Black stays, grey is a soft edge, and what is transparent stays. It has the size of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<EditPicture>,
    /// Jumps back up in noise in the first stage, so that what is drawn anew fits what stays (default: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jumps: Option<Jumps>,
}

impl Edit {
    /// An edit of all of a picture.
    pub fn new(picture: EditPicture) -> Self {
        Self { picture, strength: None, mask: None, jumps: None }
    }

    /// Sets how much is drawn anew: see the field [`strength`](field@Self::strength).
    pub fn strength(mut self, strength: f64) -> Self {
        self.strength = Some(strength);
        self
    }

    /// Sets what is drawn anew: see the field [`mask`](field@Self::mask).
    pub fn mask(mut self, mask: EditPicture) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Goes back up in noise on the way, in the first stage: every `length` steps as many steps back, `count` times each. It takes
    /// `count + 1` times as long, and needs a [mask](Self::mask).
    pub fn jumps(mut self, length: usize, count: usize) -> Self {
        self.jumps = Some(Jumps { length, count });
        self
    }

    /// The strength, the default's if none is set.
    pub(crate) fn resolved_strength(&self) -> f64 {
        self.strength.unwrap_or(if self.mask.is_some() { 1.0 } else { STRENGTH })
    }

    /// Decodes both pictures.
    ///
    /// # Errors
    /// [`Error::EditPicture`] naming the one whose pixels are damaged.
    pub(crate) fn expect_whole(&self) -> Result<()> {
        for (name, picture) in ["picture", "mask"].into_iter().zip(self.pictures()) {
            let decoded = Picture::from_bytes(&picture.file);
            decoded.map_err(|error| Error::EditPicture(format!("the {name}: {error}")))?;
        }
        Ok(())
    }

    /// The picture, and the mask.
    pub(crate) fn pictures(&self) -> impl Iterator<Item = &EditPicture> {
        std::iter::once(&self.picture).chain(&self.mask)
    }
}

/// A picture that is edited, or a mask: the bytes of a PNG or JPEG file. Only its header has been read: it is decoded when a pipeline has
/// checked its [`Limits`](crate::Limits). A copy shares the bytes. Two are equal if their files are.
#[derive(Clone, PartialEq, Eq)]
pub struct EditPicture {
    file: Arc<[u8]>,
    width: u32,
    height: u32,
}

impl EditPicture {
    /// A picture of these pixels.
    ///
    /// # Errors
    /// [`Error::EditPicture`] for a picture without a pixel, or one that is too large.
    pub fn new(pixels: &RgbImage) -> Result<Self> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, ImageFormat::Png).map_err(|error| Error::EditPicture(error.to_string()))?;
        Self::from_bytes(bytes.into_inner())
    }

    /// Reads a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::ReadFile`]; [`Error::EditPicture`] for a file that is no picture or too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let named = |reason: String| Error::EditPicture(format!("{}: {reason}", path.display()));
        let length = std::fs::metadata(path).map_or(0, |file| file.len());
        if length > PICTURE_BYTES {
            return Err(named(PictureError::File(length).to_string()));
        }
        Self::of(files::read_bytes(path)?).map_err(|error| named(error.to_string()))
    }

    /// Takes the bytes of a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::EditPicture`] for bytes that are no picture, or one that is too large.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::of(bytes.into()).map_err(unreadable)
    }

    fn of(file: Vec<u8>) -> std::result::Result<Self, PictureError> {
        let (width, height) = Picture::size_of(&file)?;
        Ok(Self { file: file.into(), width, height })
    }

    /// Its width in pixels, as browsers show it.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Its height in pixels, as browsers show it.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes of its file.
    pub(crate) fn length(&self) -> usize {
        self.file.len()
    }

    /// The pixels of a picture, on white where it is transparent.
    ///
    /// # Errors
    /// [`Error::EditPicture`] for damaged pixels.
    pub fn pixels(&self) -> Result<RgbImage> {
        Ok(self.decoded()?.into_rgb())
    }

    /// The pixels of a mask: how white they are, and 0 where it is transparent. [`Region::from_image`](crate::Region::from_image) paints words
    /// there.
    ///
    /// # Errors
    /// [`Error::EditPicture`] for damaged pixels.
    pub fn mask(&self) -> Result<GrayImage> {
        Ok(self.decoded()?.into_mask())
    }

    fn decoded(&self) -> Result<Picture> {
        Picture::from_bytes(&self.file).map_err(unreadable)
    }
}

fn unreadable(error: PictureError) -> Error {
    Error::EditPicture(error.to_string())
}

impl std::fmt::Debug for EditPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EditPicture({}x{})", self.width, self.height)
    }
}

impl Serialize for EditPicture {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        base64::serialize(&self.file, serializer)
    }
}

impl<'de> Deserialize<'de> for EditPicture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::of(base64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> EditPicture {
        EditPicture::new(&RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]))).unwrap()
    }

    #[test]
    fn an_edit_comes_back_from_json() {
        let edit = Edit::new(picture()).strength(0.25).mask(picture()).jumps(5, 2);
        let json = serde_json::to_string(&edit).unwrap();
        assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
        assert_eq!((edit.picture.width(), edit.picture.height()), (5, 3));
        assert_eq!(edit.picture.pixels().unwrap().get_pixel(4, 2).0, [4, 2, 7]);
        let error = serde_json::from_str::<Edit>(&json.replace("strength", "strenght")).unwrap_err().to_string();
        assert!(error.contains("strenght"), "{error}");
        assert!(serde_json::from_str::<EditPicture>("\"Zm9v\"").unwrap_err().to_string().contains("no PNG or JPEG"));
    }

    #[test]
    fn the_strength_is_1_with_a_mask() {
        assert_eq!(Edit::new(picture()).resolved_strength(), STRENGTH);
        assert_eq!(Edit::new(picture()).mask(picture()).resolved_strength(), 1.0);
        assert_eq!(Edit::new(picture()).mask(picture()).strength(0.5).resolved_strength(), 0.5);
    }

    #[test]
    fn what_is_no_picture_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no.png");
        std::fs::write(&path, "text").unwrap();
        let error = EditPicture::open(&path).unwrap_err().to_string();
        assert!(error.contains("no.png") && error.contains("PNG or JPEG"), "{error}");
        assert!(matches!(EditPicture::open(folder.path().join("absent.png")), Err(Error::ReadFile { .. })));
        // Damage behind the header shows when the pixels are asked for.
        let whole = picture().file.to_vec();
        let damaged = EditPicture::from_bytes(&whole[..whole.len() - 20]).unwrap();
        assert!(matches!(damaged.pixels(), Err(Error::EditPicture(_))));
    }
}
