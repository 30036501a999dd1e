//! `cargo xtask demo`: from a prompt to a picture.

use std::path::absolute;

use crate::args::Demo;
use crate::checkout::{self, Checkout};
use crate::setup;

/// Runs `ediffi draw`, which draws, shows its progress, and prints the path of the picture.
pub(crate) fn run(checkout: &Checkout, demo: &Demo) -> Result<(), String> {
    // Cargo is started in the checkout, but a relative path is meant from where the user stands.
    let out = absolute(&demo.out).map_err(|error| format!("error: --out {:?}: {error}", demo.out))?;
    setup::before_building(checkout, &[])?;
    let command = ["run", "--release", "--package", "ediffi-cli", "--features", "draw", "--", "draw"];
    let mut draw = checkout.cargo(&command);
    draw.arg("--out").arg(out);
    if let Some(seed) = demo.seed {
        draw.args(["--seed", &seed.to_string()]);
    }
    draw.args(["--", &demo.prompt]);
    checkout::run(&mut draw, "the demo")
}
