//! A folder of a process, for readers that open files.

use std::path::{Path, PathBuf};

/// A folder in which one file or a few are written anew for each input. It lies where `TMPDIR` says, and stays when the program ends:
/// `cargo xtask fuzz` removes it.
#[derive(Debug)]
pub struct Room(PathBuf);

impl Room {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("ediffi-fuzz-{}", std::process::id()));
        make(&folder);
        Self(folder)
    }

    /// A folder with copies of these files: what each is copied from, and its name there.
    #[must_use]
    pub fn with(files: &[(&str, &str)]) -> Self {
        let room = Self::new();
        for (from, to) in files {
            let from = fixture(from);
            let bytes = std::fs::read(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            room.put(to, &bytes);
        }
        room
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and says where it is.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        path.parent().into_iter().for_each(make);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

fn make(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// A file of the checkout.
#[must_use]
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
