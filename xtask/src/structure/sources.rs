//! The files of the checkout, as the checks see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders that hold nothing of the project: what is built, and what training leaves.
const NOT_OURS: [&str; 2] = ["target", "runs"];

/// Every file by its path from the root, with `/` between folders. Only the files that are checked have their text.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Reads the checkout at `root`. Hidden folders are left out.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut sources = Self::default();
        sources.add(root, "")?;
        Ok(sources)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> Result<(), String> {
        let cannot = |error| format!("error: cannot read {}: {error}", folder.display());
        for entry in fs::read_dir(folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if name.starts_with('.') || NOT_OURS.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type().map_err(cannot)?.is_dir() {
                self.add(&entry.path(), &format!("{path}/"))?;
            } else {
                let checked = [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end));
                let text = if checked { fs::read_to_string(entry.path()).map_err(cannot)? } else { String::new() };
                self.0.insert(path, text);
            }
        }
        Ok(())
    }

    /// The text of a file; `None` if there is no such file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Whether there is such a file or folder; the root is `""`.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.0.contains_key(path) || self.under(&folder).next().is_some()
    }

    /// Path and text of the files whose path starts with `prefix`, in order.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.0.range(prefix.to_owned()..).take_while(move |(path, _)| path.starts_with(prefix));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Path and text of all files with this ending.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.under("").filter(move |(path, _)| path.ends_with(end))
    }
}

/// The path `relative`, seen from `folder`; `None` if it leaves the checkout.
pub(crate) fn join(folder: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The folder that a file is in; `""` is the root.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Sources {
    /// A tree made up for a test.
    fn from(files: [(&str, &str); N]) -> Self {
        Self(files.map(|(path, text)| (path.to_owned(), text.to_owned())).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_their_folders_exist() {
        let sources = Sources::from([("docs/a.md", ""), ("docs-old/b.md", "")]);
        for path in ["", "docs", "docs/a.md", "docs-old"] {
            assert!(sources.exists(path), "{path}");
        }
        for path in ["doc", "docs/a", "docs/a.md/x"] {
            assert!(!sources.exists(path), "{path}");
        }
    }

    #[test]
    fn paths_are_joined_inside_the_checkout() {
        assert_eq!(join("docs/results", "../images/a.png").as_deref(), Some("docs/images/a.png"));
        assert_eq!(join("docs", "..").as_deref(), Some(""));
        assert_eq!(join("docs", "../../x"), None);
        assert_eq!((folder_of("docs/a.md"), folder_of("README.md")), ("docs", ""));
    }
}
