//! A training on the terminal: bars, and a line for each network where there is no terminal.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;

use ediffi_trainer::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};

/// A training on the terminal.
#[derive(Default)]
pub(super) struct Progress {
    /// The bar of what is trained, with its name.
    bar: Option<(String, ProgressBar)>,
    /// The folder of the model, once it is whole.
    pub(super) model: Option<PathBuf>,
}

impl Progress {
    /// The bar of a name, which begins behind what earlier processes have done.
    fn bar(&mut self, name: &str, done: u64, all: u64) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| shown != name) {
            self.finish();
            let style = ProgressStyle::with_template("{prefix:<16} {wide_bar} {pos}/{len} {msg} eta {eta}");
            let bar = ProgressBar::new(all).with_prefix(name.to_owned());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            // Steps of earlier processes are no measure of the speed of this one.
            bar.set_position(done.saturating_sub(1));
            bar.reset_eta();
            self.bar = Some((name.to_owned(), bar));
        }
        let (_, bar) = self.bar.get_or_insert_with(|| (name.to_owned(), ProgressBar::hidden()));
        bar
    }

    fn finish(&mut self) {
        self.bar.take().iter().for_each(|(_, bar)| bar.finish());
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match *event {
            Event::Step { name, step, steps, entry } => {
                let bar = self.bar(name, step, steps);
                bar.set_position(step);
                if let Some(entry) = entry {
                    bar.set_message(format!("loss {:.4}, {:.1} pictures/s", entry.loss, entry.speed));
                }
            }
            Event::Encoded { done, all } => self.bar("captions", done as u64, all as u64).set_position(done as u64),
            Event::Trained { name } => {
                self.finish();
                if !std::io::stderr().is_terminal() {
                    eprintln!("{name}: trained");
                }
            }
            Event::Model { folder } => self.model = Some(folder.to_owned()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
