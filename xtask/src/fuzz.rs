//! `cargo xtask fuzz`: every reader of bytes from outside, under libFuzzer for some time.
//!
//! The flags of the build are those that `cargo-fuzz` gives without a sanitizer. They are those of a stable compiler, and so nothing
//! has to be installed. `cargo fuzz run --sanitizer none TARGET` in `fuzz/` does the same where `cargo-fuzz` is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::args::Fuzz;
use crate::checkout::{self, Checkout};
use crate::fuzz_report::{Run, page, replace};
use crate::setup;

/// Counters at every branch, for libFuzzer to see which code an input reaches, and the operands of comparisons.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg=fuzzing",
];

/// A reader: its name, its dictionary, and the longest input in bytes.
type Target = (&'static str, &'static str, usize);

const TARGETS: [Target; 23] = [
    ("caption", "caption", 2_048),
    ("checkpoint", "safetensors", 4_096),
    ("dataset", "safetensors", 16_384),
    ("diffusers", "model", 16_384),
    ("embeddings", "safetensors", 8_192),
    ("encoded", "safetensors", 8_192),
    ("encoders", "model", 8_192),
    ("lora", "safetensors", 16_384),
    ("manifest", "model", 16_384),
    ("network", "model", 8_192),
    ("palette", "request", 8_192),
    ("parquet", "model", 8_192),
    ("picture", "png", 8_192),
    ("plan", "plan", 16_384),
    ("png", "png", 16_384),
    ("published", "model", 8_192),
    ("request", "request", 16_384),
    ("safetensors", "safetensors", 16_384),
    ("settings", "tokenizer", 8_192),
    ("shards", "model", 8_192),
    ("spiece", "tokenizer", 16_384),
    ("style", "safetensors", 8_192),
    ("tokenizer", "tokenizer", 32_768),
];

/// What fuzzing makes and learns, below the root.
const FOLDER: &str = ".fuzz";

/// Seconds for an input. Machines that build beside it are slow.
const SLOWEST: u32 = 30;

/// Megabytes of a process; libtorch and the models take some 400 of it.
const MEMORY: u32 = 2_048;

/// Builds the targets and runs each for some time, several beside each other.
pub(crate) fn run(checkout: &Checkout, fuzz: &Fuzz) -> Result<(), String> {
    setup::before_building(checkout, &[])?;
    let chosen = chosen(&fuzz.targets)?;
    let programs = build(checkout, &chosen)?;
    if let Some(file) = &fuzz.replay {
        return replay(checkout, &programs, &chosen, file);
    }
    seeds(&checkout.root().join("fuzz/make_seeds.py"), &checkout.root().join(FOLDER).join("seeds"))?;
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..fuzz.jobs.min(chosen.len()) {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = one(checkout, &programs, *target, fuzz.seconds);
                    if let Ok(run) = &run {
                        eprintln!("fuzz: {run}");
                    }
                    if let Ok(mut runs) = runs.lock() {
                        runs.push(run);
                    }
                }
            });
        }
    });
    let runs = runs.into_inner().map_err(|_| "error: a thread of the fuzzing panicked")?;
    let mut runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
    runs.sort_by_key(|run| run.target);
    let page = page(&runs, fuzz.seconds);
    println!("{page}");
    if let Some(document) = &fuzz.write {
        replace(&checkout.root().join(document), "fuzz", &page)?;
    }
    let finds: Vec<String> = runs.iter().filter_map(Run::find).collect();
    if finds.is_empty() { Ok(()) } else { Err(finds.join("\n")) }
}

/// The targets of these names; without names all of them.
fn chosen(names: &[String]) -> Result<Vec<Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let all = TARGETS.map(|(name, ..)| name).join(", ");
    let of = |name: &String| TARGETS.into_iter().find(|(known, ..)| known == name);
    names.iter().map(|name| of(name).ok_or_else(|| format!("error: no target {name:?}, only {all}"))).collect()
}

/// Builds the targets, and says in which folder their programs are.
fn build(checkout: &Checkout, targets: &[Target]) -> Result<PathBuf, String> {
    let (host, target) = (host()?, checkout.target().join("fuzz"));
    let mut cargo = checkout.cargo(&["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    // With a triple, so that build scripts and macros are built without the flags.
    cargo.args(["--target", &host, "--target-dir"]).arg(&target);
    for (name, ..) in targets {
        cargo.args(["--bin", name]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")).env_remove("RUSTFLAGS");
    checkout::run(&mut cargo, "building the fuzz targets")?;
    Ok(target.join(host).join("release"))
}

/// The triple of this machine.
fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("-vV").output().map_err(|error| format!("error: cannot start rustc: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("error: rustc does not say its host: {said}"))
}

/// A command that runs a target, with a folder of its own for the files that it writes.
fn command(checkout: &Checkout, programs: &Path, name: &str) -> Result<(Command, PathBuf), String> {
    // In memory where there is such a place: files are written and synced for every input.
    let memory = Path::new("/dev/shm");
    let room = |rooms: PathBuf| {
        let room = rooms.join(format!("ediffi-fuzz-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&room);
        make(&room).map(|()| room)
    };
    let room = room(memory.to_owned()).or_else(|_| room(std::env::temp_dir()))?;
    let mut command = Command::new(programs.join(name));
    command.current_dir(checkout.root()).env("TMPDIR", &room).env("OMP_NUM_THREADS", "1");
    command.arg(format!("-timeout={SLOWEST}")).arg(format!("-rss_limit_mb={MEMORY}"));
    Ok((command, room))
}

fn one(checkout: &Checkout, programs: &Path, (name, words, longest): Target, seconds: u64) -> Result<Run, String> {
    let folder = |part: &str| checkout.root().join(FOLDER).join(part).join(name);
    let (corpus, finds) = (folder("corpus"), folder("finds"));
    let log = folder("logs").with_extension("log");
    [&corpus, &finds].into_iter().try_for_each(|folder| make(folder))?;
    log.parent().map_or(Ok(()), make)?;
    let (mut command, room) = command(checkout, programs, name)?;
    command.arg(&corpus).arg(folder("seeds"));
    command.arg(format!(
        "-dict={}",
        checkout.root().join("fuzz/dictionaries").join(words).with_extension("dict").display()
    ));
    command.arg(format!("-max_len={longest}")).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", finds.display())).arg("-print_final_stats=1");
    let file = fs::File::create(&log).map_err(|error| format!("error: cannot write {}: {error}", log.display()))?;
    let status = command.stdout(Stdio::null()).stderr(file).status();
    let status = status.map_err(|error| format!("error: cannot start the target {name}: {error}"))?;
    let _ = fs::remove_dir_all(room);
    let said = fs::read(&log).map_err(|error| format!("error: cannot read {}: {error}", log.display()))?;
    Ok(Run::read(name, &String::from_utf8_lossy(&said), status.success(), &log))
}

/// Runs one target on one file.
fn replay(checkout: &Checkout, programs: &Path, targets: &[Target], file: &str) -> Result<(), String> {
    let [(name, ..)] = targets else { return Err("error: `--replay` takes one target and its file".to_owned()) };
    let (mut command, room) = command(checkout, programs, name)?;
    let replayed =
        checkout::run(command.arg(file).env("EDIFFI_FUZZ_BACKTRACE", "1"), &format!("the target {name} on {file}"));
    let _ = fs::remove_dir_all(room);
    replayed
}

/// Writes the seeds of all targets, a folder each. Every target has some, and none is so long that libFuzzer would cut it.
fn seeds(script: &Path, folder: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(folder);
    checkout::run(Command::new("python3").arg(script).arg(folder), "making the seeds with Python")?;
    for (name, _, longest) in TARGETS {
        let failed = |error: std::io::Error| format!("error: there are no seeds for {name}: {error}");
        let mut made =
            fs::read_dir(folder.join(name)).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        made.retain(|seed| seed.metadata().is_ok_and(|file| file.len() > longest as u64));
        if let Some(seed) = made.first() {
            return Err(format!("error: {} has more than {longest} bytes", seed.path().display()));
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("error: cannot make {}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program_and_a_dictionary() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let mut programs: Vec<String> = fs::read_dir(fuzz.join("fuzz_targets"))
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        programs.sort();
        assert_eq!(programs, TARGETS.map(|(name, ..)| name));
        for (_, words, _) in TARGETS {
            assert!(fuzz.join(format!("dictionaries/{words}.dict")).is_file(), "{words}");
        }
    }

    #[test]
    fn an_unknown_target_is_named_beside_those_there_are() {
        let error = chosen(&["requests".to_owned()]).unwrap_err();
        assert!(error.contains("\"requests\"") && error.contains("request, safetensors"), "{error}");
        assert_eq!(chosen(&["png".to_owned()]).unwrap()[0].0, "png");
        assert_eq!(chosen(&[]).unwrap().len(), TARGETS.len());
    }
}
