//! How programs find the libraries when they are started.

use std::path::{Path, PathBuf};

/// How each flag of [`rpath`] begins. Programs look for libtorch beside themselves first, so that a folder with a program and the
/// libraries can be taken elsewhere.
pub const RPATH: &str =
    if cfg!(target_os = "macos") { "-Wl,-rpath,@executable_path,-rpath," } else { "-Wl,-rpath,$ORIGIN:" };

/// The argument of the linker by which programs find the libtorch in `torch`; `None` where there is no such argument.
///
/// # Errors
/// The character of the path that a linker would take for its end.
pub fn rpath(torch: &Path) -> Result<Option<String>, char> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let shown = torch.display().to_string();
    // There is no way to quote them.
    match shown.chars().find(|&character| character == ',' || character == ':') {
        Some(end) => Err(end),
        None => Ok(Some(format!("{RPATH}{shown}/lib"))),
    }
}

/// That argument for programs of a package in whose build script this is asked, if `LIBTORCH` says where libtorch is.
#[must_use]
pub fn of_programs() -> Option<String> {
    rpath(&PathBuf::from(std::env::var_os("LIBTORCH")?)).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_folder_of_the_program_comes_first() {
        assert_eq!(rpath(Path::new("/a b/torch")), Ok(Some("-Wl,-rpath,$ORIGIN:/a b/torch/lib".to_owned())));
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_would_end_early_is_refused() {
        assert_eq!((rpath(Path::new("/a,b")), rpath(Path::new("/a:b"))), (Err(','), Err(':')));
    }
}
