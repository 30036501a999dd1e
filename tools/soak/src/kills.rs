//! A training that is killed many times ends as the one that never was.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ediffi_train::lineage::fingerprint;
use rand::{Rng, RngExt, SeedableRng};

use crate::child;
use crate::report::Outcome;
use crate::result::Result;
use crate::training::EXPORT;

/// Kills a training `kills` times, lets it end, and compares it with an unbroken one.
pub fn run(kills: usize) -> Result<Outcome> {
    let (unbroken, killed) = (tempfile::tempdir()?, tempfile::tempdir()?);
    finish(unbroken.path())?;
    let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
    let mut done = 0;
    while done < kills && kill(killed.path(), &mut rng)? {
        done += 1;
    }
    finish(killed.path())?;
    let mut outcome = Outcome { done: format!("{done} kills (SIGKILL) of a training"), ..Outcome::default() };
    let weights = |folder: &Path| fingerprint(&folder.join(EXPORT));
    if weights(unbroken.path())? == weights(killed.path())? {
        outcome.seen = "its weights are those of an unbroken run, bit for bit".to_owned();
    } else {
        outcome.faults.push("the weights differ from those of an unbroken run".to_owned());
    }
    let left = |folder: &Path| -> Result<Vec<String>> {
        let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = entries.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let (expected, found) = (left(unbroken.path())?, left(killed.path())?);
    if expected != found {
        outcome.faults.push(format!("files were left behind: {found:?} instead of {expected:?}"));
    }
    if done < kills {
        outcome.faults.push(format!("the training ended after {done} of {kills} kills"));
    }
    Ok(outcome)
}

fn finish(folder: &Path) -> Result<()> {
    let output = child::command("train", folder)?.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}

/// Starts the training and kills it a little after its first step. Says whether it was still at work.
fn kill(folder: &Path, rng: &mut impl Rng) -> Result<bool> {
    let mut child = child::command("train", folder)?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    BufReader::new(stdout).read_line(&mut String::new())?;
    std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
    let over = child.try_wait()?.is_some();
    child.kill()?;
    child.wait()?;
    Ok(!over)
}
