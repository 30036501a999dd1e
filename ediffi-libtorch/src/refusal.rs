//! What the build script says where `torch-sys` would not find libtorch.

use std::path::{Path, PathBuf};

use crate::pair::VERSION;
use crate::version;

/// What decides where `torch-sys` takes libtorch from.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// `LIBTORCH_USE_PYTORCH`: it asks `python3`.
    pub(crate) python: bool,
    /// `LIBTORCH`.
    pub(crate) libtorch: Option<PathBuf>,
    /// `LIBTORCH_LIB` or `LIBTORCH_INCLUDE`: a libtorch in several places, for people who know what they do.
    pub(crate) parts: bool,
    /// `LIBTORCH_BYPASS_VERSION_CHECK`.
    pub(crate) any_version: bool,
    /// There is a `/usr/lib/libtorch.so`.
    pub(crate) system: bool,
    /// The feature `download-libtorch`.
    pub(crate) download: bool,
    /// `DOCS_RS`: nothing is linked, and libtorch is not looked for.
    pub(crate) docs: bool,
}

impl Seen {
    /// Why the build cannot succeed, line by line, and what to do.
    pub(crate) fn refusal(&self) -> Option<Vec<String>> {
        if self.docs || self.python || self.parts {
            return None;
        }
        let reason = match &self.libtorch {
            Some(folder) => match version::check(folder, false) {
                Err(crate::error::Error::Version { .. }) if self.any_version => return None,
                Err(error) => error.to_string(),
                Ok(_) => return None,
            },
            None if self.system || self.download => return None,
            None => format!("LIBTORCH is not set, but ediffi is built against libtorch {VERSION}"),
        };
        Some(vec![
            reason,
            "`cargo install ediffi-cli`, then `ediffi setup --write` in the folder of your Cargo.toml: it downloads libtorch once \
             and tells Cargo where it is"
                .to_owned(),
            format!("or set LIBTORCH to the absolute path of a libtorch {VERSION}, or turn the feature `download-libtorch` on"),
        ])
    }
}

/// What there is on this machine; `var` looks into the environment.
pub(crate) fn look(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Seen {
    let set = |name: &str| var(name).is_some();
    Seen {
        python: set("LIBTORCH_USE_PYTORCH"),
        libtorch: var("LIBTORCH").map(PathBuf::from),
        parts: set("LIBTORCH_LIB") || set("LIBTORCH_INCLUDE"),
        any_version: set("LIBTORCH_BYPASS_VERSION_CHECK"),
        system: Path::new("/usr/lib/libtorch.so").exists(),
        download: set("CARGO_FEATURE_DOWNLOAD_LIBTORCH"),
        docs: set("DOCS_RS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seen: &Seen) -> String {
        let lines = seen.refusal().unwrap();
        assert!(
            lines[1].contains("ediffi setup --write") && lines.iter().all(|line| !line.contains('\n')),
            "{lines:?}"
        );
        lines[0].clone()
    }

    #[test]
    fn what_torch_sys_would_find_is_let_through() {
        for seen in [
            Seen { python: true, ..Seen::default() },
            Seen { system: true, ..Seen::default() },
            Seen { download: true, ..Seen::default() },
            Seen { docs: true, ..Seen::default() },
            Seen { parts: true, libtorch: Some("/nowhere".into()), ..Seen::default() },
        ] {
            assert_eq!(seen.refusal(), None, "{seen:?}");
        }
    }

    #[test]
    fn what_it_would_not_find_is_named_with_what_to_do() {
        assert!(first(&Seen::default()).contains("LIBTORCH is not set"));
        // It takes LIBTORCH before all else.
        let wrong = Seen { libtorch: Some("/nowhere".into()), system: true, download: true, ..Seen::default() };
        assert!(first(&wrong).contains("/nowhere"));
        assert!(first(&Seen { libtorch: Some("libtorch".into()), ..Seen::default() }).contains("absolute"));
    }

    #[test]
    fn another_version_is_refused_unless_the_user_insists() {
        let folder = std::env::temp_dir().join(format!("ediffi-libtorch-refusal-{}", std::process::id()));
        let library = format!("{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        std::fs::write(folder.join("lib").join(library), "").unwrap();
        std::fs::write(folder.join("version.py"), "__version__ = '2.13.0+cpu'\n").unwrap();
        let seen = |any_version| Seen { libtorch: Some(folder.clone()), any_version, ..Seen::default() };
        assert!(first(&seen(false)).contains("libtorch 2.13.0, but 2.11.0 is needed"));
        assert_eq!(seen(true).refusal(), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_environment_is_read_by_name() {
        let seen = look(|name| (name == "LIBTORCH").then(|| "/opt/libtorch".into()));
        assert_eq!(seen.libtorch.as_deref(), Some(Path::new("/opt/libtorch")));
        assert!(!seen.python && !seen.parts && !seen.any_version && !seen.download && !seen.docs);
        let all = look(|_| Some("1".into()));
        assert!(all.python && all.parts && all.any_version && all.download && all.docs);
    }
}
