//! libtorch out of PyTorch's wheel, in a folder of its own.
//!
//! ```text
//! FOLDER/venv         a Python environment; the wheel is unpacked in it
//! FOLDER/torch        link to the wheel's folder: the value of LIBTORCH
//! FOLDER/installed    written last: without it the installation is not whole, and is made anew
//! FOLDER/lock         held while installing
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::needs::{self, Need};
use crate::pair::VERSION;
use crate::{Error, Source, version};

/// The libraries that `libtorch_cpu` of the Linux wheel is linked to, besides its own: enough to build and to run on
/// the CPU. All the others serve CUDA, and are three quarters of the full installation.
const CPU_LIBRARIES: &[&str] =
    if cfg!(target_os = "linux") { &["nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"] } else { &[] };

/// How much is installed; a greater extent holds the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Extent {
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

/// A libtorch that can be built with.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// The value of `LIBTORCH`; `None` if Python is asked at each build.
    pub torch: Option<PathBuf>,
    /// In one line, which libtorch it is.
    pub what: String,
}

/// Makes libtorch ready: checks the user's own, or installs one into `folder` if that has not been done. Nothing starts before
/// all that is needed is known to be there. `say` hears what takes a while.
///
/// # Errors
/// [`Error::Missing`]; those of [`check`](version::check) for a libtorch of the user's; [`Error::Io`], [`Error::Start`],
/// [`Error::Failed`] and [`Error::Wheel`] for an installation that fails.
pub fn install(
    source: &Source,
    folder: &Path,
    wanted: Extent,
    also: &[Need],
    say: &dyn Fn(&str),
) -> Result<Ready, Error> {
    match source {
        Source::User(torch) => {
            needs::check(also, folder)?;
            let shown = torch.display();
            let what = match version::check(torch, wanted == Extent::Cuda)? {
                Some(found) => format!("libtorch {found} from LIBTORCH={shown}"),
                None => format!("LIBTORCH={shown}: its version cannot be told; {VERSION} is needed"),
            };
            Ok(Ready { torch: Some(torch.clone()), what })
        }
        Source::Python => {
            needs::check(also, folder)?;
            let what = "LIBTORCH_USE_PYTORCH is set: libtorch is the one in python3's PyTorch".to_owned();
            Ok(Ready { torch: None, what })
        }
        Source::Own => {
            let torch = folder.join("torch");
            let what = if installed(folder).is_some_and(|extent| extent >= wanted) {
                needs::check(also, folder)?;
                format!("libtorch {VERSION} is already installed in {}", torch.display())
            } else {
                needs::check(&[also, &[Need::Python, Need::Disk(wanted.mib())]].concat(), folder)?;
                fetch(folder, wanted, say)?;
                format!("libtorch {VERSION} is installed in {}", torch.display())
            };
            Ok(Ready { torch: Some(torch), what })
        }
    }
}

/// What a whole installation in the folder holds; `None` if there is none, or one of another version.
fn installed(folder: &Path) -> Option<Extent> {
    let extent = read_marker(&fs::read_to_string(folder.join("installed")).ok()?)?;
    let torch = folder.join("torch");
    let whole = version::has_library(&torch, "torch_cpu") && version::version_of(&torch)? == VERSION;
    whole.then_some(extent)
}

fn marker(extent: Extent) -> String {
    format!("{VERSION} {}\n", extent.name())
}

fn read_marker(text: &str) -> Option<Extent> {
    [Extent::Cpu, Extent::Cuda].into_iter().find(|&extent| marker(extent) == text)
}

fn fetch(folder: &Path, wanted: Extent, say: &dyn Fn(&str)) -> Result<(), Error> {
    let failed = |what: &'static str| move |source| Error::Io { what, folder: folder.to_owned(), source };
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
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv), "python3 -m venv")?;
    }
    say(&format!("installing libtorch {VERSION} ({}): a download of {}", wanted.name(), download(wanted)));
    run(&mut pip_install(&venv, wanted), "pip install torch")?;

    let torch = wheel_folder(&venv).map_err(failed("list the installed packages"))?;
    let torch = torch.ok_or_else(|| Error::Wheel { folder: venv.clone(), found: None })?;
    link(folder, &torch).map_err(failed("link torch"))?;
    match version::version_of(&folder.join("torch")) {
        Some(version) if version == VERSION => {}
        found => return Err(Error::Wheel { folder: venv, found }),
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

/// Runs a tool to its end. What it says of its progress goes to standard error, where status lines belong.
fn run(command: &mut Command, what: &'static str) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(Stdio::from(std::io::stderr())).status();
    let status = status.map_err(|source| Error::Start { program, source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { what, status }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as a finished set-up leaves it, without the gigabyte.
    fn installation(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ediffi-libtorch-{name}-{}", std::process::id()));
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

    #[test]
    fn what_is_installed_is_not_installed_again() {
        let folder = installation("again");
        fs::write(folder.join("installed"), marker(Extent::Cpu)).unwrap();
        let say = |line: &str| panic!("it said: {line}");
        let ready = install(&Source::Own, &folder, Extent::Cpu, &[], &say).unwrap();
        assert_eq!(ready.torch, Some(folder.join("torch")));
        assert!(ready.what.contains("already installed"), "{}", ready.what);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_libtorch_of_the_users_is_checked_and_named() {
        let folder = installation("users");
        let own = std::env::temp_dir().join("ediffi-libtorch-nowhere");
        let say = |line: &str| panic!("it said: {line}");
        let ready = install(&Source::User(folder.join("torch")), &own, Extent::Cpu, &[], &say).unwrap();
        assert_eq!(ready.torch, Some(folder.join("torch")));
        let refused = install(&Source::User(folder.join("torch")), &own, Extent::Cuda, &[], &say).unwrap_err();
        assert!(matches!(refused, Error::WithoutCuda(named) if named == folder.join("torch")));
        let python = install(&Source::Python, &own, Extent::Cpu, &[], &say).unwrap();
        assert_eq!(python.torch, None);
        assert!(!own.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
