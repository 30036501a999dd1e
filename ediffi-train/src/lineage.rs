//! What a network was trained with: settings, and fingerprints of the files that it depends on.
//!
//! Checkpoints and exports hold the lineage, and it is checked before they are used again. An expert works only with the
//! encoders that it was trained with, and a resumed run equals an unbroken one only with the settings that it began with.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write, copy, sink};
use std::path::Path;

use ediffi_core::weights::WeightsFile;

use crate::error::file_error;
use crate::{Error, Result};

/// The note that lists the names of the facts, so that one that was taken away is missed.
const NAMES: &str = "lineage";
/// What stands between two of them.
const BETWEEN: &str = "\n";

/// Named facts about a training.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    facts: Vec<(String, String)>,
}

impl Lineage {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, fact: &str, value: impl ToString) -> Self {
        self.facts.push((fact.to_owned(), value.to_string()));
        self
    }

    /// Adds the fingerprint of a file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, [`Error::Checkpoint`] for weights that are cut short.
    pub fn with_file(self, fact: &str, path: &Path) -> Result<Self> {
        Ok(self.with(fact, fingerprint(path)?))
    }

    /// Adds the fingerprint of data that is in no file, such as data that a program draws.
    #[must_use]
    pub fn with_bytes(self, fact: &str, bytes: &[u8]) -> Self {
        self.with(fact, Fnv::START.with(bytes))
    }

    /// The facts as they are stored in the header of a file, with a list of their names.
    #[must_use]
    pub fn notes(&self) -> HashMap<String, String> {
        let names: Vec<&str> = self.facts.iter().map(|(fact, _)| fact.as_str()).collect();
        let mut notes: HashMap<String, String> = self.facts.iter().cloned().collect();
        notes.insert(NAMES.to_owned(), names.join(BETWEEN));
        notes
    }

    /// Refuses a weights file or checkpoint of another lineage.
    ///
    /// # Errors
    /// [`Error::Lineage`] naming the first fact that differs, that the file has not, or that it alone has; a file that cannot be read.
    pub fn check(&self, path: &Path) -> Result<()> {
        self.open(path).map(|_| ())
    }

    /// Opens a weights file or checkpoint of this lineage.
    pub(crate) fn open(&self, path: &Path) -> Result<WeightsFile> {
        let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
        let refused = |fact: &str, expected: Option<&String>| {
            let (found, expected) = (file.text(fact).map(str::to_owned), expected.cloned());
            Err(Error::Lineage { path: path.to_owned(), fact: fact.to_owned(), found, expected })
        };
        if let Some((fact, expected)) = self.facts.iter().find(|(fact, expected)| file.text(fact) != Some(expected)) {
            return refused(fact, Some(expected));
        }
        // A setting that was taken away since. Older files have no list of their facts.
        let is_known = |name: &str| self.facts.iter().any(|(fact, _)| fact == name);
        let mut facts = file.text(NAMES).unwrap_or_default().split(BETWEEN).filter(|fact| !fact.is_empty());
        if let Some(removed) = facts.find(|fact| !is_known(fact)) {
            return refused(removed, None);
        }
        Ok(file)
    }
}

/// 64 bits of FNV-1a over the bytes of a file. This tells versions of a file apart; it does not protect against a forged file. Of
/// weights (`.safetensors`) only the values count, since the header changes whenever the same weights are written again.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read, [`Error::Checkpoint`] for weights that are cut short.
pub fn fingerprint(path: &Path) -> Result<String> {
    let failed = file_error(path);
    let mut file = File::open(path).map_err(&failed)?;
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        let short = || Error::Checkpoint { path: path.to_owned(), reason: "it is cut short".to_owned() };
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| short())?;
        let header = u64::from_le_bytes(length);
        if copy(&mut (&file).take(header), &mut sink()).map_err(&failed)? < header {
            return Err(short());
        }
    }
    let mut hash = Fnv::START;
    copy(&mut file, &mut hash).map_err(failed)?;
    Ok(hash.to_string())
}

/// A number for these bytes, by which they are told apart from others. It is the same on every machine.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    Fnv::START.with(bytes).0
}

/// FNV-1a of 64 bits.
struct Fnv(u64);

impl Fnv {
    const START: Self = Self(0xCBF2_9CE4_8422_2325);

    fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)))
    }
}

impl Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self = Self(self.0).with(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Display for Fnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::weights::save;
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn write(path: &Path, value: f64, notes: &Lineage) {
        let one = [("w".to_owned(), Tensor::full([4], value, (Kind::Float, Device::Cpu)))];
        save(path, &one, notes.notes()).unwrap();
    }

    #[test]
    fn another_lineage_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (t5, weights) = (folder.path().join("t5.json"), folder.path().join("w.safetensors"));
        std::fs::write(&t5, "one").unwrap();
        let lineage = |batch: u64| Lineage::default().with("batch", batch).with_file("t5", &t5).unwrap();
        write(&weights, 1.0, &lineage(16));
        lineage(16).check(&weights).unwrap();
        let error = lineage(8).check(&weights).unwrap_err();
        assert!(error.to_string().ends_with("w.safetensors was trained with batch 16, not 8"), "{error}");
        std::fs::write(&t5, "two").unwrap();
        let error = lineage(16).check(&weights).unwrap_err();
        assert!(matches!(error, Error::Lineage { fact, .. } if fact == "t5"));
        write(&weights, 1.0, &Lineage::default());
        assert!(lineage(16).check(&weights).unwrap_err().to_string().contains("does not say with which batch"));
    }

    #[test]
    fn a_setting_that_was_taken_away_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let batch = || Lineage::default().with("batch", 16);
        write(&path, 1.0, &batch().with("tail", "0.1 from 3 to 80").with("parent", "ab"));
        batch().with("tail", "0.1 from 3 to 80").with("parent", "ab").check(&path).unwrap();
        let error = batch().with("parent", "ab").check(&path).unwrap_err().to_string();
        assert!(error.ends_with("was trained with tail 0.1 from 3 to 80, and there is none now"), "{error}");
        let error = batch().with("tail", "0.1 from 3 to 80").check(&path).unwrap_err();
        assert!(matches!(&error, Error::Lineage { fact, expected: None, .. } if fact == "parent"), "{error}");
        // Notes of an older file, which are no facts.
        let notes = [("batch", "16"), ("tail", "0.1 from 3 to 80"), ("step", "3")];
        let one = [("w".to_owned(), Tensor::full([4], 1.0, (Kind::Float, Device::Cpu)))];
        save(&path, &one, notes.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap();
        batch().check(&path).unwrap();
    }

    /// The header has other notes, and says them in another order.
    #[test]
    fn weights_that_are_written_again_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let print = |value: f64, notes: Lineage| {
            write(&path, value, &notes);
            fingerprint(&path).unwrap()
        };
        let first = print(1.0, Lineage::default());
        assert_eq!(print(1.0, Lineage::default().with("batch", 1).with("seed", 2)), first);
        assert_ne!(print(2.0, Lineage::default()), first);
        for bytes in [&[9, 0, 0, 0, 0, 0, 0, 0][..], &[1, 2]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(fingerprint(&path).unwrap_err().to_string().contains("cut short"));
        }
        let absent = fingerprint(&folder.path().join("absent")).unwrap_err();
        assert!(matches!(absent, Error::File { .. }), "{absent}");
    }

    /// The published test vectors of FNV-1a, 64 bits (Fowler, Noll & Vo).
    #[test]
    fn the_fingerprint_is_fnv_1a() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        for (text, expected) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(fingerprint(&path).unwrap(), expected);
            assert_eq!(Lineage::default().with_bytes("text", text.as_bytes()).notes()["text"], expected);
        }
    }
}
