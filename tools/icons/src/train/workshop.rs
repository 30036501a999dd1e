//! What every training of a plan shares: the plan, the data, the folder, and how often to save and look.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ediffi_core::runtime::Runtime;
use ediffi_train::data_parallel::workers;
use ediffi_train::fit::Setup;
use ediffi_train::lineage::Lineage;
use ediffi_train::lock::Lock;
use ediffi_train::log::Entry;
use ediffi_train::plan::{Batches, NetworkTraining, StageTraining, Task, TrainingPlan};
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use tch::Kind;
use train_icons::progress::Progress;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;

use super::batches::Data;
use super::{Result, vocabulary};

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
    pub plan: TrainingPlan,
    /// Where checkpoints, logs, sheets and trained networks go.
    pub folder: PathBuf,
    pub runtime: Runtime,
    pub sampler: Arc<Sampler>,
    pub renderer: Arc<Renderer>,
    /// Fingerprint of the sprite pack that they are drawn from.
    pub pack: String,
    /// Whether tokenizers are trained instead of being the shipped model's.
    pub new_tokenizers: bool,
    pub cadence: Cadence,
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
    pub fn parent(&self, stage: &StageTraining, network: &NetworkTraining) -> Option<PathBuf> {
        network.parent.as_ref().map(|parent| self.weights(&format!("{}.{parent}", stage.name)))
    }

    /// The smaller pictures that a network sees redrawn.
    pub fn redrawn(&self, stage: &StageTraining, network: &NetworkTraining) -> PathBuf {
        self.folder.join(format!("{}.{}.redrawn.safetensors", stage.name, network.name))
    }

    /// The data in batches of `rows` pictures.
    pub fn data(&self, rows: u64) -> Arc<Data> {
        let (sampler, renderer) = (Arc::clone(&self.sampler), Arc::clone(&self.renderer));
        Arc::new(Data { sampler, renderer, seed: self.plan.seed, rows })
    }

    /// What tokenizers are trained on, if they are not the shipped model's.
    pub fn captions(&self) -> Result<Option<Vec<String>>> {
        self.new_tokenizers.then(|| vocabulary::captions(&self.data(1))).transpose()
    }

    /// What a network is trained with and stands on: the plan's part, sprites and the scenes that are drawn of them, both encoders with
    /// their tokenizers, and the network it starts from.
    pub fn lineage(&self, stage: &StageTraining, network: &NetworkTraining) -> Result<Lineage> {
        let lineage = self
            .plan
            .lineage(stage, network)
            .with("pack", &self.pack)
            .with_bytes("data", self.sampler.version()?.as_bytes())
            .with_file("clip", &self.clip().join("model.safetensors"))?
            .with_file("clip-tokenizer", &self.clip().join("tokenizer.json"))?
            .with_file("t5", &self.t5().join("model.safetensors"))?
            .with_file("t5-tokenizer", &self.t5().join("tokenizer.json"))?;
        let lineage = match network.redrawn {
            Some(_) => {
                let pictures = self.redrawn(stage, network);
                if !pictures.is_file() {
                    let (name, absent) = (&network.name, pictures.display());
                    return Err(
                        format!("the pictures of {name} are drawn when it is trained: there is no {absent}").into()
                    );
                }
                lineage.with_file("redrawn-pictures", &pictures)?
            }
            None => lineage,
        };
        let Some(parent) = self.parent(stage, network) else { return Ok(lineage) };
        if !parent.is_file() {
            let (name, from) = (&network.name, network.parent.as_deref().unwrap_or_default());
            let absent = parent.display();
            return Err(format!("{name} starts from {from}, which is not trained yet: there is no {absent}").into());
        }
        Ok(lineage.with_file("parent", &parent)?)
    }

    /// What [`Begin::discard`] removes, unless a program trains this network at the moment.
    pub fn discard(&self, name: &str, begin: Begin, export: &Path) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let _lock = Lock::take(self.folder.join(format!("{name}.lock")))?;
        Ok(begin.discard(export)?)
    }

    /// The run of a task. `name` is the task's.
    pub fn run<'a>(&'a self, name: &'a str, task: &Task<'_>, begin: Begin, lineage: Lineage) -> Run<'a> {
        let Batches { batch, accumulate } = self.plan.batches(task);
        let checkpoint_every = Duration::from_secs_f64(60.0 * self.cadence.checkpoint_minutes.clamp(0.0, 1e6));
        let (folder, steps, first_batch) = (self.folder.as_path(), task.training().steps, task.first_batch());
        Run { name, folder, begin, steps, batch, accumulate, first_batch, checkpoint_every, lineage }
    }

    /// How a task is set up.
    pub fn setup(&self, task: &Task<'_>, parent: Option<PathBuf>) -> Setup {
        let (device, training) = (self.runtime.device, task.training());
        let (optimizer, ema, seed) = (training.optimizer(), training.ema, task.seed(self.plan.seed));
        // Encoders have parameters that are used in f32, such as the temperature of CLIP: they cast each weight where it is used.
        let kind = if matches!(task, Task::Network(..)) { self.runtime.kind } else { Kind::Float };
        let workers = workers(device, self.plan.batches(task).accumulate);
        Setup { seed, parent, device, kind, optimizer, ema, workers }
    }

    /// Watches a run: a progress bar, contact sheets, the end of the time.
    pub fn watch<'a>(
        &'a self,
        run: &Run<'_>,
        mut sheet: impl FnMut(&TrainState, &Path) -> Result<()> + 'a,
    ) -> impl FnMut(&TrainState, Option<&Entry>) -> Result<ControlFlow<()>> + 'a {
        let (name, steps) = (run.name.to_owned(), run.steps);
        let mut progress = Progress::new(&name, run.steps);
        move |state: &TrainState, entry: Option<&Entry>| {
            let step = state.step();
            progress.step(step, entry);
            let every = self.cadence.sheet_steps;
            if every > 0 && step.is_multiple_of(every) {
                sheet(state, &self.folder.join(format!("{name}-{step:06}.png")))?;
            }
            let over = self.cadence.minutes.is_some_and(|m| self.began.elapsed().as_secs_f64() > 60.0 * m);
            let last = step == steps;
            if last || over {
                if every > 0 {
                    sheet(state, &self.folder.join(format!("{name}-last.png")))?;
                }
                progress.finish();
                if !std::io::stderr().is_terminal() {
                    println!("{name}: {step} steps, {} pictures", state.pictures());
                }
            }
            Ok(if over && !last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        }
    }
}
