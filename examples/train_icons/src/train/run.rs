//! The loop around a training step: progress, log, contact sheets, checkpoints, resume.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi_train::Error;
use ediffi_train::log::{Entry, LossLog};
use ediffi_train::state::TrainState;
use indicatif::{ProgressBar, ProgressStyle};
use tch::Tensor;

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
    /// Batches whose gradients are added up for one step, for more pictures a step than memory holds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub accumulate: u64,
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
    /// Pictures a batch.
    pub rows: u64,
}

impl Length {
    /// Steps that the whole training takes with batches of `rows` pictures.
    pub fn steps(&self, rows: u64) -> u64 {
        self.pictures.div_ceil(rows * self.accumulate)
    }
}

impl Run<'_> {
    /// The number of the first batch of the next step. The position in the data follows from the step alone.
    pub fn batch(&self, state: &TrainState) -> u64 {
        state.step() * self.length.accumulate
    }

    /// The checkpoint file.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}.checkpoint.safetensors", self.name))
    }

    /// Whether it goes on from a checkpoint: asked to, and there is one.
    pub fn resumes(&self) -> bool {
        self.length.resume && self.checkpoint().is_file()
    }

    /// Resumes `state` if asked to and there is something to resume.
    pub fn begin(&self, state: &mut TrainState) -> Result<()> {
        std::fs::create_dir_all(self.folder)?;
        if self.resumes() {
            state.resume(&self.checkpoint())?;
            println!("{}: resumed at step {}, {} pictures", self.name, state.step(), state.pictures());
        }
        Ok(())
    }

    /// Trains: `loss` gives the mean loss of a batch by its number, in order from [`batch`](Self::batch), `sheet` draws a contact sheet to a path.
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
            let (first, count) = (self.batch(state), self.length.accumulate);
            let mut values = Vec::with_capacity(count as usize);
            for number in first..first + count {
                let value = loss(number)?;
                value.f_backward()?;
                values.push(value.f_detach()?);
            }
            let rate = state.rate();
            let pictures = count * self.rows;
            window.gradient += state.update(pictures, values.len())?;
            // Read after the step: on a GPU, reading waits for what was computed.
            for value in values {
                window.loss += value.f_double_value(&[])? / count as f64;
            }
            window.steps += 1;
            bar.set_position(state.pictures());
            if state.step().is_multiple_of(20) {
                let entry = window.entry(state, rate, pictures);
                bar.set_message(format!("loss {:.4} {:.1} images/s", entry.loss, entry.speed));
                log.write(&entry)?;
                if !entry.loss.is_finite() {
                    Err(Error::Diverged { step: entry.step, what: "loss", value: entry.loss })?;
                }
                window = Window::new();
            }
            if self.length.sheet_steps > 0 && state.step().is_multiple_of(self.length.sheet_steps) {
                sheet(state, &self.folder.join(format!("{}-{:06}.png", self.name, state.step())))?;
            }
            if saved.elapsed().as_secs_f64() > 60.0 * self.length.checkpoint_minutes {
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

    fn entry(&self, state: &TrainState, rate: f64, pictures_a_step: u64) -> Entry {
        let steps = self.steps.max(1) as f64;
        Entry {
            step: state.step(),
            pictures: state.pictures(),
            loss: self.loss / steps,
            gradient: self.gradient / steps,
            rate,
            speed: steps * pictures_a_step as f64 / self.began.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ediffi_train::optimizer::AdamWSettings;
    use tch::{Device, Kind};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        length: Length,
    }

    fn length(arguments: &str) -> Length {
        Line::parse_from(std::iter::once("run").chain(arguments.split_whitespace())).length
    }

    fn begin() -> (Tensor, TrainState) {
        let weight = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
        let settings = AdamWSettings { learning_rate: 0.1, warm_up: 1, ..AdamWSettings::default() };
        let state = TrainState::new(vec![("w".to_owned(), weight.shallow_clone())], settings, 0.9).unwrap();
        (weight, state)
    }

    /// Trains with a loss of w times the batch's number plus one; returns the numbers, the weight and the log.
    fn train(folder: &Path, arguments: &str) -> (Vec<u64>, f64, String) {
        let (weight, mut state) = begin();
        let length = length(arguments);
        let run = Run { name: "net", folder, length: &length, rows: 2 };
        run.begin(&mut state).unwrap();
        let mut numbers = Vec::new();
        run.train(
            &mut state,
            |number| {
                numbers.push(number);
                Ok((&weight * (number as f64 + 1.0)).mean(Kind::Float))
            },
            |_, path| Ok(std::fs::write(path, "sheet")?),
        )
        .unwrap();
        (numbers, weight.double_value(&[0, 0]), std::fs::read_to_string(folder.join("net.csv")).unwrap())
    }

    #[test]
    fn batches_are_numbered_by_step_and_a_resumed_run_goes_on_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (numbers, whole, _) = train(folder.path(), "--pictures 24 --accumulate 3");
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
        let folder = tempfile::tempdir().unwrap();
        let (numbers, ..) = train(folder.path(), "--pictures 12 --accumulate 3");
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        let (numbers, resumed, _) = train(folder.path(), "--pictures 24 --accumulate 3 --resume");
        assert_eq!(numbers, [6, 7, 8, 9, 10, 11]);
        assert_eq!(resumed, whole);
        // A run that is done trains no further, and is exported again.
        let (numbers, again, _) = train(folder.path(), "--pictures 24 --accumulate 3 --resume");
        assert_eq!((numbers, again), (vec![], whole));
        assert!(folder.path().join("net-last.png").is_file());
        // Without --resume it starts over.
        assert_eq!(train(folder.path(), "--pictures 2").0, [0]);
    }

    /// 20 steps of 2 batches of 2 pictures; batch n has the loss w (n + 1) and the gradient n + 1.
    #[test]
    fn the_log_has_the_mean_over_the_batches_and_every_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (.., log) = train(folder.path(), "--pictures 80 --accumulate 2 --sheet-steps 20");
        let line: Vec<&str> = log.lines().nth(1).unwrap().split(',').collect();
        assert_eq!(line[..2], ["20", "80"]);
        // The mean of the pairs' means, 1.5 to 39.5; the weight moves down from 1 by about 0.1 a step.
        assert_eq!(line[3], "20.5000");
        assert!(folder.path().join("net-000020.png").is_file());
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_the_training() {
        let folder = tempfile::tempdir().unwrap();
        let (weight, mut state) = begin();
        let length = length("--pictures 100");
        let run = Run { name: "net", folder: folder.path(), length: &length, rows: 2 };
        let error = run.train(&mut state, |_| Ok((&weight * f64::NAN).sum(Kind::Float)), |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("diverged at step 0"), "{error}");
        assert!(!run.checkpoint().exists(), "nothing is saved over the last good checkpoint");
    }

    #[test]
    fn steps_count_whole_batches() {
        assert_eq!(length("--pictures 100 --accumulate 4").steps(8), 4);
        assert!(Line::try_parse_from(["run", "--accumulate", "0"]).is_err());
    }
}
