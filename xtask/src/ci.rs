//! `cargo xtask ci`: what has to hold before a change goes in; the cheapest check first.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::args::Fuzz;
use crate::checkout::{self, Checkout};
use crate::test::FEATURES;
use crate::{deny, downstream, fuzz, lite0, setup, system, test};

/// A check, and how it is run.
type Step = (&'static str, fn(&Checkout) -> Result<(), String>);

const STEPS: [Step; 11] = [
    ("formatting", formatting),
    ("structure", structure),
    ("licences and sources", deny::run),
    ("set-up", set_up),
    ("deployment", deployment),
    ("clippy", clippy),
    ("docs", docs),
    ("downstream", downstream),
    ("fuzzing", fuzzing),
    ("clients", clients),
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

/// The packages as strangers build them. What they built is of no use to the steps after it, and large.
fn downstream(checkout: &Checkout) -> Result<(), String> {
    downstream::run(checkout)?;
    clear(&checkout.target().join("downstream"))
}

fn clear(folder: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(folder).map_err(|error| format!("error: cannot remove {}: {error}", folder.display()))
}

/// All that the steps after it need and that does not come with the checkout.
fn set_up(checkout: &Checkout) -> Result<(), String> {
    system::install()?;
    setup::before_building(checkout, &[])?;
    lite0::run(checkout)
}

fn formatting(checkout: &Checkout) -> Result<(), String> {
    checkout::run(&mut checkout.cargo(&["fmt", "--all", "--check"]), "cargo fmt --check")?;
    // A workspace of its own.
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    checkout::run(&mut checkout.cargo(&fuzz), "cargo fmt --check of the fuzz targets")
}

fn fuzzing(checkout: &Checkout) -> Result<(), String> {
    fuzz::run(checkout, &Fuzz { seconds: FUZZING, ..Fuzz::default() })?;
    clear(&checkout.target().join("fuzz"))
}

/// The files for containers and clusters, by their linters.
fn deployment(checkout: &Checkout) -> Result<(), String> {
    script(checkout, "deploy/check.sh", &[])
}

/// The first steps of a newcomer, and real clients and a browser against `ediffi serve`.
fn clients(checkout: &Checkout) -> Result<(), String> {
    let build = ["build", "--locked", "--workspace", "--features", FEATURES, "--bin", "ediffi"];
    checkout::run(&mut checkout.cargo(&build), "building ediffi")?;
    let program = checkout.target().join("debug/ediffi");
    let program = program.to_str().ok_or("error: the folder of the build is no text")?;
    script(checkout, "tools/newcomer/run.sh", &[program])?;
    script(checkout, "tools/clients/run.sh", &[program])?;
    script(checkout, "tools/clients/page/run.sh", &[])
}

fn script(checkout: &Checkout, path: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("bash");
    // What was built, for those that take it from there.
    command.env("EDIFFI", checkout.target().join("debug/ediffi"));
    checkout::run(command.arg(checkout.root().join(path)).args(arguments), path)
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
