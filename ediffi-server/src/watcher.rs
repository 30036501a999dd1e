//! Watches a job while it is drawn, and tells the store.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{Event, GeneratedImage, Observer, Preview, RgbImage};
use image::codecs::jpeg::JpegEncoder;

use crate::job::{JobId, JobImage, JobPreview, JobProgress};
use crate::metrics::Metrics;
use crate::store::{JobStore, Stop, TakenJob, Update};

/// The quality of previews, of 100.
const QUALITY: u8 = 80;

/// The longest side of a preview, in pixels. Larger ones are scaled down.
const LONGEST: u32 = 256;

/// Watches a job.
#[derive(Debug)]
pub(crate) struct Watcher {
    id: JobId,
    previews: usize,
    stop: Arc<Stop>,
    store: Arc<dyn JobStore>,
    metrics: Arc<Metrics>,
    progress: JobProgress,
    /// Why a finished picture could not be kept.
    unwritten: Arc<Mutex<Option<ediffi::Error>>>,
}

impl Watcher {
    pub(crate) fn new(taken: &TakenJob, store: Arc<dyn JobStore>, metrics: Arc<Metrics>) -> Self {
        let (id, previews, stop) = (taken.id, taken.job.previews, Arc::clone(&taken.stop));
        Self { id, previews, stop, store, metrics, progress: JobProgress::default(), unwritten: Arc::default() }
    }

    /// Where the reason stands if a picture could not be kept.
    pub(crate) fn unwritten(&self) -> Arc<Mutex<Option<ediffi::Error>>> {
        Arc::clone(&self.unwritten)
    }

    fn tell(&self, update: Update) {
        if let Err(error) = self.store.update(self.id, update) {
            tracing::error!(%error, "a picture cannot be kept");
            let path = self.id.to_string().into();
            let source = std::io::Error::other(error.to_string());
            if let Ok(mut unwritten) = self.unwritten.lock() {
                *unwritten = Some(ediffi::Error::WriteFile { path, source });
            }
        }
    }

    fn finished(&self, index: usize, image: &GeneratedImage) {
        let file = match image.to_png() {
            Ok(file) => file,
            Err(error) => {
                if let Ok(mut unwritten) = self.unwritten.lock() {
                    *unwritten = Some(error);
                }
                return;
            }
        };
        let ((width, height), seed, bytes) = (image.rgb().dimensions(), image.seed(), file.len());
        let url = format!("/api/v1/jobs/{}/images/{index}", self.id);
        self.metrics.image();
        self.tell(Update::Image(JobImage { index, seed, width, height, bytes, url }, file.into()));
    }

    fn preview(&self, preview: &Preview<'_>) {
        for &index in preview.images() {
            let picture = preview.rgb(index).ok().flatten().and_then(|picture| jpeg(&picture));
            let Some((width, height, file)) = picture else { continue };
            let JobProgress { stage, step, steps, .. } = self.progress.clone();
            let data_url = format!("data:image/jpeg;base64,{}", STANDARD.encode(file));
            self.tell(Update::Preview(JobPreview { index, stage, step, steps, width, height, data_url }));
        }
    }

    fn follow(&mut self, event: &Event<'_>) {
        match event {
            Event::StageStarted { stage, index, stages, plan, batches, .. } => {
                let steps = plan.steps().len() * batches;
                self.enter(stage, *index, *stages, steps);
            }
            Event::EnlargerStarted { index, stages, batches, tiles, .. } => {
                self.enter("enlarger", *index, *stages, tiles * batches);
            }
            Event::Step { preview, .. } => {
                self.step();
                if self.previews > 0 && self.progress.step.is_multiple_of(self.previews) {
                    self.preview(preview);
                }
            }
            Event::TileEnlarged { .. } => self.step(),
            Event::Image { index, image } => self.finished(*index, image),
            _ => {}
        }
    }

    fn enter(&mut self, stage: &str, stage_index: usize, stages: usize, steps: usize) {
        let fraction = stage_index as f64 / stages.max(1) as f64;
        self.progress = JobProgress { fraction, stage: stage.to_owned(), stage_index, stages, step: 0, steps };
        self.tell(Update::Progress(self.progress.clone()));
    }

    fn step(&mut self) {
        let progress = &mut self.progress;
        progress.step = (progress.step + 1).min(progress.steps);
        let share = progress.step as f64 / progress.steps.max(1) as f64;
        progress.fraction = (progress.stage_index as f64 + share) / progress.stages.max(1) as f64;
        self.tell(Update::Progress(self.progress.clone()));
    }
}

impl Observer for Watcher {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        self.follow(event);
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        self.stop.asked()
    }
}

/// A JPEG file of a picture, which is scaled down if it is large; none if it cannot be made.
fn jpeg(picture: &RgbImage) -> Option<(u32, u32, Vec<u8>)> {
    let longest = picture.width().max(picture.height());
    let scaled = (longest > LONGEST).then(|| {
        let side = |side: u32| (side * LONGEST / longest).max(1);
        image::imageops::thumbnail(picture, side(picture.width()), side(picture.height()))
    });
    let picture = scaled.as_ref().unwrap_or(picture);
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, QUALITY).encode_image(picture).ok()?;
    Some((picture.width(), picture.height(), file))
}
