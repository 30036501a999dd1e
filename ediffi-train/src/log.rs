//! The loss log: one CSV line every few steps.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

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
}

/// A CSV file that lines are appended to.
#[derive(Debug)]
pub struct LossLog {
    path: PathBuf,
    file: File,
}

const HEADER: &str = "step,pictures,loss,gradient,rate,pictures_per_second";

impl LossLog {
    /// Opens `path`, dropping lines past `step`: a run that was killed between two checkpoints repeats those steps.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut kept = vec![HEADER.to_owned()];
        if let Ok(old) = File::open(path) {
            for line in BufReader::new(old).lines().skip(1) {
                let line = line.map_err(failed)?;
                let at = line.split(',').next().and_then(|s| s.parse::<u64>().ok());
                if at.is_some_and(|at| at <= step) {
                    kept.push(line);
                }
            }
        }
        let temporary = path.with_extension("csv.tmp");
        std::fs::write(&temporary, kept.join("\n") + "\n").map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, entry: &Entry) -> Result<()> {
        let Entry { step, pictures, loss, gradient, rate, speed } = entry;
        writeln!(self.file, "{step},{pictures},{loss:.6},{gradient:.4},{rate:.3e},{speed:.1}")
            .map_err(|source| Error::File { path: self.path.clone(), source })
    }
}
