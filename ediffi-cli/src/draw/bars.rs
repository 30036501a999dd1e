//! A generation as progress bars.

use std::ops::ControlFlow;

use ediffi::{Event, Observer};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

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

    /// One step more. Behind the last one a line stays in the place of the bar: what is printed later, such as a path, stands below it.
    fn step(&self, bar: ProgressBar) -> Option<ProgressBar> {
        bar.inc(1);
        if bar.length().is_none_or(|length| bar.position() < length) {
            return Some(bar);
        }
        let line = format!("{:<24} {:>3} steps in {:#}", bar.message(), bar.position(), HumanDuration(bar.elapsed()));
        bar.finish_and_clear();
        // Where nothing is shown, this is not either; a terminal that is gone has no need of it.
        let _ = self.all.println(line);
        None
    }
}

impl Observer for Bars {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::StageStarted { stage, width, height, plan, batches, .. } => {
                // A prior draws embeddings, one pixel each.
                let size = if (*width, *height) == (1, 1) { String::new() } else { format!(" {width}x{height}") };
                self.stage = self.start(plan.steps().len() * batches, format!("{stage}{size}"));
            }
            Event::EnlargerStarted { width, height, batches, tiles, .. } => {
                self.enlarger = self.start(tiles * batches, format!("enlarger {width}x{height}"));
            }
            Event::Step { .. } => self.stage = self.stage.take().and_then(|bar| self.step(bar)),
            Event::TileEnlarged { .. } => self.enlarger = self.enlarger.take().and_then(|bar| self.step(bar)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
