//! `cargo xtask ci`: what has to hold before a change goes in; the cheapest check first.

use std::time::Instant;

use crate::args::Fuzz;
use crate::checkout::{self, Checkout};
use crate::test::FEATURES;
use crate::{deny, downstream, fuzz, setup, test};

/// A check, and how it is run.
type Step = (&'static str, fn(&Checkout) -> Result<(), String>);

const STEPS: [Step; 9] = [
    ("formatting", formatting),
    ("structure", structure),
    ("licences and sources", deny::run),
    ("set-up", |checkout| setup::before_building(checkout, &[])),
    ("clippy", clippy),
    ("docs", docs),
    ("downstream", downstream::run),
    ("fuzzing", fuzzing),
    ("tests", test::run),
];

/// Seconds of fuzzing for each reader: a look at whether a change broke one. Two at a time, all of them take three minutes, beside what
/// the build takes.
const FUZZING: u64 = 20;

/// Runs the steps in order, and stops at the first that fails.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    let start = Instant::now();
    for (name, step) in STEPS {
        // Nothing is printed after a step: the last words are those of the tests, their sum.
        eprintln!("ci: {name} (after {} s)", start.elapsed().as_secs());
        step(checkout).map_err(|message| format!("{message}\nci: stopped at {name}"))?;
    }
    Ok(())
}

fn formatting(checkout: &Checkout) -> Result<(), String> {
    checkout::run(&mut checkout.cargo(&["fmt", "--all", "--check"]), "cargo fmt --check")?;
    // A workspace of its own.
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    checkout::run(&mut checkout.cargo(&fuzz), "cargo fmt --check of the fuzz targets")
}

fn fuzzing(checkout: &Checkout) -> Result<(), String> {
    fuzz::run(checkout, &Fuzz { seconds: FUZZING, ..Fuzz::default() })
}

/// `cargo xtask structure`: the tool is built without libtorch, so that it can run before the set-up.
pub(crate) fn structure(checkout: &Checkout) -> Result<(), String> {
    checkout::run(&mut checkout.cargo(&["run", "--quiet", "--locked", "--package", "structure"]), "structure")
}

fn clippy(checkout: &Checkout) -> Result<(), String> {
    let arguments =
        ["clippy", "--locked", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"];
    checkout::run(&mut checkout.cargo(&arguments), "clippy")
}

fn docs(checkout: &Checkout) -> Result<(), String> {
    let mut command = checkout.cargo(&["doc", "--locked", "--workspace", "--features", FEATURES, "--no-deps"]);
    checkout::run(command.env("RUSTDOCFLAGS", "-D warnings"), "cargo doc")
}
