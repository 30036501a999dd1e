//! `cargo xtask soak`: serves, kills and damages for a long time, and says what happened; with `--write docs/security.md`, there, too.

mod child;
mod damage;
mod generations;
mod kills;
mod memory;
mod no_room;
mod replacing;
mod report;
mod result;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::result::Result;

/// Serve, kill and damage for a long time.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    model: PathBuf,
    /// Requests that a worker serves.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// How often a training is killed, and the replacing of a model.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Also put the table between its markers in this document.
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// A training that is killed.
    #[command(hide = true)]
    Train { folder: PathBuf },
    /// The replacing of a model that is killed.
    #[command(hide = true)]
    Replace { folder: PathBuf },
    /// A model that is damaged.
    #[command(hide = true)]
    Open { folder: PathBuf },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.hidden {
        Some(Hidden::Train { folder }) => training::train(folder),
        Some(Hidden::Replace { folder }) => replacing::replace(folder),
        Some(Hidden::Open { folder }) => damage::open(folder),
        None => soak(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments) -> Result<()> {
    let checks: [(&str, &dyn Fn() -> Result<report::Outcome>); 5] = [
        ("requests", &|| generations::run(&arguments.model, arguments.requests)),
        ("kills", &|| kills::run(arguments.kills)),
        ("replacing", &|| replacing::run(&arguments.model, arguments.kills)),
        ("no room", &|| no_room::run()),
        ("damaged files", &|| damage::run(&arguments.model)),
    ];
    let mut outcomes = Vec::new();
    for (name, check) in checks {
        eprintln!("{name} …");
        let outcome = check()?;
        eprintln!("{outcome}");
        outcomes.push(outcome);
    }
    let page = report::page(&outcomes);
    println!("{page}");
    if let Some(path) = &arguments.write {
        evaluate::document::replace(path, "soak", &page)?;
    }
    let failed: Vec<&str> = outcomes.iter().flat_map(|outcome| &outcome.faults).map(String::as_str).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
