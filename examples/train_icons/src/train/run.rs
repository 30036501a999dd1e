//! The loop around a training step: progress, log, contact sheets, checkpoints, resume.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi_train::Error;
use ediffi_train::log::{Entry, LossLog};
use ediffi_train::state::{Replica, TrainState};
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Tensor};

use super::Result;
use super::batches::Data;
use super::lineage::Lineage;

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
    /// Batches whose gradients are added up for one step: workers share them, each on a core of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub accumulate: u64,
    /// Go on from the last checkpoint, if there is one.
    #[arg(long, conflicts_with = "restart")]
    pub resume: bool,
    /// Start over, and replace the checkpoint that is there.
    #[arg(long)]
    pub restart: bool,
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
    /// What the network stands on; a checkpoint of another lineage is refused.
    pub lineage: Lineage,
}

/// One of the threads that share the batches of a step.
pub struct Worker<'a, B> {
    /// Its view of the parameters.
    pub replica: Replica,
    /// The mean loss of a batch by its number.
    pub loss: Box<dyn FnMut(u64, B) -> Result<Tensor> + Send + 'a>,
}

impl<B: Send> Worker<'_, B> {
    /// The losses of some batches, whose gradients are left in the replica.
    fn run(&mut self, batches: Vec<(u64, B)>) -> Result<Vec<Tensor>> {
        batches
            .into_iter()
            .map(|(number, batch)| {
                let value = (self.loss)(number, batch)?;
                value.f_backward()?;
                Ok(value.f_detach()?)
            })
            .collect()
    }
}

/// Deals the batches of a step out to the workers and runs them side by side.
fn spread<B: Send>(workers: &mut [Worker<'_, B>], batches: Vec<(u64, B)>) -> Result<Vec<Tensor>> {
    if let [worker] = workers {
        return worker.run(batches);
    }
    let count = workers.len();
    let mut shares: Vec<Vec<(u64, B)>> = (0..count).map(|_| Vec::new()).collect();
    for (index, batch) in batches.into_iter().enumerate() {
        shares[index % count].push(batch);
    }
    std::thread::scope(|scope| {
        let pairs = workers.iter_mut().zip(shares);
        let threads: Vec<_> = pairs.map(|(worker, share)| scope.spawn(move || worker.run(share))).collect();
        let mut values = Vec::new();
        for thread in threads {
            values.extend(thread.join().map_err(|_| "a worker panicked")??);
        }
        Ok(values)
    })
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

impl Length {
    /// How many workers there are: one a core, but no more than a step has batches.
    pub fn workers(&self, device: Device) -> u64 {
        if device == Device::Cpu { cores().min(self.accumulate) } else { 1 }
    }

    /// The settings that decide which batches a run sees.
    pub fn lineage(&self, data: &Data) -> Lineage {
        Lineage::default().with("seed", data.seed).with("batch", data.rows).with("accumulate", self.accumulate)
    }

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

    /// Refuses to replace a checkpoint that nobody asked to be replaced.
    pub fn guard(&self) -> Result<()> {
        let checkpoint = self.checkpoint();
        if checkpoint.is_file() && !self.length.resume && !self.length.restart {
            let path = checkpoint.display();
            return Err(format!("{path} exists: --resume goes on from it, --restart replaces it").into());
        }
        Ok(())
    }

    /// Resumes `state` if asked to and there is something to resume.
    pub fn begin(&self, state: &mut TrainState) -> Result<()> {
        self.guard()?;
        std::fs::create_dir_all(self.folder)?;
        if self.length.restart && self.checkpoint().is_file() {
            // Not only replaced once there is another: a run that is killed before must not go on from it.
            std::fs::remove_file(self.checkpoint())?;
        }
        if self.resumes() {
            self.lineage.check(&self.checkpoint())?;
            state.resume(&self.checkpoint())?;
            println!("{}: resumed at step {}, {} pictures", self.name, state.step(), state.pictures());
        }
        Ok(())
    }

    /// Trains: `next` gives the batches in order from [`batch`](Self::batch), `workers` their losses, `sheet` draws a
    /// contact sheet to a path.
    pub fn train<B: Send>(
        &self,
        state: &mut TrainState,
        mut next: impl FnMut() -> Result<B>,
        workers: &mut [Worker<'_, B>],
        mut sheet: impl FnMut(&TrainState, &Path) -> Result<()>,
    ) -> Result<()> {
        // Workers do not help each other: small networks gain far more from batches side by side than from threads that
        // share one operation.
        tch::set_num_threads((cores() / workers.len() as u64).max(1) as i32);
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
            let batches = (first..first + count).map(|number| Ok((number, next()?))).collect::<Result<_>>()?;
            let values = spread(workers, batches)?;
            let rate = state.rate();
            let pictures = count * self.rows;
            let replicas: Vec<_> = workers.iter().map(|worker| &worker.replica).collect();
            window.gradient += state.update_from(&replicas, pictures, values.len())?;
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
                state.save(&self.checkpoint(), self.lineage.notes())?;
                saved = Instant::now();
            }
            if self.length.minutes.is_some_and(|m| began.elapsed().as_secs_f64() > 60.0 * m) {
                break;
            }
        }
        bar.finish();
        state.save(&self.checkpoint(), self.lineage.notes())?;
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

    /// A worker with a loss of w times the batch's number plus one.
    fn worker(state: &TrainState) -> Worker<'static, u64> {
        let replica = state.replica().unwrap();
        let weight = replica.source().0[0].1.shallow_clone();
        let loss = move |number, batch: u64| {
            assert_eq!(number, batch);
            Ok((&weight * (number as f64 + 1.0)).mean(Kind::Float))
        };
        Worker { replica, loss: Box::new(loss) }
    }

    /// Trains with one worker; returns the numbers of the batches, the weight and the log.
    fn train(folder: &Path, arguments: &str) -> (Vec<u64>, f64, String) {
        train_with(1, folder, arguments)
    }

    fn train_with(count: usize, folder: &Path, arguments: &str) -> (Vec<u64>, f64, String) {
        let (weight, mut state) = begin();
        let length = length(arguments);
        let lineage = Lineage::default().with("batch", 2);
        let run = Run { name: "net", folder, length: &length, rows: 2, lineage };
        run.begin(&mut state).unwrap();
        let mut numbers = Vec::new();
        let mut next = run.batch(&state)..;
        let mut workers: Vec<_> = (0..count).map(|_| worker(&state)).collect();
        let made = || {
            let number = next.next().unwrap();
            numbers.push(number);
            Ok(number)
        };
        run.train(&mut state, made, &mut workers, |_, path| Ok(std::fs::write(path, "sheet")?)).unwrap();
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
        // With --restart it starts over; with neither it is not even begun.
        assert_eq!(train(folder.path(), "--pictures 2 --restart").0, [0]);
        let length = length("--pictures 2");
        let run = Run { name: "net", folder: folder.path(), length: &length, rows: 2, lineage: Lineage::default() };
        let error = run.begin(&mut begin().1).unwrap_err().to_string();
        assert!(error.contains("net.checkpoint.safetensors exists: --resume"), "{error}");
    }

    #[test]
    fn a_checkpoint_of_another_lineage_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), "--pictures 2");
        let length = length("--pictures 4 --resume");
        let lineage = Lineage::default().with("batch", 4);
        let run = Run { name: "net", folder: folder.path(), length: &length, rows: 4, lineage };
        let error = run.begin(&mut begin().1).unwrap_err().to_string();
        assert!(error.contains("trained with batch 2, not 4"), "{error}");
    }

    /// The gradients of a step are added up whoever computed them: 7 batches a step on 1 to 8 workers.
    #[test]
    fn the_number_of_workers_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let (numbers, weight, _) = train_with(1, folder.path(), "--pictures 56 --accumulate 7");
        assert_eq!(numbers.len(), 28);
        for count in [2, 3, 8] {
            let folder = tempfile::tempdir().unwrap();
            let (others, other, _) = train_with(count, folder.path(), "--pictures 56 --accumulate 7");
            assert_eq!(others, numbers);
            assert!((other - weight).abs() < 1e-6, "{count} workers: {other} instead of {weight}");
        }
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
        let (_, mut state) = begin();
        let length = length("--pictures 100");
        let lineage = Lineage::default();
        let run = Run { name: "net", folder: folder.path(), length: &length, rows: 2, lineage };
        let replica = state.replica().unwrap();
        let weight = replica.source().0[0].1.shallow_clone();
        let loss = Box::new(move |_, ()| Ok((&weight * f64::NAN).sum(Kind::Float)));
        let error = run.train(&mut state, || Ok(()), &mut [Worker { replica, loss }], |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("diverged at step 0"), "{error}");
        assert!(!run.checkpoint().exists(), "nothing is saved over the last good checkpoint");
    }

    #[test]
    fn steps_count_whole_batches() {
        assert_eq!(length("--pictures 100 --accumulate 4").steps(8), 4);
        assert!(Line::try_parse_from(["run", "--accumulate", "0"]).is_err());
    }
}
