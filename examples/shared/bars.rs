//! A generation as progress bars.

use std::ops::ControlFlow;

use ediffi::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};

/// One progress bar for each stage.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
}

impl Bars {
    fn start(&mut self, length: usize, message: String) {
        let style = ProgressStyle::with_template("{msg:<24} {wide_bar} {pos:>3}/{len} {elapsed:>4}");
        let bar = ProgressBar::new(length as u64).with_message(message);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        // Loading the first expert takes a while: the bar is there from the start.
        bar.tick();
        self.bar = Some(bar);
    }
}

impl Observer for Bars {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::StageStarted { stage, width, height, plan, batches, .. } => {
                self.start(plan.steps().len() * batches, format!("{stage} {width}x{height}"));
            }
            Event::EnlargerStarted { width, height, batches, tiles, .. } => {
                self.start(tiles * batches, format!("enlarger {width}x{height}"));
            }
            Event::Step { .. } | Event::TileEnlarged { .. } => self.bar.iter().for_each(|bar| bar.inc(1)),
            Event::StageFinished { .. } | Event::EnlargerFinished { .. } => {
                self.bar.take().iter().for_each(ProgressBar::finish);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
