//! Which libtorch is used, and which version it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The version that `tch` 0.24 is generated from: the pair must match.
pub(crate) const VERSION: &str = "2.11.0";

/// Where libtorch comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    /// `.libtorch` of this checkout, which `cargo xtask setup` fills.
    Checkout,
    /// The folder that the user's own `LIBTORCH` names.
    User(PathBuf),
    /// The user's own `LIBTORCH_USE_PYTORCH`: the PyTorch that `python3` imports.
    Python,
}

impl Source {
    /// Reads the environment. Cargo sets `LIBTORCH` itself, from `.cargo/config.toml`, if the user has not.
    pub(crate) fn from_env(root: &Path) -> Self {
        Self::choose(root, std::env::var_os("LIBTORCH"), std::env::var_os("LIBTORCH_USE_PYTORCH").is_some())
    }

    fn choose(root: &Path, libtorch: Option<OsString>, use_pytorch: bool) -> Self {
        if use_pytorch {
            return Self::Python;
        }
        match libtorch.map(PathBuf::from) {
            Some(folder) if folder != root.join(".libtorch/torch") => Self::User(folder),
            _ => Self::Checkout,
        }
    }
}

/// Whether the folder holds the library of this name (`torch_cpu`, `torch_cuda`).
pub(crate) fn has_library(folder: &Path, name: &str) -> bool {
    let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    folder.join("lib").join(file).is_file()
}

/// The version of the libtorch in the folder, without what follows a `+`; `None` if no file there tells it.
pub(crate) fn version_of(folder: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    read("build-version")
        .and_then(|text| text.lines().next().and_then(release))
        .or_else(|| read("version.py").and_then(|text| version_in_python(&text)))
        .or_else(|| read("include/torch/headeronly/version.h").and_then(|text| version_in_header(&text)))
}

/// Checks a folder that the user chose, and says in one line what is in it.
pub(crate) fn check(folder: &Path, cuda: bool) -> Result<String, String> {
    let shown = folder.display();
    if folder.is_relative() {
        return Err(format!("error: LIBTORCH={shown}: give an absolute path; `tch` is built in another folder"));
    }
    if !has_library(folder, "torch_cpu") {
        return Err(format!("error: LIBTORCH={shown}: no libtorch there (lib/ has no torch_cpu library)"));
    }
    if cuda && !has_library(folder, "torch_cuda") {
        return Err(format!("error: LIBTORCH={shown}: a libtorch without CUDA (lib/ has no torch_cuda library)"));
    }
    match version_of(folder) {
        Some(version) if version == VERSION => Ok(format!("libtorch {VERSION} from LIBTORCH={shown}")),
        Some(version) => Err(format!("error: LIBTORCH={shown}: libtorch {version}, but {VERSION} is needed")),
        None => Ok(format!("LIBTORCH={shown}: its version cannot be told; {VERSION} is needed")),
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
    fn cargos_own_libtorch_is_not_the_users() {
        let root = Path::new("/src/ediffi");
        let choose = |libtorch: Option<&str>| Source::choose(root, libtorch.map(OsString::from), false);
        assert_eq!(choose(Some("/src/ediffi/.libtorch/torch")), Source::Checkout);
        assert_eq!(choose(None), Source::Checkout);
        assert_eq!(choose(Some("/opt/libtorch")), Source::User("/opt/libtorch".into()));
        assert_eq!(Source::choose(root, Some("/opt/libtorch".into()), true), Source::Python);
    }

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

    #[test]
    fn a_users_folder_is_checked_before_anything_is_built() {
        let folder = std::env::temp_dir().join(format!("ediffi-xtask-libtorch-{}", std::process::id()));
        let file = |name: &str| format!("lib/{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        std::fs::create_dir_all(folder.join("lib")).unwrap();

        assert!(check(&folder, false).unwrap_err().contains("no libtorch there"));
        write(&file("torch_cpu"), "");
        assert!(check(&folder, false).unwrap().contains("cannot be told"));
        write("build-version", "2.10.0+cpu\n");
        assert!(check(&folder, false).unwrap_err().contains("2.10.0"));
        write("build-version", "2.11.0+cpu\n");
        assert!(check(&folder, false).unwrap().contains("libtorch 2.11.0"));
        assert!(check(&folder, true).unwrap_err().contains("without CUDA"));
        write(&file("torch_cuda"), "");
        assert!(check(&folder, true).is_ok());

        std::fs::remove_dir_all(&folder).unwrap();
        assert!(check(Path::new("libtorch"), false).unwrap_err().contains("absolute"));
    }
}
