//! The files of the project, as the checks see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use relative_path::RelativePath;

/// Every file by its path from the root, with `/` between folders. Only the files that are checked have their text.
pub(crate) struct Files(pub(crate) BTreeMap<String, String>);

impl Files {
    /// Reads what Git knows in the checkout at `root`, and what it does not know yet and does not ignore.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let git = Command::new("git").current_dir(root).args(list).stderr(Stdio::inherit()).output();
        let git = git.ok().filter(|git| git.status.success()).ok_or("`git ls-files` failed")?;
        let mut files = BTreeMap::new();
        // A file that was deleted since is still listed.
        for path in String::from_utf8_lossy(&git.stdout).split('\0').filter(|path| root.join(path).is_file()) {
            let checked = path.ends_with(".rs") || path.ends_with(".md");
            let text = if checked { fs::read_to_string(root.join(path)) } else { Ok(String::new()) };
            files.insert(path.to_owned(), text.map_err(|error| format!("cannot read {path}: {error}"))?);
        }
        Ok(Self(files))
    }

    /// Whether there is such a file or folder; the root is `""`.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty() || self.0.keys().any(|file| file == path || file.starts_with(&folder))
    }

    /// Path and text of all files with this ending.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().map(|(path, text)| (&**path, &**text)).filter(move |(path, _)| path.ends_with(end))
    }
}

/// The path `relative`, seen from `folder`. If it leaves the checkout, it begins with `..`.
pub(crate) fn join(folder: &str, relative: &str) -> String {
    RelativePath::new(folder).join_normalized(relative).into_string()
}

/// The folder that a file is in; `""` is the root.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Files {
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
        let files = Files::from([("docs/a.md", ""), ("docs-old/b.md", "")]);
        for path in ["", "docs", "docs/a.md", "docs-old"] {
            assert!(files.exists(path), "{path}");
        }
        for path in ["doc", "docs/a", "docs/a.md/x"] {
            assert!(!files.exists(path), "{path}");
        }
    }

    #[test]
    fn paths_are_joined_inside_the_checkout() {
        assert_eq!(join("docs/results", "../images/./a.png"), "docs/images/a.png");
        assert_eq!(join(folder_of("docs/a.md"), ".."), "");
        assert_eq!(join("docs", "../../x"), "../x");
    }
}
