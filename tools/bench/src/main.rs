//! `cargo xtask bench`: this library beside PyTorch, turn by turn; writes the tables of `docs/results/performance.md`.

#[path = "../../../ediffi-cli/src/allocator.rs"]
mod allocator;
mod alternatives;
mod job;
mod kept;
mod prepare;
mod quiet;
mod result;
mod rows;
mod side;
mod statistics;
mod systems;
mod tables;
mod turns;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::job::{Case, Job, Precision};
use crate::kept::{Kept, Rows, Setting};
use crate::result::Result;
use crate::rows::{Program, Row, Side};
use crate::turns::{Measured, Setup};

/// Measure this library beside PyTorch.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// Rows to measure, or how their names begin, as `base` or `if-i-m-1-f32`; all of them if there is none.
    names: Vec<String>,
    /// Evaluations of each side.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How often each side is started, to measure loading and the first evaluation.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Threads of each side; all processors if it is left out.
    #[arg(long)]
    threads: Option<usize>,
    /// A Python that has the packages of tools/bench/requirements.txt, in place of the bench's own.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Measure bf16 even where the processor has no arithmetic for it.
    #[arg(long)]
    all: bool,
    /// Show the names of the rows, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Write the tables again from what was measured, and measure nothing.
    #[arg(long)]
    tables: bool,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// One side of a row, which the bench starts itself.
    #[command(hide = true)]
    Side { job: String },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    if let Some(Hidden::Side { job }) = &arguments.hidden {
        return side::serve(&serde_json::from_str::<Job>(job)?);
    }
    let rows = rows::all();
    if arguments.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return Ok(());
    }
    let mut kept = Rows::open()?;
    if !arguments.tables {
        measure(&chosen(&rows, arguments)?, arguments, &mut kept)?;
    }
    tables::write(&rows, &kept)?;
    systems::write(&kept)
}

/// The rows that the command line names; those whose precision is emulated only if it says so.
fn chosen<'a>(rows: &'a [Row], arguments: &Arguments) -> Result<Vec<&'a Row>> {
    if let Some(name) = arguments.names.iter().find(|name| !rows.iter().any(|row| row.is(name))) {
        return Err(format!("there is no row {name:?}; `--list` shows them").into());
    }
    let named = |row: &&Row| arguments.names.is_empty() || arguments.names.iter().any(|name| row.is(name));
    let (left_out, chosen): (Vec<&Row>, Vec<&Row>) =
        rows.iter().filter(named).partition(|row| row.precision.emulated() && !arguments.all);
    for row in left_out {
        eprintln!("{}: left out, as this processor has no bf16 arithmetic; `--all` measures it", row.name);
    }
    Ok(chosen)
}

fn measure(rows: &[&Row], arguments: &Arguments, kept: &mut Rows) -> Result<()> {
    let python = arguments.python.clone().map_or_else(prepare::python, Ok)?;
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let (rounds, starts) = (arguments.rounds.max(1), arguments.starts.max(1));
    let setup = Setup { rounds, starts, threads, python };
    let setting = Setting::here(&setup)?;
    for precision in Precision::BOTH {
        let mut rows = rows.iter().filter(|row| row.precision == precision).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let mut keep = |row: &Row, limits| -> Result<Measured> {
            eprintln!("{}: {} sides, {rounds} rounds", row.name, row.sides.len());
            let measured = one(row, &setup).unwrap_or_else(|error| Measured::failed(row, error.as_ref()));
            kept.keep(&row.name, Kept { setting: setting.clone(), precision, limits, measured: measured.clone() })?;
            Ok(measured)
        };
        let limits = kept::limits(&keep(&rows::limit(precision), None)?);
        rows.try_for_each(|row| keep(row, limits).map(drop))?;
    }
    Ok(())
}

fn one(row: &Row, setup: &Setup) -> Result<Measured> {
    row.sides.iter().try_for_each(|side| prepare::models(&side.case, &setup.python))?;
    let largest = row.sides.iter().map(|side| prepare::largest_mb(&side.case, row.precision));
    let largest = largest.collect::<Result<Vec<_>>>()?;
    let mut measured = turns::measure(row, setup)?;
    measured.sides.iter_mut().zip(largest).for_each(|(times, largest)| times.largest_mb = largest);
    // Of a whole picture a step is timed, and that is of several networks.
    let counted = |side: &&Side| match side.case {
        Case::Whole { .. } => false,
        Case::Alternative { .. } => true,
        _ => side.program == Program::Pytorch,
    };
    if let Some(side) = row.sides.iter().find(counted) {
        let flop = prepare::flop(&row.name, &turns::job(row, side, setup), &setup.python)?;
        measured.sides.iter_mut().for_each(|times| times.flop = Some(flop));
    }
    Ok(measured)
}
