//! The log of validation: one CSV line a measurement. Which weights are the best, and when to stop, follow from it alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ediffi_core::files::write_atomic;

use crate::Result;
use crate::error::file_error;
use crate::validation::Bins;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    /// Optimizer steps done.
    pub(crate) step: u64,
    /// The mean loss in each range of noise levels.
    pub(crate) losses: Vec<f64>,
}

impl Measured {
    /// The mean over the ranges, each of which is as likely as another.
    pub(crate) fn mean(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }

    /// Whether the mean is a number that another can be better than.
    pub(crate) fn is_finite(&self) -> bool {
        self.mean().is_finite()
    }
}

/// The measurements of a network.
#[derive(Debug)]
pub(crate) struct MeasureLog {
    path: PathBuf,
    header: String,
    rows: Vec<Measured>,
}

impl MeasureLog {
    /// Reads the file, if there is one. A line that a kill cut short is left out, and so are those of other ranges.
    pub(crate) fn open(path: &Path, bins: &Bins) -> Result<Self> {
        let range = |bin| {
            let (low, high) = bins.ends(bin);
            format!("sigma {low:.4} to {high:.4}")
        };
        let ranges: Vec<String> = (0..bins.count()).map(range).collect();
        let header = format!("step,mean,{}", ranges.join(","));
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(file_error(path))?,
        };
        let mut lines = text.split_inclusive('\n');
        let rows = if lines.next().is_some_and(|first| first.trim_end() == header) {
            lines.filter_map(|line| row(line, bins.count())).collect()
        } else {
            Vec::new()
        };
        Ok(Self { path: path.to_owned(), header, rows })
    }

    /// Drops what a run that begins at `step` will measure again.
    pub(crate) fn drop_from(&mut self, step: u64) -> Result<()> {
        self.rows.retain(|row| row.step < step);
        let lines: String = self.rows.iter().map(line).collect();
        Ok(write_atomic(&self.path, format!("{}\n{lines}", self.header).as_bytes())?)
    }

    /// Appends a measurement.
    pub(crate) fn write(&mut self, measured: Measured) -> Result<()> {
        let failed = file_error(&self.path);
        let mut file: File = OpenOptions::new().append(true).open(&self.path).map_err(&failed)?;
        // One write a line, so that a line is either there or not.
        file.write_all(line(&measured).as_bytes()).map_err(failed)?;
        self.rows.push(measured);
        Ok(())
    }

    /// The first with the lowest mean, of those that have one.
    pub(crate) fn best(&self) -> Option<&Measured> {
        self.rows
            .iter()
            .filter(|row| row.is_finite())
            .reduce(|best, row| if row.mean() < best.mean() { row } else { best })
    }

    /// The step at which `patience` measurements in a row were no better than one before.
    pub(crate) fn ended(&self, patience: u64) -> Option<u64> {
        let (mut best, mut without) = (f64::INFINITY, 0);
        for row in &self.rows {
            if row.mean() < best {
                (best, without) = (row.mean(), 0);
            } else {
                without += 1;
            }
            if without >= patience {
                return Some(row.step);
            }
        }
        None
    }
}

/// The shortest digits that give the same number again.
fn line(Measured { step, losses }: &Measured) -> String {
    let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let losses: Vec<String> = losses.iter().map(f64::to_string).collect();
    format!("{step},{mean},{}\n", losses.join(","))
}

fn row(line: &str, bins: usize) -> Option<Measured> {
    let mut fields = line.strip_suffix('\n')?.split(',');
    let step = fields.next()?.parse().ok()?;
    let losses: Vec<f64> = fields.skip(1).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    (losses.len() == bins).then_some(Measured { step, losses })
}

#[cfg(test)]
mod tests {
    use ediffi_core::interval::{LogNormal, SigmaInterval};

    use super::*;

    fn bins(count: usize) -> Bins {
        Bins::new(LogNormal::default(), SigmaInterval::ALL, count)
    }

    fn measured(step: u64, loss: f64) -> Measured {
        Measured { step, losses: vec![loss, 0.1 + loss] }
    }

    #[test]
    fn the_log_comes_back_to_the_last_bit_but_for_what_a_kill_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let mut log = MeasureLog::open(&path, &bins(2)).unwrap();
        log.drop_from(1).unwrap();
        for (step, loss) in [(5, 0.3), (10, 0.1 + 0.2), (15, 0.2), (20, 0.4)] {
            log.write(measured(step, loss)).unwrap();
        }
        let rows = log.rows.clone();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("25,0.1,0.1,0.");
        std::fs::write(&path, &text).unwrap();
        let mut again = MeasureLog::open(&path, &bins(2)).unwrap();
        assert_eq!(again.rows, rows);
        again.drop_from(15).unwrap();
        assert_eq!(MeasureLog::open(&path, &bins(2)).unwrap().rows, rows[..2]);
        assert!(MeasureLog::open(&path, &bins(3)).unwrap().rows.is_empty(), "other ranges are other measurements");
    }

    #[test]
    fn the_best_is_the_first_of_the_lowest_and_patience_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MeasureLog::open(&folder.path().join("a.csv"), &bins(2)).unwrap();
        log.drop_from(1).unwrap();
        for (step, loss) in [(5, 0.3), (10, 0.2), (15, 0.2), (20, 0.25), (25, 0.1)] {
            log.write(measured(step, loss)).unwrap();
        }
        assert_eq!(log.best().unwrap().step, 25);
        assert_eq!((log.ended(1), log.ended(2), log.ended(3)), (Some(15), Some(20), None));
        log.drop_from(25).unwrap();
        assert_eq!(log.best().unwrap().step, 10);
    }

    #[test]
    fn what_is_no_number_is_never_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let mut log = MeasureLog::open(&path, &bins(2)).unwrap();
        log.drop_from(1).unwrap();
        for (step, loss) in [(5, f64::NAN), (10, f64::INFINITY), (15, 0.3), (20, f64::NAN), (25, 0.2)] {
            log.write(measured(step, loss)).unwrap();
            let best = log.best().map(|best| best.step);
            assert_eq!(best, [None, None, Some(15), Some(15), Some(25)][step as usize / 5 - 1]);
        }
        assert_eq!(MeasureLog::open(&path, &bins(2)).unwrap().best().unwrap().step, 25, "the file says so, too");
        assert_eq!((log.ended(2), log.ended(3)), (Some(10), None));
    }
}
