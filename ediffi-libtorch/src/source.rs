//! Where libtorch comes from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where libtorch comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An installation that [`install`](crate::install()) makes.
    Own,
    /// The folder that the user's own `LIBTORCH` names.
    User(PathBuf),
    /// The user's own `LIBTORCH_USE_PYTORCH`: the PyTorch that `python3` imports.
    Python,
}

impl Source {
    /// Reads the environment. A `LIBTORCH` that names `own`, the folder of our own installation, was not set by the user: Cargo
    /// sets it from `.cargo/config.toml`.
    #[must_use]
    pub fn from_env(own: &Path) -> Self {
        Self::choose(own, std::env::var_os("LIBTORCH"), std::env::var_os("LIBTORCH_USE_PYTORCH").is_some())
    }

    fn choose(own: &Path, libtorch: Option<OsString>, use_pytorch: bool) -> Self {
        if use_pytorch {
            return Self::Python;
        }
        match libtorch.map(PathBuf::from) {
            Some(folder) if folder != own => Self::User(folder),
            _ => Self::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_own_libtorch_is_not_the_users() {
        let own = Path::new("/src/ediffi/.libtorch/torch");
        let choose = |libtorch: Option<&str>| Source::choose(own, libtorch.map(OsString::from), false);
        assert_eq!(choose(Some("/src/ediffi/.libtorch/torch")), Source::Own);
        assert_eq!(choose(None), Source::Own);
        assert_eq!(choose(Some("/opt/libtorch")), Source::User("/opt/libtorch".into()));
        assert_eq!(Source::choose(own, Some("/opt/libtorch".into()), true), Source::Python);
    }
}
