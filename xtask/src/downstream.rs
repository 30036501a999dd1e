//! `cargo xtask downstream`: what a stranger does who adds ediffi to a program.
//!
//! The road of the README is gone from end to end, but with packages in place of crates.io, and with the libtorch of this
//! checkout: `cargo install ediffi-cli`, `ediffi setup --write`, `cargo build`. The program is started without Cargo, and once more
//! from a folder of its own beside the libraries. Then `cargo install ediffi-cli --features draw` as the guide of first steps has it,
//! and the command draws. No loader path is set, and no `LIBTORCH` but where the guide sets it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ediffi_libtorch::Source;

use crate::checkout::{self, Checkout};
use crate::packages::{self, Package};
use crate::setup;

/// What the build has to say where there is no libtorch.
const ADVICE: &str = "ediffi setup --write";

pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    if matches!(checkout.libtorch(), Source::Python) {
        return Err(
            "error: the road that is gone here has a libtorch in a folder: unset LIBTORCH_USE_PYTORCH".to_owned()
        );
    }
    setup::before_building(checkout, &[])?;
    let target = checkout.target().join("downstream");
    let packages = packages::unpack(checkout, &target.join("packages"))?;
    // Not in the checkout: Cargo would find the checkout's configuration.
    let outside = Outside::new(target)?;
    let result = outside.go(checkout, &packages);
    fs::remove_dir_all(&outside.folder).map_err(|error| failed(&outside.folder, &error))?;
    result
}

/// A folder away from the checkout, and where what is built there goes.
struct Outside {
    folder: PathBuf,
    target: PathBuf,
}

impl Outside {
    fn new(target: PathBuf) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("ediffi-downstream-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        Ok(Self { folder, target })
    }

    fn go(&self, checkout: &Checkout, packages: &[Package]) -> Result<(), String> {
        let project = self.project(checkout, packages)?;
        let cli = packages.iter().find(|package| package.name == "ediffi-cli").ok_or("error: no ediffi-cli")?;
        let libraries = || packages.iter().filter(|package| package.name != cli.name);
        for library in libraries() {
            packages::lock_without_registry(&cli.folder, library.name)?;
        }
        let install = || {
            let mut install = self.cargo(&["install", "--quiet", "--debug", "--locked", "--path"]);
            install.arg(&cli.folder).arg("--root").arg(&self.folder).current_dir(&self.folder);
            // Those of the feature `draw` have to be found, whether they are built or not.
            for package in libraries() {
                install.arg("--config").arg(format!("patch.crates-io.{}.path={:?}", package.name, package.folder));
            }
            install
        };
        checkout::run(&mut install(), "cargo install ediffi-cli")?;

        let setup = |what: &str| {
            let mut setup = Command::new(self.folder.join("bin/ediffi"));
            setup.args(["setup", what, "--folder"]).arg(checkout.root().join(".libtorch")).current_dir(&project);
            if !matches!(checkout.libtorch(), Source::User(_)) {
                setup.env_remove("LIBTORCH");
            }
            setup
        };
        checkout::run(&mut setup("--write"), "ediffi setup")?;
        // In a target folder that is not empty `torch-sys` may be the first to give up; what else can be built is needed anyway.
        let mut wrong = self.cargo(&["build", "--quiet", "--keep-going"]);
        let refused = output(wrong.current_dir(&project).env("LIBTORCH", ""))?;
        let said = String::from_utf8_lossy(&refused.stderr);
        if refused.status.success() || !said.contains(ADVICE) {
            return Err(format!("{said}error: without libtorch the build does not say {ADVICE:?}"));
        }
        checkout::run(self.cargo(&["build", "--quiet"]).current_dir(&project), "building the program")?;

        let program = self.target.join("debug/downstream");
        if !program.is_file() {
            let program = program.display();
            return Err(format!("error: there is no {program}: does a configuration of Cargo's set `build.target`?"));
        }
        let found = self.start(checkout, &program)?;
        eprintln!("downstream: drew a picture with the libtorch in {}", found.display());
        self.take_away(checkout, &program)?;

        let printed = output(&mut setup("--print-folder"))?;
        let libtorch = String::from_utf8_lossy(&printed.stdout).trim_end().to_owned();
        let mut drawing = install();
        drawing.args(["--force", "--features", "draw"]).env("LIBTORCH", &libtorch);
        checkout::run(&mut drawing, "cargo install ediffi-cli --features draw")?;
        self.draw(checkout)
    }

    /// Draws with the command that was installed. It has to find libtorch by itself.
    fn draw(&self, checkout: &Checkout) -> Result<(), String> {
        let picture = self.folder.join("drawn.png");
        let mut draw = Command::new(self.folder.join("bin/ediffi"));
        draw.args(["draw", "a cat", "--last-stage", "base", "--steps", "base=2", "--model"]);
        draw.arg(checkout.root().join("models/icons")).arg("--out").arg(&picture).current_dir(&self.folder);
        checkout::run(draw.env_remove("LD_LIBRARY_PATH").env_remove("LIBTORCH"), "ediffi draw")?;
        if picture.is_file() { Ok(()) } else { Err(format!("error: there is no {}", picture.display())) }
    }

    /// The program of `tools/downstream`, to be built from the packages.
    fn project(&self, checkout: &Checkout, packages: &[Package]) -> Result<PathBuf, String> {
        let (from, project) = (checkout.root().join("tools/downstream"), self.folder.join("project"));
        fs::create_dir_all(project.join("src")).map_err(|error| failed(&project, &error))?;
        let source = from.join("src/main.rs");
        fs::copy(&source, project.join("src/main.rs")).map_err(|error| failed(&source, &error))?;
        let manifest = from.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).map_err(|error| failed(&manifest, &error))?;
        let patched = text + &packages::patch(packages);
        fs::write(project.join("Cargo.toml"), patched).map_err(|error| failed(&project, &error))?;
        // The versions that all else here is tested with.
        let lock = checkout.root().join("Cargo.lock");
        fs::copy(&lock, project.join("Cargo.lock")).map_err(|error| failed(&lock, &error))?;
        Ok(project)
    }

    /// Copies the program and its libraries as the guide says, and starts it there.
    fn take_away(&self, checkout: &Checkout, program: &Path) -> Result<(), String> {
        let folder = self.folder.join("elsewhere");
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        let mut copy = Command::new("sh");
        copy.args(["-c", COPY, "sh"]).arg(program).arg(&folder).env_remove("LD_LIBRARY_PATH");
        checkout::run(&mut copy, "copying the libraries")?;
        let found = self.start(checkout, &folder.join("downstream"))?;
        if found == folder {
            Ok(())
        } else {
            Err(format!("error: the program in {} took the libtorch in {}", folder.display(), found.display()))
        }
    }

    /// Runs the program; it says where its libtorch is.
    fn start(&self, checkout: &Checkout, program: &Path) -> Result<PathBuf, String> {
        let picture = self.folder.join("out.png");
        let mut command = Command::new(program);
        command.arg(&picture).current_dir(&self.folder).env("EDIFFI_MODEL", checkout.root().join("models/icons"));
        let output = output(command.env_remove("LD_LIBRARY_PATH"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !picture.is_file() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{said}{why}error: {} drew nothing ({})", program.display(), output.status));
        }
        fs::remove_file(&picture).map_err(|error| failed(&picture, &error))?;
        Ok(PathBuf::from(said.trim_end()))
    }

    /// Cargo without what this one's environment and the checkout's configuration tell it.
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in std::env::vars_os().filter(|(name, _)| told(name)) {
            command.env_remove(name);
        }
        command.args(arguments).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

/// What `docs/dependency.md` says: the program, and of its libraries those that are not the system's.
const COPY: &str = r#"cp "$1" "$2"
ldd "$1" | sed -n 's|.* => \(/.*\) (.*|\1|p' | grep -vE '^(/usr)?/lib' | xargs -d '\n' cp -Lt "$2""#;

/// Whether a variable tells where libtorch is, or how to build.
fn told(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    // `CARGO_BUILD_TARGET` and `CARGO_BUILD_TARGET_DIR` are among them, and the flags of a target.
    let prefixes = ["LIBTORCH", "CARGO_PKG_", "CARGO_BUILD_", "CARGO_TARGET_"];
    let others = ["LD_LIBRARY_PATH", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "DOCS_RS"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || others.contains(&&*name)
}

fn output(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| format!("error: cannot start {}: {error}", command.get_program().display()))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("error: {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_a_build_where_libtorch_is_does_not_reach_it() {
        for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "LD_LIBRARY_PATH", "RUSTFLAGS", "CARGO_PKG_NAME"] {
            assert!(told(OsStr::new(name)), "{name}");
        }
        // Nor where the programs go.
        for name in ["CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS"] {
            assert!(told(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CXX"] {
            assert!(!told(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_guide_says_what_is_done_here() {
        let guide = include_str!("../../docs/dependency.md");
        let pipe = COPY.split_once("ldd \"$1\" ").and_then(|(_, rest)| rest.split_once(" cp -Lt "));
        assert!(pipe.is_some_and(|(pipe, _)| guide.contains(pipe)), "{pipe:?}");
    }
}
