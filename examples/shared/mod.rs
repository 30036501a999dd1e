//! What the examples that draw have in common.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ediffi::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};

/// Tells an error with its causes.
pub(crate) fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// `out.png` of one image, `out-1.png`, `out-2.png`, ... of several.
pub(crate) fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    let ending = if ending.is_empty() { ending } else { format!(".{ending}") };
    path.with_file_name(format!("{stem}-{}{ending}", index + 1))
}

/// `1024x768`.
pub(crate) fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT".to_owned())
}

/// `base=30`.
pub(crate) fn of_stage<T: std::str::FromStr>(text: &str) -> Result<(String, T), String> {
    let setting = text.split_once('=').and_then(|(stage, value)| Some((stage.to_owned(), value.parse().ok()?)));
    setting.ok_or_else(|| "expected STAGE=NUMBER".to_owned())
}

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
            Event::Step { .. } => self.bar.iter().for_each(|bar| bar.inc(1)),
            Event::StageFinished { .. } => self.bar.take().iter().for_each(ProgressBar::finish),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
