//! `cargo xtask cuda-pack`: what tests this library on a machine with a GPU and no Rust.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};
use crate::setup;

/// Where the pack is put, in the checkout.
const FOLDER: &str = "cuda-pack";
/// The tests that compute on a CUDA device where there is one: packages, and their tests.
const SUITES: [(&str, &[&str]); 5] = [
    ("ediffi", &["cuda"]),
    ("ediffi-core", &["cuda_order", "deepfloyd", "ediffi", "norms", "solver_contract", "solver_order", "weights"]),
    ("ediffi-encoders", &["half", "layers", "parity"]),
    ("ediffi-paint", &["attention", "networks"]),
    ("ediffi-train", &["fit", "state"]),
];

/// What they read.
const DATA: [&str; 3] = ["models/icons", "ediffi-core/tests/fixtures", "ediffi-encoders/tests/fixtures"];

/// Builds the tests, strips them, and packs them with what they read and a script that runs them.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    setup::before_building(checkout, &[])?;
    let folder = checkout.root().join(FOLDER);
    let files = folder.join("files");
    let failed = |what: &Path, error: std::io::Error| format!("error: {}: {error}", what.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| failed(&folder, error))?;
    }
    let bin = files.join("bin");
    fs::create_dir_all(&bin).map_err(|error| failed(&bin, error))?;
    for (package, tests) in SUITES {
        for (name, built) in build(checkout, package, tests)? {
            let stripped = bin.join(format!("{package}-{name}"));
            checkout::run(Command::new("strip").arg("-o").arg(&stripped).arg(&built), "strip")?;
        }
    }
    let pack = folder.join("pack.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&pack).arg("-C").arg(&files).arg("bin").arg("-C").arg(checkout.root()).args(DATA);
    checkout::run(&mut tar, "tar")?;
    fs::remove_dir_all(&files).map_err(|error| failed(&files, error))?;
    let script = include_str!("cuda_pack.sh").replace("@BUILT@", &checkout.root().display().to_string());
    let path = folder.join("run.sh");
    fs::write(&path, script).map_err(|error| failed(&path, error))?;
    let bytes = fs::metadata(&pack).map_err(|error| failed(&pack, error))?.len();
    println!("{} ({} MB); there: sh {FOLDER}/run.sh", folder.display(), bytes / 1_000_000);
    Ok(())
}

/// Builds tests of a package: the name and the file of each.
fn build(checkout: &Checkout, package: &str, tests: &[&str]) -> Result<Vec<(String, PathBuf)>, String> {
    let mut cargo = checkout.cargo(&["test", "--color", "never", "--no-run", "--package", package]);
    for test in tests {
        cargo.args(["--test", test]);
    }
    let output =
        cargo.stderr(Stdio::piped()).output().map_err(|error| format!("error: cannot start cargo: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{said}error: building the tests of {package} failed ({})", output.status));
    }
    let built: Vec<_> =
        said.lines().filter_map(executable).map(|(name, path)| (name, checkout.root().join(path))).collect();
    if built.len() == tests.len() {
        Ok(built)
    } else {
        Err(format!("{said}error: cargo built {} of the {} tests of {package}", built.len(), tests.len()))
    }
}

/// Reads a line of cargo, `  Executable tests/cuda.rs (target/debug/deps/cuda-0123)`: the test's name and its file.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let (source, path) = line.trim().strip_prefix("Executable ")?.split_once(" (")?;
    let source = Path::new(source);
    // A test of several files is named after its folder.
    let named = if source.file_name()? == "main.rs" { source.parent()?.file_name()? } else { source.file_stem()? };
    Some((named.to_str()?.to_owned(), PathBuf::from(path.strip_suffix(')')?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_tests_are_found_in_what_cargo_says() {
        let line = "  Executable tests/cuda.rs (target/debug/deps/cuda-0123)";
        assert_eq!(executable(line), Some(("cuda".to_owned(), PathBuf::from("target/debug/deps/cuda-0123"))));
        let line = "  Executable tests/pipeline/main.rs (target/debug/deps/pipeline-45)";
        assert_eq!(executable(line), Some(("pipeline".to_owned(), PathBuf::from("target/debug/deps/pipeline-45"))));
        assert_eq!(executable("   Compiling ediffi v0.1.0 (/a)"), None);
    }
}
