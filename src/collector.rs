//! The events of the cascade as a pipeline tells them, and what becomes of the finished pictures.

use std::ops::ControlFlow;
use std::sync::Arc;

use ediffi_cascade::{Batch, StageEvent, StageObserver, StagePlan};
use ediffi_core::autoencoder::AutoencoderConfig;
use tch::Tensor;

use crate::generation::Origin;
use crate::{Error, Event, GeneratedImage, Observer, Preview, Request, Result, StageReport};

/// A request whose images are being drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) request: &'a Request,
    /// The number of its first image among all that were asked for.
    pub(crate) first: usize,
}

/// Watches the stages of a generation for its observer, and keeps what comes out.
pub(crate) struct Collector<'a> {
    observer: &'a mut dyn Observer,
    wanted: &'a [Wanted<'a>],
    origin: Arc<Origin>,
    keep_floats: bool,
    /// The autoencoder of the stage that runs, if it draws latents.
    latents: Option<AutoencoderConfig>,
    /// How many stages run before those of the cascade.
    before: usize,
    /// Whether the stage that runs draws embeddings.
    embeds: bool,
    /// The finished images.
    pub(crate) images: Vec<GeneratedImage>,
    /// The finished stages.
    pub(crate) stages: Vec<StageReport>,
    /// Why a finished picture became no image.
    pub(crate) failure: Option<Error>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(
        observer: &'a mut dyn Observer,
        wanted: &'a [Wanted<'a>],
        origin: Origin,
        keep_floats: bool,
        before: usize,
    ) -> Self {
        let origin = Arc::new(origin);
        let (latents, embeds, images, stages, failure) = (None, false, Vec::new(), Vec::new(), None);
        Self { observer, wanted, origin, keep_floats, latents, before, embeds, images, stages, failure }
    }

    /// The request that has image `index` of those that are drawn together, its number there, and that among all that were asked for.
    fn owner(&self, mut index: usize) -> Option<((&'a Request, usize), usize)> {
        for Wanted { request, first } in self.wanted {
            if index < request.images {
                return Some(((request, index), first + index));
            }
            index -= request.images;
        }
        None
    }

    /// Makes images of the pictures of a batch, and shows all of them, whatever the observer answers to the first.
    fn finish(&mut self, batch: Batch, pictures: &Tensor) -> Result<ControlFlow<()>> {
        let mut answer = ControlFlow::Continue(());
        for row in 0..pictures.size4()?.0 {
            let nobody_s = ediffi_core::Error::Internal("an image was drawn that nobody asked for");
            let ((request, image), index) = self.owner(batch.first + row as usize).ok_or(nobody_s)?;
            let request = request.only(image);
            let image =
                GeneratedImage::new(&pictures.f_get(row)?, request, Arc::clone(&self.origin), self.keep_floats)?;
            if self.observer.event(&Event::Image { index, image: &image }).is_break() {
                answer = ControlFlow::Break(());
            }
            self.images.push(image);
        }
        Ok(answer)
    }
}

impl StageObserver for Collector<'_> {
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()> {
        match *event {
            StageEvent::StageStarted { plan, index, stages, batches } => {
                let StagePlan { stage, width, height, plan, decoding, embedding, .. } = plan;
                self.latents = decoding.as_ref().map(|decoding| decoding.autoencoder.clone());
                self.embeds = embedding.is_some();
                // A prior counts all.
                let before = if self.embeds { 0 } else { self.before };
                let (index, stages, width, height) = (index + before, stages + before, *width, *height);
                self.observer.event(&Event::StageStarted { stage, index, stages, width, height, plan, batches })
            }
            StageEvent::ExpertSwitched { stage, batch: Batch { index: batch, .. }, expert, interval } => {
                self.observer.event(&Event::ExpertSwitched { stage, batch, expert, interval })
            }
            StageEvent::Step { stage, batch, index, steps, sigma, denoised } => {
                let rows = denoised.size().first().and_then(|&rows| usize::try_from(rows).ok()).unwrap_or(0);
                // Of an embedding there is nothing to see.
                let shown = if self.embeds { 0 } else { rows };
                let images: Vec<usize> =
                    (batch.first..batch.first + shown).filter_map(|row| Some(self.owner(row)?.1)).collect();
                let preview = Preview::new(&images, denoised, self.latents.as_ref());
                let Batch { index: batch, batches, .. } = batch;
                self.observer.event(&Event::Step { stage, batch, batches, index, steps, sigma, preview })
            }
            StageEvent::StageFinished { plan, elapsed } => {
                self.stages.push(StageReport { plan: plan.clone(), elapsed });
                self.observer.event(&Event::StageFinished { stage: &plan.stage, elapsed })
            }
            StageEvent::EnlargerStarted { index, stages, batches, tiles, width, height } => {
                let (index, stages) = (index + self.before, stages + self.before);
                self.observer.event(&Event::EnlargerStarted { index, stages, width, height, batches, tiles })
            }
            StageEvent::TileEnlarged { batch: Batch { index: batch, batches, .. }, index, tiles } => {
                self.observer.event(&Event::TileEnlarged { batch, batches, index, tiles })
            }
            StageEvent::EnlargerFinished { elapsed } => self.observer.event(&Event::EnlargerFinished { elapsed }),
            StageEvent::Pictures { batch, pictures } => match self.finish(batch, pictures) {
                Ok(answer) => answer,
                Err(error) => {
                    self.failure = Some(error);
                    ControlFlow::Break(())
                }
            },
            _ => ControlFlow::Continue(()),
        }
    }

    fn cancelled(&mut self) -> bool {
        self.observer.cancelled()
    }
}
