//! Weights that stay beside the checkpoint that a run goes on from.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::file_error;
use crate::plan::KeepPlan;

/// The folder of what is kept, in that of the run.
const FOLDER: &str = "kept";

/// The weights of one network that are kept.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    name: String,
    plan: KeepPlan,
}

impl Kept {
    pub(crate) fn new(run: &Path, name: &str, plan: KeepPlan) -> Self {
        Self { folder: run.join(FOLDER), name: name.to_owned(), plan }
    }

    /// Where the best are.
    pub(crate) fn best(&self) -> PathBuf {
        self.folder.join(format!("{}-best.safetensors", self.name))
    }

    /// Where those of `step` belong, if they are kept.
    pub(crate) fn due(&self, step: u64) -> Option<PathBuf> {
        let due = self.plan.every > 0 && step.is_multiple_of(self.plan.every);
        due.then(|| self.folder.join(format!("{}-{step:09}.safetensors", self.name)))
    }

    /// Removes all but the last so many of those up to `step`.
    pub(crate) fn prune(&self, step: u64) -> Result<()> {
        if self.plan.last == 0 {
            return Ok(());
        }
        let mut steps: Vec<(u64, PathBuf)> = self.numbered()?;
        steps.retain(|(at, _)| *at <= step);
        steps.sort_unstable();
        let many = steps.len().saturating_sub(self.plan.last);
        steps.iter().take(many).try_for_each(|(_, path)| std::fs::remove_file(path).map_err(file_error(path)))
    }

    /// Removes all of them, for a run that begins anew.
    pub(crate) fn clear(&self) -> Result<()> {
        let best = Some(self.best()).filter(|best| best.is_file());
        let numbered = self.numbered()?.into_iter().map(|(_, path)| path);
        numbered.chain(best).try_for_each(|path| std::fs::remove_file(&path).map_err(file_error(&path)))
    }

    /// The files with a step in their name.
    fn numbered(&self) -> Result<Vec<(u64, PathBuf)>> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(file_error(&self.folder))? {
            let entry = entry.map_err(file_error(&self.folder))?;
            let file = entry.file_name();
            let rest = file.to_str().and_then(|file| file.strip_prefix(&self.name)?.strip_prefix('-'));
            let step = rest.and_then(|rest| rest.strip_suffix(".safetensors")?.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
        Ok(found)
    }
}

/// Removes a file, if there is one.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path.is_file() { std::fs::remove_file(path).map_err(file_error(path)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Export;

    #[test]
    fn the_last_stay_and_another_network_s_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let kept = |name| Kept::new(folder.path(), name, KeepPlan { every: 10, last: 2, export: Export::Last });
        let (own, other) = (kept("base.a"), kept("base.a-b"));
        assert!(own.due(15).is_none());
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for step in [10, 20, 30, 40] {
            for kept in [&own, &other] {
                std::fs::write(kept.due(step).unwrap(), "").unwrap();
            }
        }
        std::fs::write(own.best(), "").unwrap();
        // The last is of a run that was killed, and is written again.
        own.prune(30).unwrap();
        let there = |kept: &Kept| [10, 20, 30, 40].map(|step| kept.due(step).unwrap().is_file());
        assert_eq!((there(&own), there(&other)), ([false, true, true, true], [true; 4]));
        own.clear().unwrap();
        assert_eq!((there(&own), own.best().is_file(), there(&other)), ([false; 4], false, [true; 4]));
    }
}
