//! `cargo xtask ...`: set-up, demo, tests and CI of ediffi.
//!
//! It depends on nothing that has to be compiled for long, so that the first command on a bare machine starts within a second.
//! Status lines go to standard error; standard output carries results only.

mod args;
mod bench;
mod checkout;
mod ci;
mod cuda_pack;
mod demo;
mod deny;
mod downstream;
mod enlarger;
mod fuzz;
mod fuzz_report;
mod icons;
mod lite0;
mod packages;
mod semver;
mod setup;
mod soak;
mod summary;
mod system;
mod test;
mod unpacked;

use std::process::ExitCode;

use args::Command;
use checkout::Checkout;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments = std::env::args_os()
        .skip(1)
        .map(|argument| argument.into_string().map_err(|bad| format!("error: not UTF-8: {}", bad.display())))
        .collect::<Result<Vec<_>, _>>()?;
    let checkout = Checkout::from_env()?;
    match args::parse(&arguments)? {
        Command::Help => {
            print!("{}", args::USAGE);
            Ok(())
        }
        Command::Setup { cuda } => setup::run(&checkout, cuda),
        Command::Demo(demo) => demo::run(&checkout, &demo),
        Command::Bench(arguments) => bench::run(&checkout, &arguments),
        Command::Soak(arguments) => soak::run(&checkout, &arguments),
        Command::Fuzz(fuzz) => fuzz::run(&checkout, &fuzz),
        Command::Test => test::run(&checkout),
        Command::Ci => ci::run(&checkout),
        Command::Deny => deny::run(&checkout),
        Command::Downstream => downstream::run(&checkout),
        Command::Semver { against } => semver::run(&checkout, against.as_deref()),
        Command::Structure => ci::structure(&checkout),
        Command::CudaPack => cuda_pack::run(&checkout),
        Command::Icons => icons::run(&checkout),
        Command::Enlarger => enlarger::run(&checkout),
        Command::Lite0 => lite0::run(&checkout),
    }
}
