//! A generation: the finished images, and how they were made.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ediffi_cascade::StagePlan;
use ediffi_core::files;
use image::RgbImage;
use tch::Tensor;

use crate::metadata::{self, Metadata};
use crate::pixels::to_rgb;
use crate::{Error, Provenance, Request, Result};

/// The images of one request, and how they were made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Generation {
    /// The images, in the order of their seeds.
    pub images: Vec<GeneratedImage>,
    /// A report of each stage, in the order they ran.
    pub stages: Vec<StageReport>,
    /// How long encoding took, loading included. It is zero where no encoder ran.
    pub encoding: Duration,
}

/// A report of one stage.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StageReport {
    /// What the stage did.
    pub plan: StagePlan,
    /// How long it took for all images, loading included.
    pub elapsed: Duration,
}

/// One image: 8-bit pixels, and the request that makes it.
#[derive(Clone)]
pub struct GeneratedImage {
    pixels: RgbImage,
    floats: Option<Vec<f32>>,
    request: Request,
    origin: Arc<Origin>,
}

/// What the images of a request have in common.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Which expert ran which step, one line for each stage and expert.
    pub(crate) plan: String,
    pub(crate) made: Provenance,
}

impl GeneratedImage {
    /// `picture`: [3, h, w] f32; `request` asks for this image alone.
    pub(crate) fn new(picture: &Tensor, request: Request, origin: Arc<Origin>, keep_floats: bool) -> Result<Self> {
        let pixels = to_rgb(picture)?;
        let floats = keep_floats.then(|| Vec::try_from(picture.f_flatten(0, -1)?)).transpose()?;
        Ok(Self { pixels, floats, request, origin })
    }

    /// The pixels, 8 bits a channel.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.pixels
    }

    /// The pixels as the last stage made them: [3, height, width], f32, on the CPU, in [-1, 1].
    ///
    /// # Errors
    /// [`Error::NoFloats`] unless the pipeline was told to keep them
    /// ([`PipelineBuilder::keep_floats`](crate::PipelineBuilder::keep_floats)); an error of libtorch.
    pub fn tensor(&self) -> Result<Tensor> {
        let floats = self.floats.as_deref().ok_or(Error::NoFloats)?;
        let (width, height) = self.pixels.dimensions();
        Ok(Tensor::f_from_slice(floats)?.f_reshape([3, i64::from(height), i64::from(width)])?)
    }

    /// The seed that makes this image.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.request.seed
    }

    /// The request that makes this image alone.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Which expert ran which step, one line for each stage and expert.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.origin.plan
    }

    /// The model that made the image, and how it computed.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.origin.made
    }

    /// The bytes of a PNG file. Its text chunks hold the request, the seed, the plan, the [`Provenance`] and the version of this
    /// library; [`Request::from_png_bytes`] reads the request again.
    ///
    /// # Errors
    /// [`Error::PngRequestTooLong`] and [`Error::PngEncode`].
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let json = |source| Error::PngRequest(source);
        let request = serde_json::to_string(&self.request).map_err(json)?;
        let made = Some(serde_json::to_string(&self.origin.made).map_err(json)?);
        Metadata { request, seed: self.request.seed, plan: self.origin.plan.clone(), made }.write(&self.pixels)
    }

    /// The bytes of a PNG file that holds the pixels and nothing about how they were made.
    ///
    /// # Errors
    /// [`Error::PngEncode`].
    pub fn to_png_plain(&self) -> Result<Vec<u8>> {
        metadata::plain(&self.pixels)
    }

    /// Writes [`GeneratedImage::to_png`] to a file, whatever its name ends in. The file appears only when it is complete.
    ///
    /// # Errors
    /// Those of [`to_png`](Self::to_png), and [`Error::WriteFile`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(files::write_atomic(path.as_ref(), &self.to_png()?)?)
    }
}

impl fmt::Debug for GeneratedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.pixels.dimensions();
        f.debug_struct("GeneratedImage")
            .field("width", &width)
            .field("height", &height)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(plan: &str) -> Arc<Origin> {
        let made = r#"{ "precision": "f32", "encoders": "e", "stages": {} }"#;
        Arc::new(Origin { plan: plan.to_owned(), made: serde_json::from_str(made).unwrap() })
    }

    #[test]
    fn an_image_keeps_its_request() {
        let image = Tensor::zeros([3, 4, 6], (tch::Kind::Float, tch::Device::Cpu));
        let request = Request::new("a cat").seed(5);
        let image = GeneratedImage::new(&image, request.clone(), origin("plan"), false).unwrap();
        assert_eq!((image.rgb().dimensions(), image.seed(), image.plan()), ((6, 4), 5, "plan"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image.save(&path).unwrap();
        assert_eq!(Request::from_png(&path).unwrap(), request);
        assert_eq!(image.request(), &request);
        assert_eq!(Provenance::from_png(&path).unwrap(), *image.provenance());
        let plain = image.to_png_plain().unwrap();
        assert!(matches!(Request::from_png_bytes(&plain), Err(Error::PngWithoutRequest)));
    }

    #[test]
    fn floats_are_kept_where_they_are_wanted() {
        let values: Vec<f32> = (0..18_u8).map(|i| f32::from(i) / 17.0 - 0.5).collect();
        let picture = Tensor::from_slice(&values).view([3, 2, 3]);
        let image = |keep| GeneratedImage::new(&picture, Request::new("a cat"), origin(""), keep).unwrap();
        assert!(image(true).tensor().unwrap().equal(&picture));
        assert!(matches!(image(false).tensor(), Err(Error::NoFloats)));
        assert_eq!(image(true).rgb(), image(false).rgb());
    }

    #[test]
    fn images_are_for_all_threads() {
        fn shared<T: Clone + Send + Sync>() {}
        shared::<GeneratedImage>();
    }
}
