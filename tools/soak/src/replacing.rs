//! A model folder that is replaced over and over, and killed meanwhile, is the old model or the new one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ediffi::{Manifest, Pipeline, Request};
use ediffi_core::folders;
use rand::{RngExt, SeedableRng};

use crate::child;
use crate::report::Outcome;
use crate::result::Result;

/// What the folder is called that is replaced, beside the two models.
const PLACE: &str = "model";
/// The two models that take turns.
const MODELS: [&str; 2] = ["one", "two"];

/// Replaces the model of `folder` by the others in turn until it is killed.
pub fn replace(folder: &Path) -> Result<()> {
    // The second first: it may be killed before it comes to another.
    for turn in 1_usize.. {
        let model = folder.join(MODELS[turn % MODELS.len()]);
        folders::replace(&folder.join(PLACE), |new| copy(&model, new))?;
    }
    Ok(())
}

/// Exchanges the weights of two experts. They fit, and only a digest tells the models apart.
fn exchange(model: &Path) -> Result<()> {
    let manifest = Manifest::read(model)?;
    let alike = manifest.stages.iter().flat_map(|stage| &stage.experts).filter(|expert| expert.network.is_none());
    let files: Vec<_> = alike.map(|expert| model.join(&expert.weights)).take(2).collect();
    let [one, other] = files.as_slice() else { return Err("the model has no two experts of one shape".into()) };
    let [first, second] = [std::fs::read(one)?, std::fs::read(other)?];
    std::fs::write(one, second)?;
    Ok(std::fs::write(other, first)?)
}

/// Kills replacements `kills` times, and opens the model while they work and after each kill.
pub fn run(model: &Path, kills: usize) -> Result<Outcome> {
    let within = tempfile::tempdir()?;
    let folder = within.path();
    for name in MODELS {
        copy(model, &folder.join(name))?;
    }
    exchange(&folder.join(MODELS[1]))?;
    folders::replace(&folder.join(PLACE), |new| copy(&folder.join(MODELS[0]), new))?;
    let whole = MODELS.map(|name| digest(&folder.join(name)));
    let [Ok(one), Ok(two)] = whole else { return Err("the models cannot be opened".into()) };
    if one == two {
        return Err("the two models do not differ".into());
    }
    let mut outcome =
        Outcome { done: format!("{kills} kills (SIGKILL) of the replacing of a model"), ..Outcome::default() };
    let (mut rng, mut opened, mut refused, mut seen) = (rand::rngs::SmallRng::seed_from_u64(2), 0, 0, BTreeSet::new());
    let mut open = |outcome: &mut Outcome, quiet: bool| match digest(&folder.join(PLACE)) {
        Ok(digest) if digest == one || digest == two => {
            opened += 1;
            seen.insert(digest);
        }
        Ok(_) => outcome.faults.push("a mixture of two models was opened".to_owned()),
        // While it is replaced, an opening may be told so.
        Err(error) if !quiet && error.to_string().contains("was replaced since it was opened") => refused += 1,
        Err(error) => outcome.faults.push(format!("the model was not opened: {error}")),
    };
    for _ in 0..kills {
        let mut child = child::command("replace", folder)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..1500)));
        open(&mut outcome, false);
        child.kill()?;
        child.wait()?;
        open(&mut outcome, true);
    }
    folders::recover(&folder.join(PLACE))?;
    let mut left = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        left.push(entry?.file_name().to_string_lossy().into_owned());
    }
    left.retain(|name| name != PLACE && !MODELS.contains(&name.as_str()));
    if !left.is_empty() {
        outcome.faults.push(format!("files were left behind: {left:?}"));
    }
    if seen.len() != MODELS.len() {
        outcome.faults.push("no replacement was seen".to_owned());
    }
    outcome.seen =
        format!("{opened} openings, each of one model or the other; {refused} were told that it was being replaced");
    Ok(outcome)
}

/// What tells the model in a folder from another: the digests of its base stage and of its encoders.
fn digest(folder: &Path) -> ediffi::Result<String> {
    let made = Pipeline::open(folder)?.provenance(&Request::new("a cat").last_stage("base"))?;
    Ok(made.stages.values().map(|stage| stage.digest.as_str()).chain(made.encoders.as_deref()).collect())
}

/// Copies a folder with the folders in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
