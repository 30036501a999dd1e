//! The command `ediffi`.

#[cfg(feature = "draw")]
mod allocator;
mod cargo_config;
#[cfg(feature = "draw")]
mod draw;
mod setup;
mod tell;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// What stands below the help.
#[cfg(feature = "draw")]
const AFTER: &str = "Exit codes: 0 all is done; 1 something failed; 2 the arguments or the request are refused.";
#[cfg(not(feature = "draw"))]
const AFTER: &str = "The commands that draw are built against libtorch: `ediffi setup`, then `cargo install ediffi-cli --features draw`.";

/// Draws, edits and enlarges pictures with eDiff-I, and sets a machine up for programs that use the crate ediffi.
#[derive(Parser)]
#[command(name = "ediffi", version, after_help = AFTER)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "draw")]
    #[command(flatten)]
    Draw(Box<draw::Command>),
    Setup(setup::Setup),
    /// Write completions for a shell to standard output.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, as ediffi.1 and ediffi-draw.1, into a folder.
    Man {
        /// The folder, which has to be there.
        folder: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    let done: Result<(), Box<dyn std::error::Error>> = match Arguments::parse().command {
        #[cfg(feature = "draw")]
        Command::Draw(command) => {
            return match command.run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(mut failure) => {
                    failure.tell();
                    failure.code()
                }
            };
        }
        Command::Setup(setup) => setup.run(),
        Command::Completions { shell } => {
            // Into memory first: a reader that is gone would be a panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "ediffi", &mut script);
            std::io::stdout().write_all(&script).map_err(|error| format!("standard output: {error}").into())
        }
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), &folder)
            .map_err(|error| format!("{}: {error}", folder.display()).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
