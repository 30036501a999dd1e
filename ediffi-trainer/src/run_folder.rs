//! The folder of a run: whose it is, and what of it is to begin anew.
//!
//! A restart is written down before anything is removed, in one file that is there or not. What it has still to do, the next start does.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ediffi_core::files::{read_json, remove_unfinished, write_atomic, write_json, write_with_folders};
use ediffi_train::run::{Begin, Run};
use serde::{Deserialize, Serialize};

use crate::claim::{self, Claim};
use crate::error::file_error;
use crate::kept::{Kept, remove};
use crate::options::Options;
use crate::plan::{OWN_T5, Plan};
use crate::{Error, Result};

/// What says whose the folder is.
const RECORD: &str = "run.json";
/// The plan as it was read, beside it.
pub(crate) const PLAN: &str = "plan.toml";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The name of the plan.
    plan: String,
    /// The fingerprint of the data.
    data: String,
    /// How often each network was to begin anew.
    #[serde(default)]
    restarts: BTreeMap<String, u64>,
}

impl Record {
    /// The number of the restart of a network that has not begun anew yet.
    fn pending(&self, folder: &Path, name: &str) -> Result<Option<u64>> {
        let Some(&number) = self.restarts.get(name) else { return Ok(None) };
        let path = begun(folder, name);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(file_error(&path))?,
        };
        Ok((text.trim() != number.to_string()).then_some(number))
    }
}

/// The number of the restart of a network that has not begun anew yet, as the folder says it.
fn pending(folder: &Path, name: &str) -> Result<Option<u64>> {
    let path = folder.join(RECORD);
    if path.is_file() { read_json::<Record>(&path)?.pending(folder, name) } else { Ok(None) }
}

/// What says which restart of a network has begun: it has a checkpoint of its own since.
fn begun(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.begun"))
}

/// The averaged weights of something trained: those of a network in f32.
pub(crate) fn exported(folder: &Path, name: &str) -> PathBuf {
    if name == OWN_T5 {
        return folder.join(OWN_T5).join("model.safetensors");
    }
    folder.join(format!("{name}.safetensors"))
}

/// The log of a network's validation.
pub(crate) fn measured(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.validation.csv"))
}

/// Takes the folder for a run: a new one, or one that is there of this plan and these data. No other job has it while the claim lives, and
/// nothing is written or removed before there is one. For a restart, what earlier runs have exported, kept and measured is removed; their
/// checkpoints go when the new run has one.
///
/// # Errors
/// [`Error::Exists`] for a new run where one is, [`Error::OtherRun`] to go on from another, [`Error::NoRun`] for a folder of something else,
/// [`Locked`](ediffi_train::Error::Locked) while another job is at work there.
pub(crate) fn take(options: &Options, plan: &Plan, data: &str) -> Result<Claim> {
    let (folder, begin) = (&options.folder, options.begin);
    // A folder of something else stays as it is: not even a lock is put there.
    find(folder, begin, plan, data)?;
    let claim = Claim::of(folder, &options.only)?;
    let recording = claim::record(folder)?;
    // Another job may have begun here meanwhile.
    let found = find(folder, begin, plan, data)?;
    let path = folder.join(RECORD);
    remove_unfinished(&path)?;
    let named = if options.only.is_empty() {
        plan.training().tasks().map(|task| task.name()).collect()
    } else {
        options.only.clone()
    };
    let record = match found {
        Some(record) if begin != Begin::Restart => record,
        found => {
            let mut restarts = found.map(|record| record.restarts).unwrap_or_default();
            for name in named.iter().filter(|_| begin == Begin::Restart) {
                *restarts.entry(name.clone()).or_default() += 1;
            }
            // Where there is none, it is written again: a plan never lies beside the record of another.
            remove(&folder.join(PLAN))?;
            let record = Record { plan: plan.name.clone(), data: data.to_owned(), restarts };
            write_json(&path, &record)?;
            record
        }
    };
    drop(recording);
    for name in record.restarts.keys() {
        if record.pending(folder, name)?.is_none() {
            continue;
        }
        let _free = if named.contains(name) {
            None
        } else {
            match claim::network(folder, name) {
                // Whoever is at work on it has done this.
                Err(Error::Train { source: ediffi_train::Error::Locked { .. } }) => continue,
                free => Some(free?),
            }
        };
        remove(&exported(folder, name))?;
        Kept::new(folder, name, plan.keep).clear()?;
        remove(&measured(folder, name))?;
    }
    if !folder.join(PLAN).is_file() {
        write_plan(folder, plan)?;
    }
    Ok(claim)
}

/// The record of a run that may be taken, if there is one. Nothing is written.
fn find(folder: &Path, begin: Begin, plan: &Plan, data: &str) -> Result<Option<Record>> {
    let path = folder.join(RECORD);
    if !path.is_file() {
        let is_free = !folder.is_dir() || is_free(folder)?;
        return if is_free { Ok(None) } else { Err(Error::NoRun { folder: folder.to_owned() }) };
    }
    let found: Record = read_json(&path)?;
    if begin == Begin::New {
        return Err(Error::Exists { folder: folder.to_owned(), plan: found.plan });
    }
    for (what, found, expected) in [("plan", &found.plan, plan.name.as_str()), ("data", &found.data, data)] {
        if found != expected && begin == Begin::Resume {
            let (found, expected) = (found.clone(), expected.to_owned());
            return Err(Error::OtherRun { folder: folder.to_owned(), what, found, expected });
        }
    }
    Ok(Some(found))
}

/// Whether a folder holds nothing but what a job leaves that was killed before it began.
fn is_free(folder: &Path) -> Result<bool> {
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let name = entry.map_err(file_error(folder))?.file_name();
        let name = name.to_string_lossy();
        let half = name.strip_prefix(RECORD).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".tmp"));
        if !half && !claim::is_lock(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the plan into the folder of its run: when that begins, and when all is trained, since what may change on the way may have changed.
pub(crate) fn write_plan(folder: &Path, plan: &Plan) -> Result<()> {
    Ok(write_with_folders(&folder.join(PLAN), plan.to_toml()?.as_bytes())?)
}

/// What to do with what is there of a network: begin anew where a restart has not come that far, and else go on. That there is no run was
/// seen when the folder was taken.
pub(crate) fn begin(folder: &Path, name: &str) -> Result<Begin> {
    Ok(if pending(folder, name)?.is_some() { Begin::Restart } else { Begin::Resume })
}

/// A network that begins anew, until it has a checkpoint of its own.
#[derive(Debug)]
pub(crate) struct Anew {
    /// The number of the restart, until it is written down.
    pending: Option<u64>,
    begun: PathBuf,
    checkpoint: PathBuf,
}

impl Anew {
    /// That of a run, which may be one that goes on.
    pub(crate) fn of(run: &Run<'_>) -> Result<Self> {
        let pending = pending(run.folder, run.name)?;
        Ok(Self { pending, begun: begun(run.folder, run.name), checkpoint: run.checkpoint() })
    }

    /// Writes down that it has begun, as soon as there is a checkpoint. Called once the run has put the old one aside.
    pub(crate) fn look(&mut self) -> Result<()> {
        if let Some(number) = self.pending
            && self.checkpoint.is_file()
        {
            remove_unfinished(&self.begun)?;
            write_atomic(&self.begun, format!("{number}\n").as_bytes())?;
            self.pending = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
