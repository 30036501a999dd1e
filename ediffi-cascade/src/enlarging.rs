//! The enlarger at work after the last stage, batch by batch.

use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use crate::enlarger::Enlarger;
use crate::observer::{Batch, StageEvent, StageObserver, Watch, report};
use crate::plan::StagePlan;
use crate::{Error, Result};

/// The enlarger of a run.
pub(crate) struct Enlarging<'a> {
    enlarger: &'a mut Enlarger,
    /// What is told before the first batch.
    started: Option<StageEvent<'static>>,
    /// The last batch, which waits until the stage is done with everything, and with a relay out of memory.
    last: Option<(Batch, Tensor)>,
    elapsed: Duration,
    /// Whether the network is dropped in the end.
    release: bool,
}

impl<'a> Enlarging<'a> {
    /// `place`: its position among the stages that run, how many these are, and how many batches there are.
    pub(crate) fn new(
        enlarger: &'a mut Enlarger,
        last: &StagePlan,
        place: (usize, usize, usize),
        release: bool,
    ) -> Result<Self> {
        let (index, stages, batches) = place;
        let enlarged = |side: u32| u32::try_from(i64::from(side) * enlarger.scale()).unwrap_or(u32::MAX);
        let (width, height) = (enlarged(last.width), enlarged(last.height));
        let tiles = enlarger.tiles(last.height.into(), last.width.into())?;
        let started = Some(StageEvent::EnlargerStarted { index, stages, batches, tiles, width, height });
        Ok(Self { enlarger, started, last: None, elapsed: Duration::ZERO, release })
    }

    /// Takes over a batch from the stage.
    pub(crate) fn take(&mut self, batch: Batch, pictures: Tensor, observer: &mut dyn StageObserver) -> Result<()> {
        if batch.index + 1 < batch.batches {
            return self.enlarge(batch, &pictures, observer);
        }
        self.last = Some((batch, pictures));
        Ok(())
    }

    /// Takes its last turn, when the stage is done.
    pub(crate) fn finish(mut self, observer: &mut dyn StageObserver) -> Result<()> {
        if let Some((batch, pictures)) = self.last.take() {
            self.enlarge(batch, &pictures, observer)?;
        }
        let elapsed = self.elapsed;
        drop(self);
        report(observer, &StageEvent::EnlargerFinished { elapsed })
    }

    /// Hands out the pictures of a batch, enlarged.
    fn enlarge(&mut self, batch: Batch, pictures: &Tensor, observer: &mut dyn StageObserver) -> Result<()> {
        if let Some(started) = self.started.take() {
            report(observer, &started)?;
        }
        let began = Instant::now();
        let enlarged = self.enlarger.enlarge_batch(pictures, &Watch::new("enlarger", batch, observer))?;
        let enlarged = enlarged.f_to_device(Device::Cpu).map_err(ediffi_core::Error::from).map_err(Error::from)?;
        self.elapsed += began.elapsed();
        report(observer, &StageEvent::Pictures { batch, pictures: &enlarged })
    }
}

impl Drop for Enlarging<'_> {
    fn drop(&mut self) {
        if self.release {
            self.enlarger.release();
        }
    }
}
