//! Trains ediffi's small model on the icons data set by a plan, and puts the model folder together.
//!
//! ```text
//! train-icons --plan icons --print                     # what would be trained
//! train-icons --plan icons --out models/icons          # train it; killed or stopped, the same command goes on
//! train-icons --plan icons --only base.high            # one network, for several machines
//! ```
//! See `docs/training.md`.

#[path = "../../../ediffi-cli/src/allocator.rs"]
mod allocator;
#[path = "../../../examples/shared/report.rs"]
mod report;
mod train;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use train::workshop::{Cadence, Outcome, Workshop};
use train_icons::config::SamplerConfig;
use train_icons::pack::{self, Pack};
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// What to train: icons, paper-a, paper-b, paper-c, paper-d, or a file in TOML.
    #[arg(long)]
    plan: String,
    /// Show the plan with noise levels, pictures and shares of the sampling steps, and train nothing.
    #[arg(long, conflicts_with_all = ["toml", "out", "only", "restart"])]
    print: bool,
    /// Write the plan as TOML to standard output, to be changed and given as a file.
    #[arg(long, conflicts_with_all = ["out", "only", "restart"])]
    toml: bool,
    /// Train this one alone (clip, base.high, …); may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Train this one anew, whatever is there of it; may be given several times.
    #[arg(long, value_name = "NAME")]
    restart: Vec<String>,
    /// Put the model together here when all is trained; without `--only`, `model` in the run folder if not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder of checkpoints, logs, sheets and trained networks. Plans may share it: networks of the same name and lineage
    /// are trained once.
    #[arg(long, default_value = "runs/icons")]
    folder: PathBuf,
    /// The sprite pack that `cargo xtask icons` builds.
    #[arg(long, default_value = pack::DEFAULT_PATH)]
    pack: PathBuf,
    /// Train new tokenizers for the encoders, for other captions. Without it they are the shipped model's, and the same plan gives the
    /// same weights.
    #[arg(long)]
    new_tokenizers: bool,
    #[command(flatten)]
    cadence: Cadence,
}

fn main() -> ExitCode {
    report::report(train(Arguments::parse()).map_err(|error| error as Box<dyn std::error::Error>))
}

/// Writes to standard output. A reader who has seen enough, as `head`, is no error.
fn show(text: &str) -> train::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn train(arguments: Arguments) -> train::Result<()> {
    let plan = train::plans::find(&arguments.plan)?;
    if arguments.toml {
        return show(&plan.to_toml()?);
    }
    show(&plan.to_string())?;
    if arguments.print {
        return Ok(());
    }
    let runtime = Runtime::new(DeviceChoice::Auto, Precision::Auto)?;
    println!("\n{:?}, {:?}, {} threads", runtime.device, runtime.kind, tch::get_num_threads());
    let workshop = Workshop {
        plan,
        folder: arguments.folder,
        runtime,
        sampler: Arc::new(Sampler::new(SamplerConfig::small())?),
        renderer: Arc::new(Renderer::new(&Pack::open(&arguments.pack)?)?),
        pack: ediffi_train::lineage::fingerprint(&arguments.pack)?,
        new_tokenizers: arguments.new_tokenizers,
        cadence: arguments.cadence,
        began: Instant::now(),
    };
    if train::execute::execute(&workshop, &arguments.only, &arguments.restart)? == Outcome::Stopped {
        println!("stopped; the same command goes on, without --restart");
        return Ok(());
    }
    let out = match arguments.out {
        None if !arguments.only.is_empty() => return Ok(()),
        out => out.unwrap_or_else(|| workshop.folder.join("model")),
    };
    train::assemble::assemble(&workshop, &out)?;
    println!("the model is in {}", out.display());
    Ok(())
}
