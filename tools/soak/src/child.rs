//! This program as a child, which may be killed or may crash.

use std::path::Path;
use std::process::{Command, Output};

use crate::result::Result;

/// The command that runs this program with these arguments.
pub fn command(name: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).arg(folder);
    Ok(command)
}

/// How an end should have been, and was not: a child that was not ended by a typed error.
pub fn unlike_an_error(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(1) if text.starts_with("error: ") && !text.contains("panicked") => None,
        Some(0) => Some("it was taken".to_owned()),
        Some(code) => Some(format!("exit code {code}: {}", text.trim())),
        None => Some(format!("{}: {}", output.status, text.trim())),
    }
}
