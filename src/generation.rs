//! What comes out.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ediffi_core::files;
use ediffi_core::plan::Plan;
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::metadata::Metadata;
use crate::{Request, Result};

/// The images of one request, and how they were made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Generation {
    /// The images, in the order of their seeds.
    pub images: Vec<GeneratedImage>,
    /// What ran, in order.
    pub stages: Vec<StageReport>,
    /// How long the encoders took, loading included; zero where embeddings were given or still at hand.
    pub encoding: Duration,
}

/// What one stage is going to do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StagePlan {
    /// The stage.
    pub stage: String,
    /// Width in pixels of its pictures.
    pub width: u32,
    /// Height in pixels of its pictures.
    pub height: u32,
    /// Which expert runs which step.
    pub plan: Plan,
}

/// What one stage did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StageReport {
    /// What was planned, and done.
    pub plan: StagePlan,
    /// How long it took for all images, loading included.
    pub elapsed: Duration,
}

/// One line per expert.
impl fmt::Display for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, segment) in self.plan.to_string().lines().enumerate() {
            let separator = if line > 0 { "\n" } else { "" };
            write!(f, "{separator}stage {} ({}x{}), {segment}", self.stage, self.width, self.height)?;
        }
        Ok(())
    }
}

/// One image.
pub struct GeneratedImage {
    pixels: RgbImage,
    tensor: Tensor,
    metadata: Metadata,
    request: Request,
}

impl GeneratedImage {
    /// `tensor`: [3, h, w] f32 on the CPU; `request` asks for this image alone.
    pub(crate) fn new(tensor: Tensor, request: Request, plan: String) -> Result<Self> {
        let pixels = to_rgb(&tensor)?;
        let json = serde_json::to_string(&request).map_err(|source| crate::Error::PngRequest { source })?;
        let metadata = Metadata { request: json, seed: request.seed, plan };
        Ok(Self { pixels, tensor, metadata, request })
    }

    /// The pixels, 8 bits a channel.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.pixels
    }

    /// The pixels as the last stage made them: [3, height, width], f32, on the CPU, nominally in [-1, 1].
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The seed that makes this image.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.request.seed
    }

    /// The request that makes this image alone.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Which expert ran which step, one line for each stage and expert.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.metadata.plan
    }

    /// The bytes of a PNG file. Its text chunks hold the request, the seed, the plan and the version of this library;
    /// [`Request::from_png_bytes`] reads the request again.
    ///
    /// # Errors
    /// [`Error::PngEncode`](crate::Error::PngEncode).
    pub fn to_png(&self) -> Result<Vec<u8>> {
        self.metadata.write(&self.pixels)
    }

    /// Writes [`GeneratedImage::to_png`] to a file, whatever its name ends in. Nobody sees half of it: it is written
    /// under a temporary name and renamed.
    ///
    /// # Errors
    /// [`Error::PngEncode`](crate::Error::PngEncode) and [`Error::WriteFile`](crate::Error::WriteFile).
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

/// The nearest 8-bit pixels; values beyond [-1, 1] are cut.
///
/// # Shapes
/// `image`: [3, h, w] → h rows of w pixels
pub(crate) fn to_rgb(image: &Tensor) -> Result<RgbImage> {
    let (_, height, width) = image.size3()?;
    let levels =
        image.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?.f_mul_scalar(127.5)?.f_round()?.f_clamp(0.0, 255.0)?;
    let rows = levels.f_to_kind(Kind::Uint8)?.f_permute([1, 2, 0])?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0_u8; rows.numel()];
    let count = bytes.len();
    rows.f_copy_data(&mut bytes, count)?;
    let sides = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
    RgbImage::from_raw(sides.0, sides.1, bytes).ok_or_else(|| {
        let (expected, got) = (vec![3, height, width], image.size());
        ediffi_core::Error::DenoisedShape { sigma: 0.0, expected, got }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_rounded_and_cut() {
        // Two pixels side by side: [-1, 0, 1] and [-2, 0.5, 9].
        let image = Tensor::from_slice(&[-1.0_f32, -2.0, 0.0, 0.5, 1.0, 9.0]).view([3, 1, 2]);
        let pixels = to_rgb(&image).unwrap();
        // 0 -> 127.5, which is rounded to the even neighbour.
        assert_eq!(pixels.dimensions(), (2, 1));
        assert_eq!((pixels.get_pixel(0, 0).0, pixels.get_pixel(1, 0).0), ([0, 128, 255], [0, 191, 255]));
    }

    #[test]
    fn an_image_keeps_its_request() {
        let image = Tensor::zeros([3, 4, 6], (Kind::Float, tch::Device::Cpu));
        let request = Request::new("a cat").seed(5);
        let image = GeneratedImage::new(image, request.clone(), "plan".to_owned()).unwrap();
        assert_eq!((image.rgb().dimensions(), image.seed(), image.plan()), ((6, 4), 5, "plan"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image.save(&path).unwrap();
        assert_eq!(Request::from_png(&path).unwrap(), request);
        assert_eq!(image.request(), &request);
    }
}
