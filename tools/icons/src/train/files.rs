//! Files that are whole whenever they are there.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::Result;

/// Writes a file under another name, waits until it is on the disk, and renames it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    folder_of(path)?;
    let temporary = path.with_added_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|error| {
        // What was written of it is of no use; that it cannot be removed either says no more than the first error.
        let _ = std::fs::remove_file(&temporary);
        format!("{}: {error}", path.display()).into()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/plan.toml");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        // A folder in its place: the name is said, and nothing is left behind.
        let error = write(&folder.path().join("deep"), b"three").unwrap_err().to_string();
        assert!(error.contains("deep"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(folder.path().join("deep")).unwrap().count(), 1);
    }
}
