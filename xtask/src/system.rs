//! What the checks need of the system, by the names of Debian's packages: a browser and Node for the clients of the server, PostgreSQL
//! for its shared queue, and MPI for trainings on many machines, with libclang, which reads its header files.

use std::process::Command;

use crate::checkout;

/// A program or library that has to be there, and the package that has it.
const NEEDS: [(&str, &str); 6] = [
    ("chromium", "chromium"),
    ("npm", "npm"),
    ("initdb", "postgresql"),
    ("mpirun", "openmpi-bin"),
    ("mpicc", "libopenmpi-dev"),
    ("libclang.so", "libclang-dev"),
];

/// Debian keeps PostgreSQL's programs and LLVM's libraries in folders of their own, one for each version: where these are, and what is in
/// each of them.
const VERSIONS: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr/lib", "lib")];

/// The packages that building with MPI needs and this machine lacks.
pub(crate) fn missing_for_mpi() -> Vec<&'static str> {
    let of_mpi = NEEDS.into_iter().filter(|(program, _)| ["mpirun", "mpicc", "libclang.so"].contains(program));
    of_mpi.filter(|(program, _)| !is_there(program)).map(|(_, package)| package).collect()
}

/// Installs what is missing, where this process may; else says what to install.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        NEEDS.into_iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    if !is_there("apt-get") || !is_root() {
        return Err(format!("error: install these packages of Debian, or what stands for them elsewhere: {names}"));
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        checkout::run(&mut command, &format!("installing {names}"))
    };
    apt(&["update", "--quiet=2"])?;
    let mut install = vec!["install", "--yes", "--quiet=2", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = VERSIONS.into_iter().flat_map(|(versions, inside)| {
        let folders = std::fs::read_dir(versions).into_iter().flatten().flatten();
        folders.map(move |version| version.path().join(inside))
    });
    std::env::split_paths(&path).chain(versions).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    let said = Command::new("id").arg("-u").output();
    said.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
