//! The command `ediffi`.

#[cfg(feature = "draw")]
mod allocator;
mod cargo_config;
#[cfg(feature = "draw")]
mod draw;
mod refused;
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
const AFTER: &str = "The commands that draw are built against libtorch:
LIBTORCH=$(ediffi setup --print-folder) cargo install ediffi-cli --force --features draw";

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
        Command::Man { folder } if !folder.is_dir() => {
            Err(refused::Refused(format!("{}: there is no such folder", folder.display())).into())
        }
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), &folder)
            .map_err(|error| format!("{}: {error}", folder.display()).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::tell(&format!("error: {error}"));
            if error.is::<refused::Refused>() { ExitCode::from(refused::REFUSED) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and columns of a terminal that shows what `-h` says.
    const SCREEN: (usize, usize) = (50, 100);

    fn rows(help: &str) -> usize {
        help.lines().map(|line| line.chars().count().div_ceil(SCREEN.1).max(1)).sum()
    }

    #[test]
    fn the_short_help_of_every_command_fits_a_screen() {
        assert_eq!(rows(&format!("a\n\n{}\n", "b".repeat(101))), 4);
        let mut all = Arguments::command();
        all.build();
        let mut helps = vec![("ediffi".to_owned(), all.render_help().to_string())];
        let of = |command: &mut clap::Command| (command.get_name().to_owned(), command.render_help().to_string());
        helps.extend(all.get_subcommands_mut().map(of));
        assert!(helps.len() > 4, "setup, completions, man and help are always there");
        for (name, help) in helps {
            assert!(rows(&help) <= SCREEN.0, "{name} has {} rows:\n{help}", rows(&help));
        }
    }
}
