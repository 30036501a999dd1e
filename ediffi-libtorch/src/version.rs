//! Whether a folder holds the libtorch that is needed.

use std::path::Path;

use crate::error::Error;
use crate::pair::VERSION;

/// Whether the folder holds the library of this name (`torch_cpu`, `torch_cuda`).
#[must_use]
pub fn has_library(folder: &Path, name: &str) -> bool {
    let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    folder.join("lib").join(file).is_file()
}

/// The version of the libtorch in the folder, without what follows a `+`; `None` if no file there tells it.
#[must_use]
pub fn version_of(folder: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    read("build-version")
        .and_then(|text| text.lines().next().and_then(release))
        .or_else(|| read("version.py").and_then(|text| version_in_python(&text)))
        .or_else(|| read("include/torch/headeronly/version.h").and_then(|text| version_in_header(&text)))
}

/// Checks a folder that the user chose, and returns the version of the libtorch in it, where that can be told.
///
/// # Errors
/// [`Error::Relative`], [`Error::NotLibtorch`], [`Error::WithoutCuda`] if `cuda` is asked for, [`Error::Version`].
pub fn check(folder: &Path, cuda: bool) -> Result<Option<String>, Error> {
    if folder.is_relative() {
        return Err(Error::Relative(folder.to_owned()));
    }
    if !has_library(folder, "torch_cpu") {
        return Err(Error::NotLibtorch(folder.to_owned()));
    }
    if cuda && !has_library(folder, "torch_cuda") {
        return Err(Error::WithoutCuda(folder.to_owned()));
    }
    match version_of(folder) {
        Some(found) if found != VERSION => Err(Error::Version { folder: folder.to_owned(), found }),
        found => Ok(found),
    }
}

/// `2.11.0+cu130` → `2.11.0`
fn release(version: &str) -> Option<String> {
    let release = version.trim().split('+').next()?;
    (!release.is_empty()).then(|| release.to_owned())
}

fn version_in_python(text: &str) -> Option<String> {
    let mut assignments = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = assignments.find(|(name, _)| name.trim() == "__version__")?;
    release(value.trim().trim_matches(['\'', '"']))
}

fn version_in_header(text: &str) -> Option<String> {
    // The string may stand on the line after the name, behind a backslash.
    let (_, rest) = text.split_once("#define TORCH_VERSION ")?;
    release(rest.split('"').nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_python_and_from_the_header() {
        let python =
            "from typing import Optional\n\n__all__ = ['__version__', 'debug']\n__version__ = '2.11.0+cu130'\n";
        assert_eq!(version_in_python(python).as_deref(), Some("2.11.0"));
        assert_eq!(version_in_python("debug = False\n"), None);
        let header = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        assert_eq!(version_in_header(header).as_deref(), Some("2.11.0"));
        assert_eq!(version_in_header("#define TORCH_VERSION_MAJOR 2\n"), None);
    }

    fn refusal(folder: &Path, cuda: bool) -> String {
        check(folder, cuda).unwrap_err().to_string()
    }

    #[test]
    fn a_users_folder_is_checked_before_anything_is_built() {
        let folder = std::env::temp_dir().join(format!("ediffi-libtorch-version-{}", std::process::id()));
        let file = |name: &str| format!("lib/{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        std::fs::create_dir_all(folder.join("lib")).unwrap();

        assert!(refusal(&folder, false).contains("no libtorch there"));
        write(&file("torch_cpu"), "");
        assert_eq!(check(&folder, false).unwrap(), None);
        write("build-version", "2.10.0+cpu\n");
        assert!(refusal(&folder, false).contains("2.10.0"));
        write("build-version", "2.11.0+cpu\n");
        assert_eq!(check(&folder, false).unwrap().as_deref(), Some(VERSION));
        assert!(refusal(&folder, true).contains("without CUDA"));
        write(&file("torch_cuda"), "");
        assert!(check(&folder, true).is_ok());

        std::fs::remove_dir_all(&folder).unwrap();
        assert!(refusal(Path::new("libtorch"), false).contains("absolute"));
    }
}
