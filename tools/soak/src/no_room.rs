//! A training on a full disk and on one that may not be written.

use std::process::Command;

use crate::child;
use crate::report::Outcome;
use crate::result::Result;

/// Trains in a file system without room and in one that is read-only. It takes root to make them.
pub fn run() -> Result<Outcome> {
    let mut outcome =
        Outcome { done: "a training on a full disk and on a read-only one".to_owned(), ..Outcome::default() };
    for (what, options) in [("full", "size=8k"), ("read-only", "ro")] {
        let folder = tempfile::tempdir()?;
        let mount = |arguments: &[&str]| Command::new(arguments[0]).args(&arguments[1..]).arg(folder.path()).output();
        if !mount(&["mount", "-t", "tmpfs", "-o", options, "tmpfs"]).is_ok_and(|output| output.status.success()) {
            outcome.seen = "not tried: this takes root".to_owned();
            return Ok(outcome);
        }
        let output = child::command("train", folder.path())?.output();
        mount(&["umount"])?;
        let output = output?;
        if let Some(fault) = child::unlike_an_error(&output) {
            outcome.faults.push(format!("{what}: {fault}"));
        }
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if !told.contains(&*folder.path().to_string_lossy()) {
            outcome.faults.push(format!("{what}: the error names no file: {}", told.trim()));
        }
    }
    outcome.seen = "each ends with an error that names the file".to_owned();
    Ok(outcome)
}
