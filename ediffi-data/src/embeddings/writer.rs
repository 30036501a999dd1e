//! Writing embeddings, shard after shard.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ediffi_core::files::remove_unfinished;
use ediffi_core::weights;
use tch::Tensor;

use super::manifest::{FORMAT, Kept, manifest, shard};
use super::stored::{ENDS, join};
use crate::error::expect_setting;
use crate::{Error, Result};

/// Writes embeddings into a folder. What is there already is kept.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    kept: Kept,
    /// The next shard to look for, and how far the one behind it is.
    next: usize,
    step: usize,
}

impl Writer {
    /// Begins a folder, or goes on with one of the same data and encoder.
    ///
    /// # Errors
    /// [`Error::OtherEmbeddings`] for a folder of other data, another encoder, or shards of another length; [`Error::Setting`] for shards of no rows;
    /// [`Error::Core`] for files that cannot be read or written.
    pub fn open(folder: &Path, kept: &Kept) -> Result<Self> {
        kept.check()?;
        let path = manifest(folder);
        if path.exists() {
            let found = Kept::read(folder)?;
            found.expect(&path, &kept.data, &kept.encoder)?;
            for (fact, found, expected) in
                [("a number of samples of", found.samples, kept.samples), ("rows in a shard of", found.rows, kept.rows)]
            {
                if found != expected {
                    let (found, expected) = (found.to_string(), expected.to_string());
                    return Err(Error::OtherEmbeddings { path, fact, found, expected });
                }
            }
        } else {
            kept.write(folder)?;
        }
        Ok(Self { folder: folder.to_owned(), kept: kept.clone(), next: 0, step: 1 })
    }

    /// As one of several programs that fill one folder: of the shards, each takes every `programs`-th, from number `program` on.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `program` is below `programs`.
    pub fn one_of(self, program: usize, programs: usize) -> Result<Self> {
        expect_setting(program < programs, "program", || format!("{program} is not below {programs}"))?;
        Ok(Self { next: program, step: programs, ..self })
    }

    /// The samples of the first shard that is missing, for which [`Writer::write`] waits. None if all are there.
    pub fn pending(&mut self) -> Option<Range<usize>> {
        while self.next < self.kept.shards() && shard(&self.folder, self.next).exists() {
            self.next = self.next.saturating_add(self.step);
        }
        (self.next < self.kept.shards()).then(|| self.kept.samples_of(self.next))
    }

    /// Writes the rows of the samples that are pending, in their order: each has the same names, each name tensors of one kind, and as many
    /// dimensions in all rows. Of tensors of two dimensions or more, the first may differ from row to row, as numbers of tokens do.
    ///
    /// # Errors
    /// [`Error::Embeddings`] for rows that do not fit, [`Error::Core`] for a file that cannot be written.
    pub fn write(&mut self, rows: Vec<Vec<(String, Tensor)>>) -> Result<()> {
        let Some(samples) = self.pending() else { return Ok(()) };
        let path = shard(&self.folder, self.next);
        let wrong = |reason: String| Error::Embeddings { path: path.clone(), reason };
        if rows.len() != samples.len() {
            return Err(wrong(format!("{} rows for samples {samples:?}", rows.len())));
        }
        let mut by_name: Vec<(String, Vec<Tensor>)> = Vec::new();
        for (number, row) in rows.into_iter().enumerate() {
            for (place, (name, tensor)) in row.into_iter().enumerate() {
                if number == 0 {
                    by_name.push((name, vec![tensor]));
                    continue;
                }
                let fits = by_name.get_mut(place).filter(|(known, tensors)| *known == name && tensors.len() == number);
                let (_, tensors) =
                    fits.ok_or_else(|| wrong(format!("row {number} has `{name}` where others have not")))?;
                tensors.push(tensor);
            }
        }
        let mut stored = Vec::new();
        for (name, tensors) in by_name {
            if tensors.len() != samples.len() || name.ends_with(ENDS) || stored.iter().any(|(known, _)| *known == name)
            {
                return Err(wrong(format!("`{name}` is not in every row, is there twice, or ends with `{ENDS}`")));
            }
            stored.extend(join(&name, &tensors).map_err(|reason| wrong(format!("`{name}`: {reason}")))?);
        }
        remove_unfinished(&path)?;
        let texts = [("format", FORMAT), ("data", self.kept.data.as_str()), ("encoder", self.kept.encoder.as_str())];
        let mut texts: HashMap<String, String> = texts.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        texts.insert("first".to_owned(), samples.start.to_string());
        weights::save(&path, &stored, texts)?;
        Ok(())
    }
}
