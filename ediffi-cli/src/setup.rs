//! `ediffi setup`: libtorch for a program that uses ediffi, and what Cargo has to know of it.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf, absolute};

use clap::Args;
use ediffi_libtorch::{Extent, Need, Source, VERSION, install};
use etcetera::HomeDirError;
use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

use crate::cargo_config;
use crate::refused::Refused;
use crate::tell::tell;

/// Install libtorch into your cache, and say how Cargo finds it.
///
/// If LIBTORCH is set, it is used instead, and nothing is installed.
#[derive(Args)]
pub(crate) struct Setup {
    /// Write the lines into the project's .cargo/config.toml.
    ///
    /// The project is the one in this folder. Without this the lines are printed.
    #[arg(long)]
    write: bool,
    /// Print nothing but libtorch's folder.
    ///
    /// For `LIBTORCH=$(ediffi setup --print-folder) cargo install …`, which reads no project's lines.
    #[arg(long, conflicts_with = "write")]
    print_folder: bool,
    /// The folder of the project.
    #[arg(long, default_value = ".", requires = "write", value_name = "FOLDER")]
    project: PathBuf,
    /// Where to install instead of your cache.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Install the CUDA libraries, too (two to three GB).
    #[arg(long)]
    cuda: bool,
}

impl Setup {
    pub(crate) fn run(&self) -> Result<(), Box<dyn Error>> {
        if self.write && !self.project.join("Cargo.toml").is_file() {
            let reason = format!("{} has no Cargo.toml: --project names the project's folder", self.project.display());
            return Err(Refused(reason).into());
        }
        let folder = match &self.folder {
            Some(folder) => absolute(folder)?,
            None => cache().map_err(|error| format!("{error}: choose a folder with --folder"))?,
        };
        let source = Source::from_env(&folder.join("torch"));
        let extent = if self.cuda { Extent::Cuda } else { Extent::Cpu };
        let ready = install(&source, &folder, extent, &[Need::Compiler], &|line| tell(line))?;
        tell(&ready.what);
        let Some(torch) = ready.torch else {
            tell("Cargo needs no settings as long as LIBTORCH_USE_PYTORCH stays set");
            return Ok(());
        };
        let out = |lines: &str| {
            std::io::stdout().write_all(lines.as_bytes()).map_err(|error| format!("standard output: {error}"))
        };
        if self.write {
            self.write(&torch)
        } else if self.print_folder {
            Ok(out(&format!("{}\n", torch.display()))?)
        } else {
            tell("put these lines into .cargo/config.toml of your project (`ediffi setup --write` does it):\n");
            Ok(out(&cargo_config::with("", &torch)?)?)
        }
    }

    fn write(&self, torch: &Path) -> Result<(), Box<dyn Error>> {
        let file = self.project.join(".cargo/config.toml");
        let at_file = |error: &dyn Error| format!("{}: {error}", file.display());
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| at_file(&error))?,
        };
        let new = cargo_config::with(&text, torch).map_err(|error| at_file(&*error))?;
        if new == text {
            tell(&format!("{} says where it is already", file.display()));
            return Ok(());
        }
        let (folder, temporary) = (self.project.join(".cargo"), self.project.join(".cargo/config.toml.tmp"));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&temporary, new));
        written.and_then(|()| std::fs::rename(&temporary, &file)).map_err(|error| at_file(&error))?;
        tell(&format!("{} says where it is: cargo run", file.display()));
        Ok(())
    }
}

/// One folder for each version: programs that were built with an earlier one still find theirs.
fn cache() -> Result<PathBuf, HomeDirError> {
    Ok(choose_native_strategy()?.cache_dir().join("ediffi").join(format!("libtorch-{VERSION}")))
}
