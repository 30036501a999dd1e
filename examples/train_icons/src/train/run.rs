//! The loop around a training step: progress, log, contact sheets, checkpoints, resume.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ediffi_train::log::{Entry, LossLog};
use ediffi_train::state::TrainState;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Kind, Tensor};

use super::Result;

/// How long to train, and how often to save and look.
#[derive(Debug, Clone, clap::Args)]
pub struct Length {
    /// Train until this many pictures have been seen in all.
    #[arg(long, default_value_t = 100_000)]
    pub pictures: u64,
    /// Stop after this many minutes of this run, wherever it is.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Minutes between checkpoints.
    #[arg(long, default_value_t = 3.0)]
    pub checkpoint_minutes: f64,
    /// Steps between contact sheets; 0 for none.
    #[arg(long, default_value_t = 1000)]
    pub sheet_steps: u64,
    /// Go on from the last checkpoint, if there is one.
    #[arg(long)]
    pub resume: bool,
}

/// One network's training: its name decides its files in the run folder.
pub struct Run<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// Where checkpoints, log and sheets go.
    pub folder: &'a Path,
    /// How long.
    pub length: &'a Length,
    /// Pictures a step.
    pub rows: u64,
}

impl Run<'_> {
    /// The checkpoint file.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.safetensors", self.name))
    }

    /// Resumes `state` if asked to and there is something to resume.
    pub fn begin(&self, state: &mut TrainState) -> Result<()> {
        std::fs::create_dir_all(self.folder)?;
        if self.length.resume && self.checkpoint().is_file() {
            state.resume(&self.checkpoint())?;
            println!("{}: resumed at step {}, {} pictures", self.name, state.step(), state.pictures());
        }
        Ok(())
    }

    /// Trains: `loss` gives the mean loss of batch `step`, `sheet` draws a contact sheet to a path.
    pub fn train(
        &self,
        state: &mut TrainState,
        mut loss: impl FnMut(u64) -> Result<Tensor>,
        mut sheet: impl FnMut(&TrainState, &Path) -> Result<()>,
    ) -> Result<()> {
        let mut log = LossLog::resume(&self.folder.join(format!("{}.csv", self.name)), state.step())?;
        let bar = ProgressBar::new(self.length.pictures).with_position(state.pictures());
        bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}")?);
        bar.set_prefix(self.name.to_owned());
        bar.reset_eta();
        let began = Instant::now();
        let mut saved = Instant::now();
        let mut window = Window::new();
        while state.pictures() < self.length.pictures {
            let value = loss(state.step())?;
            value.f_backward()?;
            let rate = state.rate();
            window.gradient += state.update(self.rows, 1)?;
            window.loss += value.f_to_kind(Kind::Double)?.f_double_value(&[])?;
            window.steps += 1;
            bar.set_position(state.pictures());
            if state.step().is_multiple_of(20) {
                let entry = window.entry(state, rate, self.rows);
                bar.set_message(format!("loss {:.4} {:.1} images/s", entry.loss, entry.speed));
                log.write(&entry)?;
                if !entry.loss.is_finite() {
                    return Err(format!("{}: the loss is {} at step {}", self.name, entry.loss, entry.step).into());
                }
                window = Window::new();
            }
            if self.length.sheet_steps > 0 && state.step().is_multiple_of(self.length.sheet_steps) {
                sheet(state, &self.folder.join(format!("{}-{:06}.png", self.name, state.step())))?;
            }
            if saved.elapsed() > Duration::from_secs_f64(60.0 * self.length.checkpoint_minutes) {
                state.save(&self.checkpoint(), HashMap::new())?;
                saved = Instant::now();
            }
            if self.length.minutes.is_some_and(|m| began.elapsed().as_secs_f64() > 60.0 * m) {
                break;
            }
        }
        bar.finish();
        state.save(&self.checkpoint(), HashMap::new())?;
        sheet(state, &self.folder.join(format!("{}-last.png", self.name)))?;
        println!("{}: {} pictures, {} steps", self.name, state.pictures(), state.step());
        Ok(())
    }
}

struct Window {
    loss: f64,
    gradient: f64,
    steps: u64,
    began: Instant,
}

impl Window {
    fn new() -> Self {
        Self { loss: 0.0, gradient: 0.0, steps: 0, began: Instant::now() }
    }

    fn entry(&self, state: &TrainState, rate: f64, rows: u64) -> Entry {
        let steps = self.steps.max(1) as f64;
        Entry {
            step: state.step(),
            pictures: state.pictures(),
            loss: self.loss / steps,
            gradient: self.gradient / steps,
            rate,
            speed: steps * rows as f64 / self.began.elapsed().as_secs_f64(),
        }
    }
}
