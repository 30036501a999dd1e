//! What every training of a plan shares: the plan, the data, the folder, and how often to save and look.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::WeightsFile;
use ediffi_train::lineage::Lineage;
use ediffi_train::plan::{NetworkPlan, StagePlan, Task, TrainingPlan};
use ediffi_train::run::{Begin, Progress, Run};
use ediffi_train::state::TrainState;
use indicatif::{ProgressBar, ProgressStyle};
use tch::Device;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;

use super::Result;
use super::batches::Data;

/// How often to save and look, and when to stop.
#[derive(Debug, Clone, clap::Args)]
pub struct Cadence {
    /// Minutes between checkpoints: what a kill may cost.
    #[arg(long, default_value_t = 3.0)]
    pub checkpoint_minutes: f64,
    /// Steps between contact sheets, besides the one at the end; 0 for none at all.
    #[arg(long, default_value_t = 1000)]
    pub sheet_steps: u64,
    /// Stop after this many minutes, wherever it is; the same command goes on from there.
    #[arg(long)]
    pub minutes: Option<f64>,
}

/// What every training of a plan shares.
pub struct Workshop {
    /// What is trained.
    pub plan: TrainingPlan,
    /// Where checkpoints, logs, sheets and trained networks go.
    pub folder: PathBuf,
    /// Where it is computed.
    pub runtime: Runtime,
    /// Draws scenes.
    pub sampler: Arc<Sampler>,
    /// Draws pictures.
    pub renderer: Arc<Renderer>,
    /// Fingerprint of the sprite pack that they are drawn from.
    pub pack: String,
    /// How often to save and look.
    pub cadence: Cadence,
    /// When the program began.
    pub began: Instant,
}

/// Whether a training has had all its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has.
    Trained,
    /// The time is up.
    Stopped,
}

impl Workshop {
    /// The folder of CLIP.
    pub fn clip(&self) -> PathBuf {
        self.folder.join("clip")
    }

    /// The folder of T5.
    pub fn t5(&self) -> PathBuf {
        self.folder.join("t5")
    }

    /// The averaged weights of something trained, in f32.
    pub fn weights(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    /// The weights that a network starts from.
    pub fn parent(&self, stage: &StagePlan, network: &NetworkPlan) -> Option<PathBuf> {
        network.parent.as_ref().map(|parent| self.weights(&format!("{}.{parent}", stage.name)))
    }

    /// The data in batches of `rows` pictures.
    pub fn data(&self, rows: u64) -> Arc<Data> {
        let (sampler, renderer) = (Arc::clone(&self.sampler), Arc::clone(&self.renderer));
        Arc::new(Data { sampler, renderer, seed: self.plan.seed, rows })
    }

    /// What a network is trained with and stands on: seed, batch and noise levels, sprites and the scenes that are drawn of them, both
    /// encoders with their tokenizers, and the network it starts from.
    pub fn lineage(&self, stage: &StagePlan, network: &NetworkPlan) -> Result<Lineage> {
        let parent = self.parent(stage, network);
        if let Some(absent) = parent.as_ref().filter(|parent| !parent.is_file()) {
            let (name, from) = (&network.name, network.parent.as_deref().unwrap_or_default());
            let absent = absent.display();
            return Err(format!("{name} starts from {from}, which is not trained yet: there is no {absent}").into());
        }
        let mut lineage = Lineage::default()
            .with("seed", self.plan.seed)
            .with("batch", self.plan.batch)
            .with("accumulate", self.plan.accumulate)
            .with("noise", format!("ln sigma ~ N({}, {}^2)", stage.noise.p_mean(), stage.noise.p_std()))
            .with("cell", &network.cell)
            .with("pack", &self.pack)
            .with_bytes("data", self.sampler.version()?.as_bytes())
            .with_file("clip", &self.clip().join("model.safetensors"))?
            .with_file("clip-tokenizer", &self.clip().join("tokenizer.json"))?
            .with_file("t5", &self.t5().join("model.safetensors"))?
            .with_file("t5-tokenizer", &self.t5().join("tokenizer.json"))?;
        if let Some(tail) = &stage.tail {
            lineage = lineage.with("tail", format!("{} from {} to {}", tail.share, tail.from, tail.to));
        }
        match parent {
            Some(parent) => Ok(lineage.with_file("parent", &parent)?),
            None => Ok(lineage),
        }
    }

    /// The run of a task. `name` is the task's.
    pub fn run<'a>(&'a self, name: &'a str, task: &Task<'_>, begin: Begin, lineage: Lineage) -> Run<'a> {
        let (batch, accumulate) = match task {
            Task::Encoder(encoder) => (encoder.batch.unwrap_or(self.plan.batch), 1),
            Task::Network(..) => (self.plan.batch, self.plan.accumulate),
        };
        let checkpoint_every = Duration::from_secs_f64(60.0 * self.cadence.checkpoint_minutes.clamp(0.0, 1e6));
        let (folder, steps) = (self.folder.as_path(), task.training().steps);
        Run { name, folder, begin, steps, batch, accumulate, checkpoint_every, lineage }
    }

    /// Takes away what an earlier training has left, so that one that is stopped on the way is not taken for trained.
    pub fn discard(&self, begin: Begin, export: &Path) -> Result<()> {
        if begin == Begin::Restart && export.is_file() {
            std::fs::remove_file(export).map_err(|error| format!("{}: {error}", export.display()))?;
        }
        Ok(())
    }

    /// Whether the weights of a task are there, with all its steps and of this lineage.
    pub fn is_trained(&self, path: &Path, steps: u64, lineage: &Lineage) -> Result<bool> {
        if !path.is_file() {
            return Ok(false);
        }
        lineage.check(path)?;
        let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
        Ok(file.text("steps").and_then(|done| done.parse::<u64>().ok()).is_some_and(|done| done >= steps))
    }

    /// Workers for a step of `accumulate` batches: one a core, but no more than there are batches. Small networks gain far more
    /// from batches side by side than from threads that share one operation, so the threads are shared out, too.
    pub fn workers(&self, accumulate: u64) -> u64 {
        if self.runtime.device != Device::Cpu {
            return 1;
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let workers = cores.min(accumulate);
        tch::set_num_threads((cores / workers).max(1) as i32);
        workers
    }

    /// Watches a run: a progress bar, contact sheets, the end of the time.
    pub fn watch<'a>(
        &'a self,
        run: &Run<'_>,
        mut sheet: impl FnMut(&TrainState, &Path) -> Result<()> + 'a,
    ) -> Result<impl FnMut(&TrainState, &Progress) -> Result<ControlFlow<()>> + 'a> {
        let name = run.name.to_owned();
        let bar = ProgressBar::new(run.steps);
        bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}")?);
        bar.set_prefix(name.clone());
        let mut fresh = true;
        Ok(move |state: &TrainState, progress: &Progress| {
            if std::mem::take(&mut fresh) {
                // Steps of earlier runs are no measure of the speed of this one.
                bar.set_position(progress.step - 1);
                bar.reset_eta();
            }
            bar.set_position(progress.step);
            if let Some(entry) = &progress.entry {
                bar.set_message(format!("loss {:.4} {:.1} pictures/s", entry.loss, entry.speed));
            }
            let every = self.cadence.sheet_steps;
            if every > 0 && progress.step.is_multiple_of(every) {
                sheet(state, &self.folder.join(format!("{name}-{:06}.png", progress.step)))?;
            }
            let over = self.cadence.minutes.is_some_and(|m| self.began.elapsed().as_secs_f64() > 60.0 * m);
            let last = progress.step == progress.steps;
            if last || over {
                if every > 0 {
                    sheet(state, &self.folder.join(format!("{name}-last.png")))?;
                }
                bar.finish();
                if !std::io::stderr().is_terminal() {
                    println!("{name}: {} steps, {} pictures", progress.step, progress.pictures);
                }
            }
            Ok(if over && !last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

/// Number of the first batch of something trained: far from the others', so that each sees its own scenes. It follows from the name, as
/// plans share networks by name.
pub fn first_batch(name: &str) -> u64 {
    let hash = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // 15 bits above 2^32 batches leave room for 65 536 pictures a batch.
    u64::from((hash >> 16) & 0x7FFF) << 32
}

/// Seed of the new weights of something trained.
pub fn seed_of(name: &str, seed: u64) -> u64 {
    first_batch(name) ^ seed
}

#[cfg(test)]
mod tests {
    use super::super::plans;
    use super::*;

    #[test]
    fn no_task_of_a_named_plan_repeats_another_s_batches() {
        let file = |name: &str| format!("{}/plans/experts-{name}.toml", env!("CARGO_MANIFEST_DIR"));
        // The compared plans share a folder, and with it what they train by name.
        let sharing = ["icons".to_owned(), file("a"), file("c"), file("d")];
        for names in [sharing.as_slice(), &["paper-d".to_owned()]] {
            let plans: Vec<_> = names.iter().map(|name| plans::find(name).unwrap()).collect();
            let mut tasks: Vec<String> = plans.iter().flat_map(|plan| plan.tasks()).map(|task| task.name()).collect();
            tasks.sort_unstable();
            tasks.dedup();
            let mut firsts: Vec<u64> = tasks.iter().map(|name| first_batch(name)).collect();
            assert!(
                firsts.iter().all(|first| first.checked_add(1 << 32).and_then(|n| n.checked_mul(65_536)).is_some())
            );
            firsts.sort_unstable();
            assert!(firsts.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}: {firsts:?}");
        }
    }
}
