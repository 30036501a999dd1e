//! Measures models: see `docs/evaluation.md`.
//!
//! ```text
//! evaluate judge train; evaluate judge check --write
//! evaluate icons --write docs/results/evaluation.md
//! evaluate seen --write docs/results/seen.md
//! evaluate paint --write docs/results/paint-with-words.md
//! evaluate style --write docs/results/style.md
//! evaluate solvers --write docs/results/evaluation.md
//! evaluate probes --write docs/results/experts.md
//! evaluate attention --write docs/results/experts.md
//! evaluate compare --name experts --variant A=DIR --variant C=DIR --write docs/results/experts.md
//! ```

#[path = "../../../ediffi-cli/src/allocator.rs"]
mod allocator;
#[path = "../../../examples/shared/report.rs"]
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use evaluate::judge::architecture::Architecture;
use evaluate::judge::check::{check, stamp};
use evaluate::judge::scenes::Examples;
use evaluate::judge::train::{Training, train, trained};
use evaluate::judge::{self, Judge};
use evaluate::measured::Measured;
use evaluate::{attention, compare, edited, icons, paint, probes, seen, solvers, styled};
use train_icons::pack::{self, Pack};

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// The sprite pack that `cargo xtask icons` builds.
    #[arg(long, global = true, default_value = pack::DEFAULT_PATH)]
    pack: PathBuf,
    /// The judge.
    #[arg(long, global = true, default_value = judge::DEFAULT_PATH)]
    judge: PathBuf,
    /// Folder of results.
    #[arg(long, global = true, default_value = "runs/evaluate")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The judge itself.
    #[command(subcommand)]
    Judge(JudgeCommand),
    /// A model's pictures, as the judge sees them.
    Icons(Written<icons::Settings>),
    /// What a person sees of a model's pictures: plainness, edges, specks, patches.
    Seen(Written<seen::Settings>),
    /// What `seen` has measured of several samplers, in one table.
    Samplers(Written<seen::samplers::Settings>),
    /// Every solver and schedule against the exact solution.
    Solvers(Written<solvers::Settings>),
    /// When in sampling the caption matters.
    Probes(Written<probes::Settings>),
    /// Where the cross-attention of the base looks, by noise level.
    Attention(Written<attention::Settings>),
    /// Models, or one with fewer encoders, on the same prompts and seeds.
    Compare(Written<compare::Settings>),
    /// Whether painted objects are where they were painted.
    Paint(Written<paint::Settings>),
    /// Whether a reference picture gives its style and leaves the content to the prompt.
    Style(Written<styled::Settings>),
    /// Inpainting, image to image and variations: is what was asked for there, and is the rest as it was?
    Edits(Written<edited::Settings>),
}

#[derive(Debug, Subcommand)]
enum JudgeCommand {
    /// Train a judge into the folder of results.
    Train(Training),
    /// Report how often a judge is right on renders that it was not trained on.
    Check(Written<Checking>),
}

/// What is measured, and where its results stand.
#[derive(Debug, Args)]
struct Written<S: Args> {
    #[command(flatten)]
    settings: S,
    /// Also put the tables between their markers in this document, and the plots beside it.
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Checking {
    /// The judge to check; the trained one in the folder of results if there is none.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Which of those trained there.
    #[arg(long, value_enum, default_value_t = Architecture::Convolutions)]
    architecture: Architecture,
    /// How many renders.
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..))]
    renders: u32,
    /// Write the checked judge, its accuracy in its header, to the path of `--judge`.
    #[arg(long)]
    freeze: bool,
}

/// Programs report any error in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    report::report(evaluate(&Arguments::parse()).map_err(|error| error as Box<dyn std::error::Error>))
}

fn evaluate(Arguments { command, pack, judge, out }: &Arguments) -> Result<()> {
    let (opened, pack) = (|| Judge::open(judge), || Pack::open(pack));
    match command {
        Command::Judge(JudgeCommand::Train(training)) => Ok(train(Examples::new(&pack()?)?, out, training)?),
        Command::Judge(JudgeCommand::Check(Written { settings, write })) => {
            let from = settings.weights.clone().unwrap_or_else(|| trained(out, settings.architecture));
            let examples = Examples::new(&pack()?)?;
            let unproven = Judge::unproven(&from)?;
            let reports = check(&unproven, &examples, settings.renders as usize)?;
            done(out, &reports, write)?;
            if let (true, Some(report)) = (settings.freeze, reports.first()) {
                stamp(&unproven, &from, judge, report)?;
                let frozen = opened()?;
                println!("{}: {}, {:?}", judge.display(), frozen.fingerprint, frozen.accuracy);
            }
            Ok(())
        }
        Command::Icons(Written { settings, write }) => {
            done(out, &icons::evaluate(&opened()?, &pack()?, settings, out)?, write)
        }
        Command::Seen(Written { settings, write }) => {
            // Drawing takes minutes; a page without a place for the table is an error before.
            if let Some(page) = write {
                evaluate::document::between(page, &settings.name)?;
            }
            done(out, &seen::evaluate(&pack()?, settings, out)?, write)
        }
        Command::Samplers(Written { settings, write }) => done(out, &seen::samplers::compare(settings, out)?, write),
        Command::Solvers(Written { settings, write }) => done(out, &solvers::evaluate(&opened()?, settings)?, write),
        Command::Probes(Written { settings, write }) => done(out, &probes::evaluate(&opened()?, settings)?, write),
        Command::Attention(Written { settings, write }) => done(out, &attention::evaluate(settings)?, write),
        Command::Compare(Written { settings, write }) => {
            let judge = opened()?;
            // A comparison takes minutes; a page without a place for it is an error before.
            if let Some(page) = write {
                evaluate::document::between(page, &settings.name)?;
            }
            done(out, &compare::evaluate(&judge, &pack()?, settings)?, write)
        }
        Command::Paint(Written { settings, write }) => {
            done(out, &paint::evaluate(&opened()?, &pack()?, settings, &out.join("paint-kept.json"))?, write)
        }
        Command::Style(Written { settings, write }) => {
            done(out, &styled::evaluate(&opened()?, &pack()?, settings)?, write)
        }
        Command::Edits(Written { settings, write }) => {
            if write.is_some() {
                settings.expect_all()?;
            }
            done(out, &edited::evaluate(&opened()?, &pack()?, settings)?, write)
        }
    }
}

/// Prints results and saves them: what cannot be written has at least been seen.
fn done(out: &Path, results: &impl Measured, page: &Option<PathBuf>) -> Result<()> {
    println!("{}", results.markdown());
    Ok(results.save(out, page.as_deref())?)
}
