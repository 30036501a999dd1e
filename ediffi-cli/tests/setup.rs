//! `ediffi setup`, run as a program beside a libtorch that is made up.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder with a project and a libtorch of one version.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(version: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let library = format!("{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        fs::create_dir_all(place.torch().join("lib")).unwrap();
        fs::write(place.torch().join("lib").join(library), "").unwrap();
        fs::write(place.torch().join("build-version"), version).unwrap();
        fs::create_dir(place.project()).unwrap();
        fs::write(place.project().join("Cargo.toml"), "[package]\n").unwrap();
        place
    }

    fn torch(&self) -> PathBuf {
        self.folder.path().join("torch")
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn config(&self) -> PathBuf {
        self.project().join(".cargo/config.toml")
    }

    /// Whether it ended well, and what it wrote to either output.
    fn setup(&self, arguments: &[&str], at: &Path) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ediffi"));
        // `true` stands for a compiler, of which it is asked only whether it starts.
        command.arg("setup").args(arguments).current_dir(at).env("LIBTORCH", self.torch()).env("CXX", "true");
        let output = command.env_remove("LIBTORCH_USE_PYTORCH").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn the_lines_are_printed_and_nothing_is_written() {
    let place = Place::new("2.11.0+cpu");
    let (well, lines, status) = place.setup(&[], &place.project());
    assert!(well, "{status}");
    assert!(lines.contains("[env]\nLIBTORCH = ") && lines.contains(&place.torch().display().to_string()), "{lines}");
    assert!(status.contains("libtorch 2.11.0"), "{status}");
    assert!(!place.config().exists());
}

/// For `LIBTORCH=$(ediffi setup --print-folder) cargo install …`.
#[test]
fn the_folder_alone_can_be_printed() {
    let place = Place::new("2.11.0");
    let (well, printed, status) = place.setup(&["--print-folder"], place.folder.path());
    assert!(well && printed == format!("{}\n", place.torch().display()), "{printed}{status}");
    assert!(!place.setup(&["--print-folder", "--write"], &place.project()).0);
}

#[test]
fn what_is_written_is_what_is_printed_and_a_second_time_changes_nothing() {
    let place = Place::new("2.11.0");
    let (_, lines, _) = place.setup(&[], &place.project());
    for _ in 0..2 {
        let (well, printed, status) = place.setup(&["--write"], &place.project());
        assert!(well && printed.is_empty(), "{printed}{status}");
        assert_eq!(fs::read_to_string(place.config()).unwrap(), lines);
    }
    assert_eq!(fs::read_dir(place.project().join(".cargo")).unwrap().count(), 1);
}

#[test]
fn another_folder_can_be_the_project() {
    let place = Place::new("2.11.0");
    assert!(place.setup(&["--write", "--project", "project"], place.folder.path()).0);
    assert!(place.config().is_file());
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let wrong_version = Place::new("2.10.0");
    let (well, _, status) = wrong_version.setup(&["--write"], &wrong_version.project());
    assert!(!well && status.contains("2.10.0") && status.contains("2.11.0"), "{status}");
    assert!(!wrong_version.config().exists());

    let place = Place::new("2.11.0");
    let (well, _, status) = place.setup(&["--cuda"], &place.project());
    assert!(!well && status.contains("without CUDA"), "{status}");
    let (well, _, status) = place.setup(&["--write"], place.folder.path());
    assert!(!well && status.contains("no Cargo.toml"), "{status}");
    // The arguments are at fault.
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_ediffi"));
    elsewhere.args(["setup", "--write", "--project", "nowhere"]).current_dir(place.folder.path());
    assert_eq!(elsewhere.output().unwrap().status.code(), Some(2));
    fs::create_dir(place.project().join(".cargo")).unwrap();
    fs::write(place.config(), "[env\n").unwrap();
    let (well, _, status) = place.setup(&["--write"], &place.project());
    assert!(!well && status.contains("config.toml") && status.contains("TOML"), "{status}");
    assert_eq!(fs::read_to_string(place.config()).unwrap(), "[env\n");
}
