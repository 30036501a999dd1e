//! `cargo xtask bench`: this library beside PyTorch.

use crate::checkout::{self, Checkout};
use crate::setup;

/// Builds the programs that are measured, and runs `tools/bench` with the arguments.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> Result<(), String> {
    setup::before_building(checkout, &[])?;
    let measured: [&[&str]; 2] =
        [&["train-icons", "--bin", "training_speed"], &["ediffi-cli", "--features", "draw", "--bin", "ediffi"]];
    for measured in measured {
        let build = [&["build", "--release", "--package"], measured].concat();
        checkout::run(&mut checkout.cargo(&build), "building what is measured")?;
    }
    let mut bench = checkout.cargo(&["run", "--release", "--package", "bench", "--"]);
    checkout::run(bench.args(arguments), "the bench")
}
