//! A model folder whose files are cut short, altered or exchanged.

use std::path::{Path, PathBuf};

use ediffi::{Pipeline, Request};

use crate::child;
use crate::report::Outcome;
use crate::result::Result;

/// Opens the model and draws with every network once.
pub fn open(folder: &Path) -> Result<()> {
    let pipeline = Pipeline::open(folder)?;
    let mut request = Request::new("a red apple").steps("base", 4);
    for stage in ["sr256", "sr1024"] {
        request = request.steps(stage, 1);
    }
    pipeline.generate(&request.size(256, 256))?;
    Ok(())
}

/// What is done to a file.
enum Damage {
    /// This many hundredths of it are left.
    Cut(usize),
    /// The last two bytes are missing: more than the end of a line.
    Short,
    /// Every byte of the first hundred is turned around.
    Turned,
}

/// Damages every file that a generation reads, one after the other.
pub fn run(model: &Path) -> Result<Outcome> {
    let copy = tempfile::tempdir()?;
    let files = copied(model, copy.path())?;
    let mut outcome = Outcome::default();
    if !child::command("open", copy.path())?.output()?.status.success() {
        return Err("the model cannot be opened as it is".into());
    }
    let mut tried = 0;
    for file in &files {
        let path = copy.path().join(file);
        let whole = std::fs::read(&path)?;
        for damage in [Damage::Cut(0), Damage::Cut(33), Damage::Short, Damage::Turned] {
            let bytes = match damage {
                Damage::Cut(share) => whole.iter().take(whole.len() * share / 100).copied().collect::<Vec<_>>(),
                Damage::Short => whole.iter().take(whole.len().saturating_sub(2)).copied().collect(),
                Damage::Turned => whole.iter().enumerate().map(|(at, b)| if at < 100 { !b } else { *b }).collect(),
            };
            std::fs::write(&path, bytes)?;
            check(copy.path(), &file.display().to_string(), &mut outcome)?;
            tried += 1;
        }
        std::fs::write(&path, whole)?;
    }
    let weights: Vec<&PathBuf> =
        files.iter().filter(|file| file.extension().is_some_and(|e| e == "safetensors")).collect();
    for pair in weights.windows(2) {
        let [a, b] = [&pair[0], &pair[1]].map(|file| copy.path().join(file));
        // Networks of the same dimensions have the same tensors: which is which is in no file.
        if a.parent() == b.parent() || std::fs::metadata(&a)?.len() == std::fs::metadata(&b)?.len() {
            continue;
        }
        let aside = copy.path().join("aside");
        let exchange = || -> Result<()> {
            std::fs::rename(&a, &aside)?;
            std::fs::rename(&b, &a)?;
            Ok(std::fs::rename(&aside, &b)?)
        };
        exchange()?;
        check(copy.path(), &format!("{} and {} exchanged", pair[0].display(), pair[1].display()), &mut outcome)?;
        exchange()?;
        tried += 1;
    }
    outcome.done =
        format!("{tried} damaged model folders: {} files cut short and altered, weights exchanged", files.len());
    outcome.seen = format!("{} errors, each naming what is damaged", tried - outcome.faults.len());
    Ok(outcome)
}

/// A generation with the damaged folder has to end with an error.
fn check(folder: &Path, what: &str, outcome: &mut Outcome) -> Result<()> {
    let output = child::command("open", folder)?.output()?;
    outcome.faults.extend(child::unlike_an_error(&output).map(|fault| format!("{what}: {fault}")));
    Ok(())
}

/// Copies the files that a generation reads, and names them.
fn copied(model: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("pipeline.json")];
    for folder in ["base", "sr256", "sr1024", "t5", "clip"] {
        for entry in std::fs::read_dir(model.join(folder))? {
            files.push(Path::new(folder).join(entry?.file_name()));
        }
        std::fs::create_dir_all(to.join(folder))?;
    }
    // Only a request with a style prepares pictures for CLIP.
    files.retain(|file| !file.ends_with("preprocessor_config.json"));
    files.sort();
    for file in &files {
        std::fs::copy(model.join(file), to.join(file))?;
    }
    let unread = Path::new("clip/preprocessor_config.json");
    std::fs::copy(model.join(unread), to.join(unread))?;
    Ok(files)
}
