//! The programs that have to be there before anything starts. What is missing is named in one line each, with what to
//! install, instead of letting a compiler or pip fail later in its own words.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// The oldest Python 3 that the torch wheel takes.
const PYTHON_MINOR: u32 = 10;

/// One thing that has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// `python3` with venv and pip, to fetch libtorch.
    Python,
    /// A C++ compiler, to build `tch`.
    Compiler,
    /// Free disk space, in MiB.
    Disk(u64),
    /// A program that can be asked for its `--version`.
    Program {
        /// Its name.
        name: &'static str,
        /// What to do where it is missing.
        hint: &'static str,
    },
}

/// What came of asking a program something.
#[derive(Debug)]
enum Answer {
    /// It cannot be started.
    NotFound,
    /// It ended with an error.
    Failed,
    /// It ended well, and printed this.
    Said(String),
}

/// Checks that all are there. Space is looked for where `folder` is.
///
/// # Errors
/// [`Error::Missing`] with one line for each that is missing.
pub fn check(needs: &[Need], folder: &Path) -> Result<(), Error> {
    let missing: Vec<_> = needs.iter().filter_map(|&need| problem(need, folder)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Missing(missing)) }
}

fn problem(need: Need, folder: &Path) -> Option<String> {
    match need {
        Need::Python => {
            let script = "import sys, venv, ensurepip; print(sys.version_info.major, sys.version_info.minor)";
            match ask("python3", &["-c", script]) {
                // Tells a python3 without these modules from one that does not start at all.
                Answer::Failed if matches!(ask("python3", &["-c", ""]), Answer::Failed) => {
                    python_problem(&Answer::NotFound)
                }
                answer => python_problem(&answer),
            }
        }
        Need::Compiler => {
            let chosen = std::env::var("CXX").ok().filter(|name| !name.trim().is_empty());
            let starts = |name: &str| matches!(ask(name, &["--version"]), Answer::Said(_));
            compiler_problem(chosen.as_deref(), starts)
        }
        Need::Disk(needed) => match ask("df", &["-Pk", &existing(folder).to_string_lossy()]) {
            Answer::Said(table) => disk_problem(free_mib(&table)?, needed),
            // No `df`, no check: a full disk will say so itself.
            Answer::NotFound | Answer::Failed => None,
        },
        Need::Program { name, hint } => program_problem(&ask(name, &["--version"]), name, hint),
    }
}

fn python_problem(answer: &Answer) -> Option<String> {
    match answer {
        Answer::NotFound => {
            Some("missing: python3: install Python 3 with venv (Debian, Ubuntu: python3 python3-venv)".to_owned())
        }
        Answer::Failed => {
            Some("missing: python3 has no venv module: install it (Debian, Ubuntu: python3-venv)".to_owned())
        }
        Answer::Said(version) => {
            let mut numbers = version.split_whitespace().map_while(|number| number.parse::<u32>().ok());
            match (numbers.next(), numbers.next()) {
                (Some(3), Some(minor)) if minor < PYTHON_MINOR => Some(format!(
                    "missing: python3 is version 3.{minor}: install Python 3.{PYTHON_MINOR} or newer, with venv"
                )),
                _ => None,
            }
        }
    }
}

/// `chosen` is the user's `CXX`. Without it the build of `tch` starts `c++`, and no other name.
fn compiler_problem(chosen: Option<&str>, starts: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(chosen) = chosen {
        // `CXX` may hold a wrapper and arguments: `ccache g++`.
        let program = chosen.split_whitespace().next().unwrap_or(chosen);
        return (!starts(program))
            .then(|| format!("missing: the C++ compiler that CXX={chosen} names does not start: change or unset CXX"));
    }
    if starts("c++") {
        return None;
    }
    Some(match ["g++", "clang++"].into_iter().find(|name| starts(name)) {
        Some(other) => format!("missing: no C++ compiler is called `c++`: set CXX={other}"),
        None => "missing: a C++ compiler: install one (Debian, Ubuntu: g++; Fedora: gcc-c++; macOS: xcode-select \
                 --install)"
            .to_owned(),
    })
}

fn program_problem(answer: &Answer, name: &str, hint: &str) -> Option<String> {
    match answer {
        Answer::Said(_) => None,
        Answer::NotFound | Answer::Failed => Some(format!("missing: {name}: {hint}")),
    }
}

/// The folder itself, or the nearest one above it that is there.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder)
}

fn disk_problem(free: u64, needed: u64) -> Option<String> {
    (free < needed).then(|| format!("missing: disk space: {needed} MiB are needed here, {free} MiB are free"))
}

/// The fourth column of the second line of `df -Pk`, which counts in KiB.
fn free_mib(table: &str) -> Option<u64> {
    table.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn ask(program: &str, arguments: &[&str]) -> Answer {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Err(_) => Answer::NotFound,
        Ok(output) if output.status.success() => Answer::Said(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(_) => Answer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_python_problem_is_one_line_with_a_hint() {
        for (answer, words) in [
            (Answer::NotFound, ["python3:", "python3-venv"]),
            (Answer::Failed, ["venv module", "python3-venv"]),
            (Answer::Said("3 9\n".into()), ["3.9", "3.10"]),
        ] {
            let line = python_problem(&answer).unwrap();
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
        assert_eq!(python_problem(&Answer::Said("3 10\n".into())), None);
        assert_eq!(python_problem(&Answer::Said("3 14\n".into())), None);
    }

    #[test]
    fn the_compiler_is_the_one_the_build_will_start() {
        let with = |names: &'static [&'static str]| move |name: &str| names.contains(&name);
        assert_eq!(compiler_problem(None, with(&["c++"])), None);
        assert_eq!(compiler_problem(Some("ccache g++"), with(&["ccache"])), None);
        assert!(compiler_problem(Some("g++-99"), with(&["c++"])).unwrap().contains("g++-99"));
        assert!(compiler_problem(None, with(&["clang++"])).unwrap().contains("CXX=clang++"));
        assert!(compiler_problem(None, with(&[])).unwrap().contains("Debian, Ubuntu: g++"));
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_found() {
        assert!(matches!(ask("ediffi-no-such-program", &[]), Answer::NotFound));
        let need = Need::Program { name: "ediffi-no-such-program", hint: "do without" };
        let said = check(&[need], Path::new("/")).unwrap_err().to_string();
        assert_eq!(said, "missing: ediffi-no-such-program: do without");
        assert_eq!(program_problem(&Answer::Said("10.2.0".into()), "npm", ""), None);
    }

    #[test]
    fn free_space_is_read_from_df() {
        let table = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
                     /dev/vda1        264212084 14719440   2048000      16% /\n";
        assert_eq!(free_mib(table), Some(2000));
        assert_eq!(free_mib("Filesystem\n"), None);
        assert_eq!(disk_problem(2000, 2000), None);
        assert!(disk_problem(1999, 2000).unwrap().contains("1999 MiB"));
        assert_eq!(existing(&std::env::temp_dir().join("ediffi-no-such/folder")), std::env::temp_dir());
    }
}
