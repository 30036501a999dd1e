//! `cargo xtask demo`: from a prompt to a picture.

use std::path::absolute;

use crate::args::Demo;
use crate::checkout::{self, Checkout};
use crate::setup;

/// Runs `examples/generate.rs`, which draws, shows its progress, and prints the path of the picture.
pub(crate) fn run(checkout: &Checkout, demo: &Demo) -> Result<(), String> {
    // Cargo is started in the checkout, but a relative path is meant from where the user stands.
    let out = absolute(&demo.out).map_err(|error| format!("error: --out {:?}: {error}", demo.out))?;
    setup::before_building(checkout, &[])?;
    let mut generate = checkout.cargo(&["run", "--release", "--package", "ediffi", "--example", "generate", "--"]);
    generate.arg("--out").arg(out);
    if let Some(seed) = demo.seed {
        generate.args(["--seed", &seed.to_string()]);
    }
    generate.args(["--", &demo.prompt]);
    checkout::run(&mut generate, "the demo")
}
