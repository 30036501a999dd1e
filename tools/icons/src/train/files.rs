//! Writing files and the folders that they lie in.

use std::path::Path;

use ediffi_core::files::write_atomic;

use super::Result;

/// Writes a file, and the folder it lies in.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    folder_of(path)?;
    Ok(write_atomic(path, bytes)?)
}

/// Writes `value` as JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write(path, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
}

/// Makes the folder of a file.
pub fn folder_of(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()).into())
        }
        None => Ok(()),
    }
}
