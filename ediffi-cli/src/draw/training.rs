//! A training on the terminal: bars, and a line for each network where there is no terminal. Warnings stand above the bars.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use ediffi_trainer::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::tell::tell;

/// The bars of this process. Whatever thread warns, they are out of the way while it does.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Standard error, without the bars.
struct Beside;

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        stderr().flush()
    }
}

/// Says on standard error what is warned of: broken pictures, slow processes, captions that are missing. `RUST_LOG` asks for more, or less.
pub(super) fn warn_on_terminal() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = stderr().is_terminal();
    let told = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Beside).with_ansi(colours);
    // A training whose standard error is gone goes on. Whoever listens already does, too.
    drop(told.log_internal_errors(false).try_init());
}

/// A training on the terminal.
#[derive(Default)]
pub(super) struct Progress {
    /// The bar of what is trained, with its name.
    bar: Option<(String, ProgressBar)>,
    /// How often a picture was skipped in the training of each network.
    skipped: BTreeMap<String, u64>,
    /// The folder of the model, once it is whole.
    pub(super) model: Option<PathBuf>,
}

impl Progress {
    /// The bar of a name, which begins behind what earlier processes have done.
    fn bar(&mut self, name: &str, done: u64, all: u64) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| shown != name) {
            self.finish();
            let style = ProgressStyle::with_template("{prefix:<16} {wide_bar} {pos}/{len} {msg} eta {eta}");
            let bar = BARS.add(ProgressBar::new(all).with_prefix(name.to_owned()));
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
                let skipped = self.skipped.get(name).map_or(String::new(), |times| format!(", {times} skipped"));
                let bar = self.bar(name, step, steps);
                bar.set_position(step);
                if let Some(entry) = entry {
                    bar.set_message(format!("loss {:.4}, {:.1} pictures/s{skipped}", entry.loss, entry.speed));
                }
            }
            Event::Encoded { done, all } => self.bar("captions", done as u64, all as u64).set_position(done as u64),
            Event::Skipped { name, times } => {
                self.skipped.insert(name.to_owned(), times);
            }
            Event::Trained { name } => {
                self.finish();
                if !stderr().is_terminal() {
                    tell(&format!("{name}: trained"));
                }
                if let Some(times) = self.skipped.get(name) {
                    tell(&format!("{name}: skipped pictures that cannot be read: {times}"));
                }
            }
            Event::Model { folder } => self.model = Some(folder.to_owned()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
