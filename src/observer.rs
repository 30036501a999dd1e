//! Events of a running generation, and how to stop it.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use ediffi_core::autoencoder::AutoencoderConfig;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::plan::Plan;
use ediffi_core::{exit, interrupt};
use image::RgbImage;
use tch::Tensor;

use crate::pixels::to_rgb;
use crate::{GeneratedImage, Result};

/// Something that happened while a request was running.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An encoder starts: it is loaded, unless it was kept, and reads the prompts or the style.
    EncoderStarted {
        /// `t5` or `clip`.
        encoder: &'a str,
    },
    /// A stage starts. Nothing has been loaded or computed for it yet.
    StageStarted {
        /// Name of the stage.
        stage: &'a str,
        /// Its position among the stages that run, from 0.
        index: usize,
        /// How many stages run, the enlarger included.
        stages: usize,
        /// Width in pixels of its pictures; 1 of a prior, which draws embeddings.
        width: u32,
        /// Height in pixels of its pictures; 1 of a prior.
        height: u32,
        /// Which expert runs which step.
        plan: &'a Plan,
        /// Number of batches. Each goes through all steps of the plan: one after the other with
        /// [`Residency::All`](crate::Residency::All), else all of them with the plan's first expert, then with the next.
        batches: usize,
    },
    /// An expert takes over a batch. It may be loaded now.
    ExpertSwitched {
        /// Name of the stage.
        stage: &'a str,
        /// Which batch, from 0. The next steps are its.
        batch: usize,
        /// Index of the expert.
        expert: usize,
        /// The noise levels that it owns.
        interval: SigmaInterval,
    },
    /// The solver has finished a step. The steps of a batch come in order; those of others may come between them.
    Step {
        /// Name of the stage.
        stage: &'a str,
        /// Which batch, from 0.
        batch: usize,
        /// How many batches there are.
        batches: usize,
        /// Which step of this batch, from 0.
        index: usize,
        /// How many steps a batch has.
        steps: usize,
        /// The noise level that the step started from.
        sigma: f64,
        /// The picture so far. It is computed when you ask for it.
        preview: Preview<'a>,
    },
    /// A stage has finished all images. With an enlarger, that of the last stage comes before the enlarger's last batch.
    StageFinished {
        /// Name of the stage.
        stage: &'a str,
        /// How long it took, loading included and the enlarger's turns left out.
        elapsed: Duration,
    },
    /// The enlarger starts, when the last stage has finished its first batch. It takes over each batch as soon as the stage is
    /// done with it. Nothing has been loaded or computed for it yet.
    EnlargerStarted {
        /// Its position among the stages that run, from 0.
        index: usize,
        /// How many stages run, the enlarger included.
        stages: usize,
        /// Width in pixels of its pictures.
        width: u32,
        /// Height in pixels of its pictures.
        height: u32,
        /// In how many batches the images are enlarged.
        batches: usize,
        /// Into how many tiles each batch is cut.
        tiles: usize,
    },
    /// A tile of a batch is enlarged.
    TileEnlarged {
        /// Which batch, from 0.
        batch: usize,
        /// How many batches there are.
        batches: usize,
        /// Which tile of this batch, from 0.
        index: usize,
        /// How many tiles a batch has.
        tiles: usize,
    },
    /// The enlarger has finished all images.
    EnlargerFinished {
        /// How long it took, loading included.
        elapsed: Duration,
    },
    /// An image is finished. You have it even if a later batch fails or the run is cancelled.
    Image {
        /// Its position in the request, from 0.
        index: usize,
        /// The image.
        image: &'a GeneratedImage,
    },
}

/// The estimate of one batch's clean images in the middle of sampling. It costs nothing until you look at it.
#[derive(Clone, Copy)]
pub struct Preview<'a> {
    /// The numbers of its images.
    images: &'a [usize],
    denoised: &'a Tensor,
    /// What the estimate's latents are of, if it is not of pixels.
    latents: Option<&'a AutoencoderConfig>,
}

impl<'a> Preview<'a> {
    pub(crate) fn new(images: &'a [usize], denoised: &'a Tensor, latents: Option<&'a AutoencoderConfig>) -> Self {
        Self { images, denoised, latents }
    }

    /// The images of this batch, as positions in the request; of several requests at once, as positions among all their images.
    #[must_use]
    pub fn images(&self) -> &'a [usize] {
        self.images
    }

    /// Image `image` of the request as pixels; `None` if it is not in this batch. Of a model that draws latents it is a rough picture of
    /// their size, an eighth of the image's: nothing is decoded for it.
    ///
    /// # Errors
    /// When the pixels cannot be brought from their device.
    pub fn rgb(&self, image: usize) -> Result<Option<RgbImage>> {
        let Some(row) = self.images.iter().position(|&one| one == image) else { return Ok(None) };
        // An observer looks at it while it is outside.
        let _inside = exit::enter();
        let row = self.denoised.f_get(row as i64)?;
        Ok(Some(match self.latents {
            Some(config) => to_rgb(&config.preview(&row)?)?,
            None => to_rgb(&row)?,
        }))
    }

    /// The estimate itself: [images, 3, height, width], f32, on the device of the pipeline, nominally in [-1, 1]. Of a
    /// model that draws latents it holds these, [images, channels, height, width] of latents.
    pub fn tensor(&self) -> &'a Tensor {
        self.denoised
    }
}

impl fmt::Debug for Preview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tensor's own form would copy its values from the device.
        f.debug_struct("Preview").field("images", &self.images()).finish_non_exhaustive()
    }
}

/// Watches a generation and may stop it.
///
/// A closure `|event: &Event<'_>| -> ControlFlow<()>` is one; `()` watches nothing. An observer runs between the steps,
/// on the thread that generates: the time it takes is added to the run.
pub trait Observer {
    /// Receives an event. `Break` ends the run with [`Error::Cancelled`](crate::Error::Cancelled).
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of a network, of which a step may have many, and before every tile of the enlarger;
    /// `true` ends the run with [`Error::Cancelled`](crate::Error::Cancelled). It should be cheap: the reading of a flag.
    ///
    /// Nobody is asked while weights are loaded, within the encoding of a text, or within a tile. A flag that is looked at there, too, is
    /// for [`interrupt::watch`](crate::interrupt::watch); the jobs of a [`Worker`](crate::Worker) have one.
    fn cancelled(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(&Event<'_>) -> ControlFlow<()>> Observer for F {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        self(event)
    }
}

impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// An observer as the pipeline asks it: it may wait for whatever it likes, and the end of the process does not wait for it.
pub(crate) struct Outside<'a>(pub(crate) &'a mut dyn Observer);

impl Observer for Outside<'_> {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        exit::outside(|| self.0.event(event))
    }

    fn cancelled(&mut self) -> bool {
        interrupt::check().is_err() || exit::outside(|| self.0.cancelled())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_preview_shows_the_images_of_its_batch() {
        let denoised = Tensor::cat(
            &[
                Tensor::full([1, 3, 2, 4], -1.0, (Kind::Float, Device::Cpu)),
                Tensor::full([1, 3, 2, 4], 1.0, (Kind::Float, Device::Cpu)),
            ],
            0,
        );
        let preview = Preview::new(&[4, 5], &denoised, None);
        assert_eq!(preview.images(), [4, 5]);
        let pixel =
            |image| preview.rgb(image).unwrap().map(|picture| (picture.dimensions(), picture.get_pixel(0, 0).0));
        assert_eq!(pixel(4), Some(((4, 2), [0; 3])));
        assert_eq!(pixel(5), Some(((4, 2), [255; 3])));
        assert_eq!((pixel(3), pixel(6)), (None, None));
    }
}
