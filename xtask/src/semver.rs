//! `cargo xtask semver`: the public interface of every library crate against the last tag or another revision, by `cargo-semver-checks`.
//!
//! Both versions are documented for it, and every dependency of both is checked. So it is no step of `cargo xtask ci`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};
use crate::packages::PACKAGES;
use crate::setup;

/// The version whose rules were looked at. It reads what this Rust says of a crate; a newer Rust may need a newer one.
const VERSION: &str = "0.51.0";

/// The one package that is no library.
const PROGRAM: &str = "ediffi-cli";

/// Packages with the feature `hub`. (`download-libtorch`, the other one there is, adds nothing to an interface.)
const WITH_HUB: [&str; 2] = ["ediffi", "ediffi-encoders"];

/// Compares with `against`; without it with the last tag.
pub(crate) fn run(checkout: &Checkout, against: Option<&str>) -> Result<(), String> {
    let against = match against {
        Some(revision) => commit(checkout, revision)?,
        None => last_tag(checkout)?,
    };
    setup::before_building(checkout, &[])?;
    let program = program(checkout)?;
    let (with_hub, without): (Vec<&str>, Vec<&str>) =
        PACKAGES.into_iter().filter(|name| *name != PROGRAM).partition(|name| WITH_HUB.contains(name));
    for (packages, features) in [(without, &[][..]), (with_hub, &["--features", "hub"])] {
        let mut check = Command::new(&program);
        // Cargo's own words for a program that is called as `cargo semver-checks`.
        check.args(["semver-checks", "check-release", "--baseline-rev", &against, "--only-explicit-features"]);
        check.args(features).args(packages.iter().flat_map(|name| ["--package", name]));
        checkout::run(check.current_dir(checkout.root()), &format!("cargo-semver-checks against {against}"))?;
    }
    Ok(())
}

/// The last tag before this commit.
fn last_tag(checkout: &Checkout) -> Result<String, String> {
    git(checkout, &["describe", "--tags", "--abbrev=0"]).ok_or_else(|| {
        "error: no commit before this one has a tag: nothing was released that a change could break. \
         `cargo xtask semver --against REV` compares with any revision"
            .to_owned()
    })
}

/// The commit that `revision` means.
fn commit(checkout: &Checkout, revision: &str) -> Result<String, String> {
    let means = format!("{revision}^{{commit}}");
    git(checkout, &["rev-parse", "--verify", "--quiet", "--end-of-options", &means])
        .ok_or_else(|| format!("error: Git knows no revision {revision:?}"))
}

/// What Git answers, if it is content.
fn git(checkout: &Checkout, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).current_dir(checkout.root()).stderr(Stdio::null()).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned()).filter(|answer| !answer.is_empty())
}

/// The user's own, or else the one in `.tools`, which is compiled if it is not there.
fn program(checkout: &Checkout) -> Result<PathBuf, String> {
    let right = |program: &Path| {
        let answer = Command::new(program).args(["semver-checks", "--version"]).stderr(Stdio::null()).output();
        answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim_end().ends_with(VERSION))
    };
    let folder = checkout.root().join(".tools/semver");
    let compiled = folder.join("bin").join(format!("cargo-semver-checks{}", std::env::consts::EXE_SUFFIX));
    if let Some(found) = [PathBuf::from("cargo-semver-checks"), compiled.clone()].into_iter().find(|path| right(path)) {
        return Ok(found);
    }
    let mut cargo = checkout.cargo(&["install", "cargo-semver-checks", "--locked", "--version", VERSION, "--root"]);
    checkout::run(cargo.arg(&folder), "cargo install cargo-semver-checks")?;
    Ok(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_a_package_and_so_are_those_with_a_hub() {
        assert!([PROGRAM, WITH_HUB[0], WITH_HUB[1]].iter().all(|name| PACKAGES.contains(name)));
    }

    #[test]
    fn a_revision_that_is_none_is_named() {
        let checkout = Checkout::from_env().unwrap();
        let error = run(&checkout, Some("no-such-revision")).unwrap_err();
        assert!(error.contains("no-such-revision"), "{error}");
    }
}
