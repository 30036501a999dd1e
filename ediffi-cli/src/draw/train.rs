//! `ediffi train`: from captioned pictures and a plan to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ediffi::{DeviceChoice, Runtime};
use ediffi_cluster::{Cluster, Transport};
use ediffi_train::dataset::Dataset;
use ediffi_train::reduce::{Reduce, agree};
use ediffi_train::run::Begin;
use ediffi_trainer::plan::{self, Plan};
use ediffi_trainer::{Options, Outcome, Processes, encode_captions, train_in_groups};

use super::failure::Failure;
use super::model::{Numbers, device};
use super::output::say;
use super::rank::Rank;
use super::training::{Progress, warn_on_terminal};
use super::transport::together;

/// Train a model on captioned pictures, by a plan. Killed at any time, the same command with `--begin resume` goes on.
///
/// Started by mpirun or srun with `--transport`, all processes train it together, each on a CUDA device of its own if there are some.
#[derive(Args)]
pub(crate) struct Train {
    /// What to train: laptop, gpu-24gb, paper-a to paper-d, or a file in TOML.
    #[arg(long, value_name = "NAME or FILE")]
    plan: String,
    /// The captioned pictures: a folder, a folder of tar shards, or shards as NAME-{0000..0009}.tar.
    #[arg(long, value_name = "DIR or SHARDS", required_unless_present_any = ["print", "toml"])]
    data: Option<String>,
    /// The folder of checkpoints, logs and sheets; the model is put together in `model` there.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["print", "toml"])]
    out: Option<PathBuf>,
    /// What to do with a run that is there.
    #[arg(long, value_enum, default_value_t)]
    begin: BeginAs,
    /// Train this network alone, as base.shared; may be given several times. Several machines can train networks of one parent.
    #[arg(long, value_name = "NETWORK")]
    only: Vec<String>,
    /// The most threads that compute (default: as many as there are cores).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Minutes between checkpoints: the most that a kill may cost.
    #[arg(long, default_value_t = 3.0, value_name = "M")]
    checkpoint_minutes: f64,
    /// Steps between sheets of samples, besides the one at the end; 0 for none at all.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    sheet_steps: u64,
    /// A folder of encoded captions in the place of the encoders; `--encode-only` fills it.
    #[arg(long, value_name = "DIR")]
    embeddings: Option<PathBuf>,
    /// Encode all captions into the folder of `--embeddings`, and train no network. Killed, the same command goes on.
    #[arg(long, requires = "embeddings", conflicts_with = "transport")]
    encode_only: bool,
    /// By what the processes that mpirun or srun started add up their gradients: alone, mpi, nccl (default: alone, one process).
    #[arg(long, value_name = "HOW")]
    transport: Option<Transport>,
    /// Divide the processes into so many groups, which train networks side by side: branches of the expert tree, or stages.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "transport")]
    groups: usize,
    /// Minutes to wait for a process that does not come to a sum, before the job is ended.
    ///
    /// It is to be longer than a checkpoint takes to be written.
    #[arg(long, default_value_t = 10.0, value_name = "M", requires = "transport")]
    timeout_minutes: f64,
    /// Show the plan with noise levels, pictures and shares of the sampling steps, and train nothing.
    #[arg(long, conflicts_with_all = ["toml", "encode_only"])]
    print: bool,
    /// Write the plan as TOML to standard output, to be changed and given as a file.
    #[arg(long, conflicts_with = "encode_only")]
    toml: bool,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto", value_parser = device)]
    device: DeviceChoice,
    /// The numbers that networks compute in; f16 is not trained in.
    #[arg(long, value_enum, default_value_t)]
    precision: Numbers,
}

/// [`Begin`] as an option.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum BeginAs {
    /// Refuse to touch it.
    #[default]
    New,
    /// Go on with it.
    Resume,
    /// Replace it, or what `--only` names of it.
    Restart,
}

impl Train {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let plan = plan::find(&self.plan)?;
        if self.toml {
            return say(plan.to_toml()?.trim_end());
        }
        if self.print {
            return say(plan.to_string().trim_end());
        }
        let (Some(data), Some(out)) = (&self.data, &self.out) else {
            return Err(Failure::refused(vec!["--data and --out are missing".to_owned()]));
        };
        let rank = Rank::of_process()?;
        let timeout = minutes("--timeout-minutes", self.timeout_minutes)?;
        if timeout.is_zero() {
            return Err(Failure::refused(vec!["--timeout-minutes: 0 would end every job".to_owned()]));
        }
        warn_on_terminal();
        match (&self.embeddings, self.encode_only) {
            (Some(_), true) if rank.size > 1 => Err(Failure::refused(vec![
                "--encode-only is for one process: start it without mpirun or srun".to_owned(),
            ])),
            (Some(into), true) => {
                let options = Options { embeddings: None, ..self.options(out, rank)? };
                expect_all(encode_captions(&plan, ediffi_data::open(data)?, &options, into, &mut Progress::default())?)
            }
            _ => together(self.transport, (self.groups, timeout), rank, |cluster| {
                self.train(cluster, &plan, data, &self.options(out, rank)?)
            }),
        }
    }

    fn train(&self, cluster: &Cluster, plan: &Plan, data: &str, options: &Options) -> Result<(), Failure> {
        let (everyone, own) = (cluster.everyone(), cluster.reduce());
        let dataset = open(everyone, data)?;
        let processes = Processes { everyone, own, groups: cluster.groups(), group: cluster.group() };
        if everyone.rank() > 0 {
            return expect_all(train_in_groups(&processes, plan, dataset, options, &mut ())?);
        }
        let mut progress = Progress::default();
        expect_all(train_in_groups(&processes, plan, dataset, options, &mut progress)?)?;
        progress.model.map_or(Ok(()), |model| say(&model.display().to_string()))
    }

    fn options(&self, out: &Path, rank: Rank) -> Result<Options, Failure> {
        let begin = match self.begin {
            BeginAs::New => Begin::New,
            BeginAs::Resume => Begin::Resume,
            BeginAs::Restart => Begin::Restart,
        };
        let device = if self.device == DeviceChoice::Auto { rank.device() } else { self.device };
        Ok(Options {
            begin,
            only: self.only.clone(),
            threads: self.threads.map(usize::from),
            checkpoint_every: minutes("--checkpoint-minutes", self.checkpoint_minutes)?,
            sheet_steps: self.sheet_steps,
            embeddings: self.embeddings.clone(),
            ..Options::new(out, Runtime::new(device, self.precision.into())?)
        })
    }
}

/// Minutes as an option has them.
fn minutes(option: &str, minutes: f64) -> Result<Duration, Failure> {
    if !(0.0..=1e6).contains(&minutes) {
        return Err(Failure::refused(vec![format!("{option}: {minutes} is not from 0 to 1000000")]));
    }
    Ok(Duration::from_secs_f64(60.0 * minutes))
}

/// Opens the data in all processes. Rank 0 does first what is done once, such as the indices of shards; the others find it done where they see
/// the same files.
fn open(everyone: &dyn Reduce, data: &str) -> Result<Arc<dyn Dataset>, Failure> {
    let first = (everyone.rank() == 0).then(|| ediffi_data::open(data)).transpose();
    // Nobody is missed at a barrier.
    everyone.barrier()?;
    match agree(everyone, first)? {
        Some(dataset) => Ok(dataset),
        None => Ok(ediffi_data::open(data)?),
    }
}

/// Fails unless everything is trained.
fn expect_all(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Trained => Ok(()),
        Outcome::Stopped => Err("the training was stopped; `--begin resume` goes on".into()),
    }
}
