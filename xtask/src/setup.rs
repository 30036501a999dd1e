//! `cargo xtask setup`: libtorch for this checkout, out of PyTorch's wheel.
//!
//! ```text
//! .libtorch/venv         a Python environment; the wheel is unpacked in it
//! .libtorch/torch        link to the wheel's folder: the value of LIBTORCH, see `.cargo/config.toml`
//! .libtorch/installed    written last: without it the installation is not whole, and is made anew
//! .libtorch/lock         held while installing
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};
use crate::libtorch::{self, Source, VERSION};
use crate::prerequisites::{self, Prerequisite};

/// The libraries that `libtorch_cpu` of the Linux wheel is linked to, besides its own: enough to build and to run on
/// the CPU. All the others serve CUDA, and are three quarters of the full installation.
const CPU_LIBRARIES: &[&str] =
    if cfg!(target_os = "linux") { &["nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"] } else { &[] };

/// How much is installed; a greater extent holds the smaller.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Extent {
    /// What the CPU needs.
    Cpu,
    /// All CUDA libraries too.
    Cuda,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Space on disk, with the archives it is unpacked from.
    fn mib(self) -> u64 {
        match self {
            Self::Cpu => 2_500,
            Self::Cuda => 8_000,
        }
    }
}

/// `cargo xtask setup`.
pub(crate) fn run(checkout: &Checkout, cuda: bool) -> Result<(), String> {
    let ready = prepare(checkout, if cuda { Extent::Cuda } else { Extent::Cpu }, &[Prerequisite::Compiler])?;
    eprintln!("{ready}");
    Ok(())
}

/// What every command that builds calls first: checks what it needs, and sets up if that has not been done.
pub(crate) fn before_building(checkout: &Checkout, more: &[Prerequisite]) -> Result<(), String> {
    prepare(checkout, Extent::Cpu, &[&[Prerequisite::Compiler], more].concat()).map(drop)
}

/// Makes libtorch ready, and says which it is. Nothing starts before all that is needed is known to be there.
fn prepare(checkout: &Checkout, wanted: Extent, also: &[Prerequisite]) -> Result<String, String> {
    match checkout.libtorch() {
        Source::User(folder) => {
            prerequisites::check(checkout, also)?;
            libtorch::check(folder, wanted == Extent::Cuda)
        }
        Source::Python => {
            prerequisites::check(checkout, also)?;
            Ok("LIBTORCH_USE_PYTORCH is set: libtorch is the one in python3's PyTorch".to_owned())
        }
        Source::Checkout => {
            let folder = checkout.root().join(".libtorch");
            let shown = folder.join("torch");
            if installed(&folder).is_some_and(|extent| extent >= wanted) {
                prerequisites::check(checkout, also)?;
                return Ok(format!("libtorch {VERSION} is already installed in {}", shown.display()));
            }
            let all = [also, &[Prerequisite::Python, Prerequisite::Disk(wanted.mib())]].concat();
            prerequisites::check(checkout, &all)?;
            install(&folder, wanted)?;
            Ok(format!("libtorch {VERSION} is installed in {}", shown.display()))
        }
    }
}

/// What a whole installation in the folder holds; `None` if there is none, or one of another version.
fn installed(folder: &Path) -> Option<Extent> {
    let extent = read_marker(&fs::read_to_string(folder.join("installed")).ok()?)?;
    let torch = folder.join("torch");
    let whole = libtorch::has_library(&torch, "torch_cpu") && libtorch::version_of(&torch)? == VERSION;
    whole.then_some(extent)
}

fn marker(extent: Extent) -> String {
    format!("{VERSION} {}\n", extent.name())
}

fn read_marker(text: &str) -> Option<Extent> {
    [Extent::Cpu, Extent::Cuda].into_iter().find(|&extent| marker(extent) == text)
}

fn install(folder: &Path, wanted: Extent) -> Result<(), String> {
    let failed = |what: &str| {
        let what = format!("error: cannot {what} in {}", folder.display());
        move |error: std::io::Error| format!("{what}: {error}")
    };
    fs::create_dir_all(folder).map_err(failed("make folders"))?;
    let lock = File::create(folder.join("lock")).map_err(failed("make the lock"))?;
    lock.lock().map_err(failed("take the lock"))?;
    // Another set-up may have finished while this one waited for the lock.
    let present = installed(folder);
    if present.is_some_and(|extent| extent >= wanted) {
        return Ok(());
    }

    let venv = folder.join("venv");
    if present.is_some() {
        fs::remove_file(folder.join("installed")).map_err(failed("remove the marker"))?;
    } else {
        remove_if_there(&venv).map_err(failed("remove an unfinished installation"))?;
        checkout::run(quiet(Command::new("python3").args(["-m", "venv"]).arg(&venv)), "python3 -m venv")?;
    }
    eprintln!("installing libtorch {VERSION} ({}): a download of {}", wanted.name(), download(wanted));
    checkout::run(quiet(&mut pip_install(&venv, wanted)), "pip install torch")?;

    let torch = wheel_folder(&venv).map_err(failed("list the installed packages"))?;
    let torch = torch.ok_or_else(|| format!("error: pip has put no torch into {}", venv.display()))?;
    link(folder, &torch).map_err(failed("link torch"))?;
    match libtorch::version_of(&folder.join("torch")) {
        Some(version) if version == VERSION => {}
        other => return Err(format!("error: pip installed torch {other:?}, but {VERSION} is needed")),
    }
    fs::write(folder.join("installed.tmp"), marker(wanted)).map_err(failed("write the marker"))?;
    fs::rename(folder.join("installed.tmp"), folder.join("installed")).map_err(failed("write the marker"))
}

fn download(extent: Extent) -> &'static str {
    match extent {
        Extent::Cpu => "about 550 MB",
        Extent::Cuda => "two to three GB",
    }
}

fn pip_install(venv: &Path, wanted: Extent) -> Command {
    let python = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    let mut pip = Command::new(venv.join(python));
    // Nothing here is ever imported by Python: compiling thousands of its files would only cost time.
    pip.args(["-m", "pip", "install", "--no-compile", "--only-binary=:all:", "--disable-pip-version-check"]);
    pip.arg(format!("torch=={VERSION}"));
    if wanted == Extent::Cpu {
        pip.arg("--no-deps").args(CPU_LIBRARIES);
    }
    pip
}

/// `venv/lib/python3.N/site-packages/torch`, as seen from the folder that holds `venv`.
fn wheel_folder(venv: &Path) -> std::io::Result<Option<PathBuf>> {
    if cfg!(windows) {
        return Ok(Some("venv/Lib/site-packages/torch".into()));
    }
    for entry in fs::read_dir(venv.join("lib"))? {
        let name = entry?.file_name();
        if venv.join("lib").join(&name).join("site-packages/torch").is_dir() {
            return Ok(Some(Path::new("venv/lib").join(name).join("site-packages/torch")));
        }
    }
    Ok(None)
}

/// Points `torch` at the wheel's folder; a link that is there is replaced in one step.
fn link(folder: &Path, torch: &Path) -> std::io::Result<()> {
    let temporary = folder.join("torch.tmp");
    if temporary.symlink_metadata().is_ok() {
        fs::remove_file(&temporary)?;
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(torch, &temporary)?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(torch, &temporary)?;
    fs::rename(temporary, folder.join("torch"))
}

fn remove_if_there(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Sends what a tool says about its progress to standard error, where the other status lines go.
fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::from(std::io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as a finished set-up leaves it, without the gigabyte.
    fn installation(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ediffi-xtask-{name}-{}", std::process::id()));
        remove_if_there(&folder).unwrap();
        let torch = folder.join("venv/lib/python3.12/site-packages/torch");
        fs::create_dir_all(torch.join("lib")).unwrap();
        let library = format!("{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        fs::write(torch.join("lib").join(library), "").unwrap();
        fs::write(torch.join("version.py"), format!("__version__ = '{VERSION}+cu130'\n")).unwrap();
        link(&folder, &wheel_folder(&folder.join("venv")).unwrap().unwrap()).unwrap();
        folder
    }

    #[test]
    fn only_a_marked_installation_of_the_right_version_counts() {
        let folder = installation("marker");
        assert_eq!(installed(&folder), None, "interrupted before the marker");
        fs::write(folder.join("installed"), marker(Extent::Cuda)).unwrap();
        assert_eq!(installed(&folder), Some(Extent::Cuda));
        fs::write(folder.join("installed"), "2.10.0 cpu\n").unwrap();
        assert_eq!(installed(&folder), None, "the marker of another version");
        fs::write(folder.join("installed"), marker(Extent::Cpu)).unwrap();
        fs::write(folder.join("torch/version.py"), "__version__ = '2.10.0'\n").unwrap();
        assert_eq!(installed(&folder), None, "another version behind the marker");
        fs::remove_dir_all(folder.join("venv")).unwrap();
        assert_eq!(installed(&folder), None, "the link leads nowhere");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_link_is_relative_and_can_be_replaced() {
        let folder = installation("link");
        link(&folder, Path::new("venv/elsewhere")).unwrap();
        assert_eq!(fs::read_link(folder.join("torch")).unwrap(), Path::new("venv/elsewhere"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_cuda_installation_satisfies_the_cpu() {
        assert!(Extent::Cuda >= Extent::Cpu);
        assert_eq!(read_marker(&marker(Extent::Cpu)), Some(Extent::Cpu));
        assert_eq!(read_marker(""), None);
    }

    #[test]
    fn the_slim_installation_leaves_the_other_cuda_libraries_out() {
        let slim: Vec<_> = pip_install(Path::new("venv"), Extent::Cpu).get_args().map(ToOwned::to_owned).collect();
        assert!(slim.iter().any(|argument| argument == "--no-deps"));
        let full: Vec<_> = pip_install(Path::new("venv"), Extent::Cuda).get_args().map(ToOwned::to_owned).collect();
        assert!(full.iter().any(|argument| argument == "torch==2.11.0"));
        assert!(!full.iter().any(|argument| argument == "--no-deps"));
    }
}
