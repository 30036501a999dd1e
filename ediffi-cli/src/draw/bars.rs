//! A generation as progress bars.

use std::ops::ControlFlow;

use ediffi::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// One progress bar for each stage, where the terminal shows them. The enlarger takes turns with the stage before it, so there may be two
/// at a time.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    stage: Option<ProgressBar>,
    enlarger: Option<ProgressBar>,
}

impl Bars {
    /// Does something while the bars are not shown.
    pub(super) fn behind<T>(&self, work: impl FnOnce() -> T) -> T {
        self.all.suspend(work)
    }

    fn start(&self, length: usize, message: String) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template("{msg:<24} {wide_bar} {pos:>3}/{len} {elapsed:>4}");
        let bar = self.all.add(ProgressBar::new(length as u64).with_message(message));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        // Loading the first expert takes a while: the bar is there from the start.
        bar.tick();
        Some(bar)
    }
}

impl Observer for Bars {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::StageStarted { stage, width, height, plan, batches, .. } => {
                self.stage = self.start(plan.steps().len() * batches, format!("{stage} {width}x{height}"));
            }
            Event::EnlargerStarted { width, height, batches, tiles, .. } => {
                self.enlarger = self.start(tiles * batches, format!("enlarger {width}x{height}"));
            }
            Event::Step { .. } => self.stage.iter().for_each(|bar| bar.inc(1)),
            Event::TileEnlarged { .. } => self.enlarger.iter().for_each(|bar| bar.inc(1)),
            Event::StageFinished { .. } => self.stage.take().iter().for_each(ProgressBar::finish),
            Event::EnlargerFinished { .. } => self.enlarger.take().iter().for_each(ProgressBar::finish),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
