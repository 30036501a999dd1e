//! Measures models: see `docs/evaluation.md`.
//!
//! ```text
//! evaluate judge train; evaluate judge check --write
//! evaluate icons --write docs/results/evaluation.md
//! evaluate paint --write docs/results/paint-with-words.md
//! evaluate style --write docs/results/style.md
//! evaluate solvers --write docs/results/evaluation.md
//! evaluate probes --write docs/results/experts.md
//! evaluate attention --write docs/results/experts.md
//! evaluate compare --name experts --variant A=DIR --variant C=DIR --write docs/results/experts.md
//! ```

#[path = "../../../examples/shared/allocator.rs"]
mod allocator;
#[path = "../../../examples/shared/report.rs"]
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evaluate::judge::check::{check, stamp, table};
use evaluate::judge::scenes::Examples;
use evaluate::judge::train::{Training, train};
use evaluate::judge::{self, Judge};
use evaluate::{attention, compare, icons, paint, probes, solvers, styled};
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
    Judge {
        /// What to do with it.
        #[command(subcommand)]
        command: JudgeCommand,
    },
    /// A model's pictures, as the judge sees them.
    Icons {
        #[command(flatten)]
        settings: icons::Settings,
        /// Also put the table between its markers in this document, and the plots beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Every solver and schedule against the exact solution.
    Solvers {
        #[command(flatten)]
        settings: solvers::Settings,
        /// Also put the tables between their markers in this document, and the plot beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// When in sampling the caption matters.
    Probes {
        #[command(flatten)]
        settings: probes::Settings,
        /// Also put the table between its markers in this document, and the plot beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Where the cross-attention of the base looks, by noise level.
    Attention {
        #[command(flatten)]
        settings: attention::Settings,
        /// Also put the table between its markers in this document, and the plot beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Models, or one with fewer encoders, on the same prompts and seeds.
    Compare {
        #[command(flatten)]
        settings: compare::Settings,
        /// Also put the tables between their markers in this document, and the plot beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Whether painted objects are where they were painted.
    Paint {
        #[command(flatten)]
        settings: paint::Settings,
        /// Also put the table between its markers in this document, and the plots beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Whether a reference picture gives its style and leaves the content to the prompt.
    Style {
        #[command(flatten)]
        settings: styled::Settings,
        /// Also put the table between its markers in this document, and the plot beside it.
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum JudgeCommand {
    /// Train a judge into the folder of results.
    Train {
        #[command(flatten)]
        training: Training,
    },
    /// Report how often a judge is right on renders that it was not trained on.
    Check {
        /// The judge to check; the trained one in the folder of results if there is none.
        #[arg(long)]
        weights: Option<PathBuf>,
        /// How many renders.
        #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..))]
        renders: u32,
        /// Put the table between its markers in this document.
        #[arg(long)]
        write: Option<PathBuf>,
        /// Write the checked judge, its accuracy in its header, to the path of `--judge`.
        #[arg(long)]
        freeze: bool,
    },
}

/// Programs report any error in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    report::report(evaluate(&Arguments::parse()).map_err(|error| error as Box<dyn std::error::Error>))
}

fn evaluate(arguments: &Arguments) -> Result<()> {
    let trained = arguments.out.join("judge.safetensors");
    match &arguments.command {
        Command::Judge { command: JudgeCommand::Train { training } } => {
            let examples = Examples::new(&Pack::open(&arguments.pack)?)?;
            Ok(train(examples, &arguments.out, &trained, training)?)
        }
        Command::Judge { command: JudgeCommand::Check { weights, renders, write, freeze } } => {
            let from = weights.as_deref().unwrap_or(&trained);
            let examples = Examples::new(&Pack::open(&arguments.pack)?)?;
            judge_check(from, arguments, &examples, *renders as usize, write.as_deref(), *freeze)
        }
        Command::Icons { settings, write } => {
            let judge = Judge::open(&arguments.judge)?;
            let results = icons::evaluate(&judge, &Pack::open(&arguments.pack)?, settings, &arguments.out)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Solvers { settings, write } => {
            let judge = Judge::open(&arguments.judge)?;
            let results = solvers::evaluate(&judge, settings)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Probes { settings, write } => {
            let judge = Judge::open(&arguments.judge)?;
            let results = probes::evaluate(&judge, settings)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Attention { settings, write } => {
            let results = attention::evaluate(settings)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Compare { settings, write } => {
            let judge = Judge::open(&arguments.judge)?;
            // A comparison takes minutes; a page without a place for it is an error before.
            if let Some(page) = write {
                evaluate::document::between(page, &settings.name)?;
            }
            let results = compare::evaluate(&judge, &Pack::open(&arguments.pack)?, settings)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Paint { settings, write } => {
            let (judge, kept) = (Judge::open(&arguments.judge)?, arguments.out.join("paint-kept.json"));
            let results = paint::evaluate(&judge, &Pack::open(&arguments.pack)?, settings, &kept)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
        Command::Style { settings, write } => {
            let judge = Judge::open(&arguments.judge)?;
            let results = styled::evaluate(&judge, &Pack::open(&arguments.pack)?, settings)?;
            results.save(&arguments.out, write.as_deref())?;
            println!("{}", results.markdown());
            Ok(())
        }
    }
}

fn judge_check(
    from: &Path,
    arguments: &Arguments,
    examples: &Examples,
    renders: usize,
    page: Option<&Path>,
    freeze: bool,
) -> Result<()> {
    let reports = check(&Judge::unproven(from)?, examples, renders)?;
    let text = table(&reports).to_string();
    println!("{text}");
    evaluate::document::json(&arguments.out.join("judge.json"), &reports)?;
    if let Some(page) = page {
        evaluate::document::replace(page, "judge", &text)?;
    }
    if let (true, Some(report)) = (freeze, reports.first()) {
        stamp(from, &arguments.judge, report)?;
        let judge = Judge::open(&arguments.judge)?;
        println!("{}: {}, {:?}", arguments.judge.display(), judge.fingerprint(), judge.accuracy());
    }
    Ok(())
}
