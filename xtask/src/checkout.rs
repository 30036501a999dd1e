//! The checkout, and the programs started in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use ediffi_libtorch::Source;

/// The folder with the workspace's `Cargo.toml`.
#[derive(Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
    libtorch: Source,
}

impl Checkout {
    /// The checkout that `cargo xtask` was started in.
    pub(crate) fn from_env() -> Result<Self, String> {
        // Cargo sets the variable when it runs this program; the compiled-in path would outlive a moved checkout.
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().ok_or_else(|| format!("error: {} has no parent folder", manifest.display()))?;
        let libtorch = Source::from_env(&root.join(".libtorch/torch"));
        Ok(Self { root: root.to_owned(), libtorch })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where Cargo builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |folder| self.root.join(folder))
    }

    /// Where libtorch comes from.
    pub(crate) fn libtorch(&self) -> &Source {
        &self.libtorch
    }

    /// A Cargo command that sees the environment a user's own `cargo` would see, so that both share one build.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&self.root);
        if matches!(self.libtorch, Source::Own) {
            // The value in our environment was put there by `.cargo/config.toml`, and will be again.
            command.env_remove("LIBTORCH");
        }
        command
    }
}

/// Runs a command to its end; `what` names it if it fails.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let status = command.status().map_err(|error| format!("error: cannot start {}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("error: {what} failed ({status})")) }
}
