//! `cargo xtask soak`: a worker and a training for a long time, under kills and damage.

use crate::checkout::{self, Checkout};
use crate::setup;

/// Runs `tools/soak` with the arguments.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> Result<(), String> {
    setup::before_building(checkout, &[])?;
    let mut soak = checkout.cargo(&["run", "--release", "--package", "soak", "--"]);
    checkout::run(soak.args(arguments), "the soak")
}
