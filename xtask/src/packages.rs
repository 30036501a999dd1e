//! The crates as they are published: packaged, and unpacked again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checkout::{self, Checkout};

/// The crates that are published, in the order in which they can be.
pub(crate) const PACKAGES: [&str; 12] = [
    "ediffi-libtorch",
    "ediffi-core",
    "ediffi-encoders",
    "ediffi-cascade",
    "ediffi-paint",
    "ediffi-train",
    "ediffi-cluster",
    "ediffi-data",
    "ediffi",
    "ediffi-trainer",
    "ediffi-server",
    "ediffi-cli",
];

/// The most that one may take, in bytes: no fixture, picture or weights.
const LARGEST: u64 = 1_000_000;

/// A packaged crate.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// The folder in which it is unpacked.
    pub(crate) folder: PathBuf,
}

/// Packages all of them, and unpacks them into folders of `into`.
pub(crate) fn unpack(checkout: &Checkout, into: &Path) -> Result<Vec<Package>, String> {
    // Each would be built on its own to verify it; the program that is built from all of them shows the same in less time.
    let mut cargo = checkout.cargo(&["package", "--quiet", "--locked", "--allow-dirty", "--no-verify"]);
    for name in PACKAGES {
        cargo.args(["--package", name]);
    }
    // Wherever a configuration of Cargo's puts builds (`build.target-dir`).
    cargo.arg("--target-dir").arg(checkout.target());
    // One line for each test that is left out on purpose.
    let output = cargo.output().map_err(|error| format!("error: cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{}error: cargo package failed", String::from_utf8_lossy(&output.stderr)));
    }
    let failed = |path: &Path, error: std::io::Error| format!("error: {}: {error}", path.display());
    if into.exists() {
        fs::remove_dir_all(into).map_err(|error| failed(into, error))?;
    }
    fs::create_dir_all(into).map_err(|error| failed(into, error))?;
    let mut unpacked = Vec::new();
    for name in PACKAGES {
        let whole = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let packed = checkout.target().join("package").join(format!("{whole}.crate"));
        let bytes = fs::metadata(&packed).map_err(|error| failed(&packed, error))?.len();
        if bytes > LARGEST {
            return Err(format!("error: {} has {bytes} bytes, more than {LARGEST}", packed.display()));
        }
        // With the time of now, or Cargo would not see what changed since the last time: packed files are all of one time.
        checkout::run(Command::new("tar").arg("-xzmf").arg(&packed).arg("-C").arg(into), "tar")?;
        unpacked.push(Package { name, folder: into.join(whole) });
    }
    Ok(unpacked)
}

/// What makes Cargo take the libraries of these where it would ask crates.io.
pub(crate) fn patch(packages: &[Package]) -> String {
    let libraries = packages.iter().filter(|package| package.name != "ediffi-cli");
    let lines = libraries.map(|package| format!("{} = {{ path = {:?} }}\n", package.name, package.folder));
    format!("\n[patch.crates-io]\n{}", lines.collect::<String>())
}

/// Makes the packed `Cargo.lock` in `folder` take `name` from wherever it is: with a patch in place of the registry `--locked` would
/// refuse it.
pub(crate) fn lock_without_registry(folder: &Path, name: &str) -> Result<(), String> {
    let path = folder.join("Cargo.lock");
    let failed = |error: std::io::Error| format!("error: {}: {error}", path.display());
    let lock = fs::read_to_string(&path).map_err(failed)?;
    fs::write(&path, without_registry(&lock, name)).map_err(failed)
}

fn without_registry(lock: &str, name: &str) -> String {
    let mut within = false;
    let kept = |line: &&str| {
        if line.starts_with("name = ") {
            within = *line == format!("name = {name:?}");
        }
        !(within && (line.starts_with("source = ") || line.starts_with("checksum = ")))
    };
    lock.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_package_of_a_lock_file_may_be_from_anywhere() {
        let package = |name: &str, from: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\n{from}\n");
        let from = "source = \"registry\"\nchecksum = \"0\"\n";
        let lock = |middle| [package("a", from), package("b", middle), package("c", from)].concat();
        assert_eq!(without_registry(&lock(from), "b"), lock(""));
        assert_eq!(without_registry(&lock(from), "none"), lock(from));
    }

    #[test]
    fn the_libraries_take_the_place_of_those_of_the_registry() {
        let package = |name| Package { name, folder: Path::new("/p").join(name) };
        let patch = patch(&[package("ediffi"), package("ediffi-cli")]);
        assert_eq!(patch, "\n[patch.crates-io]\nediffi = { path = \"/p/ediffi\" }\n");
    }
}
