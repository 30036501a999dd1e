//! The loss log: one CSV line every few steps.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ediffi_core::files::write_atomic;

use crate::Result;
use crate::error::file_error;

/// One line of the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Optimizer steps done.
    pub step: u64,
    /// Pictures seen.
    pub pictures: u64,
    /// Mean loss since the last line.
    pub loss: f64,
    /// Mean norm of the gradients since the last line.
    pub gradient: f64,
    /// Learning rate.
    pub rate: f64,
    /// Pictures a second since the last line.
    pub speed: f64,
    /// The share of the time since the last line that was spent waiting for batches.
    pub waiting: f64,
}

/// A CSV file that lines are appended to.
#[derive(Debug)]
pub(crate) struct LossLog {
    path: PathBuf,
    file: File,
}

const HEADER: &str = "step,pictures,loss,gradient,rate,pictures_per_second,waiting";

impl LossLog {
    /// Opens `path` and drops the lines past `step`, because a run that was killed between two checkpoints repeats those steps. A
    /// line that the kill cut short is dropped, too.
    pub(crate) fn resume(path: &Path, step: u64) -> Result<Self> {
        let failed = file_error(path);
        let old = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(&failed)?,
        };
        let kept = old.lines().skip(1).filter(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let at = fields.first().and_then(|at| at.parse::<u64>().ok());
            at.is_some_and(|at| at <= step) && fields.len() == HEADER.split(',').count()
        });
        let lines: Vec<&str> = std::iter::once(HEADER).chain(kept).collect();
        write_atomic(path, (lines.join("\n") + "\n").as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, entry: &Entry) -> Result<()> {
        let Entry { step, pictures, loss, gradient, rate, speed, waiting } = entry;
        // One write a line, so that a line is either there or not.
        let line = format!("{step},{pictures},{loss:.6},{gradient:.4},{rate:.3e},{speed:.1},{waiting:.3}\n");
        self.file.write_all(line.as_bytes()).map_err(file_error(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: u64) -> Entry {
        Entry { step, pictures: 32 * step, loss: 0.25, gradient: 1.5, rate: 1e-4, speed: 33.3, waiting: 0.01 }
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn resuming_drops_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.csv");
        let mut log = LossLog::resume(&path, 0).unwrap();
        for step in [20, 40, 60] {
            log.write(&entry(step)).unwrap();
        }
        assert_eq!(lines(&path)[1], "20,640,0.250000,1.5000,1.000e-4,33.3,0.010");
        // The kill came in the middle of line "800", which reads like a step before the checkpoint.
        std::fs::write(&path, lines(&path).join("\n") + "\n8").unwrap();
        let mut log = LossLog::resume(&path, 40).unwrap();
        log.write(&entry(60)).unwrap();
        drop(log);
        let steps: Vec<String> = lines(&path).iter().map(|l| l.split(',').next().unwrap().to_owned()).collect();
        assert_eq!(steps, ["step", "20", "40", "60"]);
        assert_eq!(lines(&path)[0], HEADER);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_log_that_cannot_be_read_or_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("absent/base.csv"), folder.path().to_owned()] {
            let error = LossLog::resume(&path, 0).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
