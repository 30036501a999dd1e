//! The command `ediffi`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

mod cargo_config;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets a machine up for programs that draw with the crate ediffi.
#[derive(Parser)]
#[command(name = "ediffi", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
}

fn main() -> ExitCode {
    let Command::Setup(setup) = Arguments::parse().command;
    match setup.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
