//! Where a network comes from: written into checkpoints and exports, and asked for when they are used again.
//!
//! An expert is of use only beside the T5 and the CLIP that it was trained with, and a run that goes on is the run it was
//! only with the settings it began with.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::weights::WeightsFile;

use super::Result;

/// Named facts about a training: fingerprints of the files it stands on, and settings.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    facts: Vec<(&'static str, String)>,
}

impl Lineage {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.facts.push((key, value.to_string()));
        self
    }

    /// Adds the fingerprint of a file.
    pub fn with_file(self, key: &'static str, path: &Path) -> Result<Self> {
        Ok(self.with(key, fingerprint(path)?))
    }

    /// Adds the CLIP in the folder `model`, and the tokenizers, which are trained with it.
    pub fn with_clip(self, model: &Path) -> Result<Self> {
        self.with_file("clip", &model.join("clip/model.safetensors"))?
            .with_file("clip-tokenizer", &model.join("clip/tokenizer.json"))?
            .with_file("t5-tokenizer", &model.join("t5/tokenizer.json"))
    }

    /// Adds CLIP and T5 in the folder `model`.
    pub fn with_encoders(self, model: &Path) -> Result<Self> {
        self.with_clip(model)?.with_file("t5", &model.join("t5/model.safetensors"))
    }

    /// The facts as the header of a file holds them.
    pub fn notes(&self) -> HashMap<String, String> {
        self.facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    /// Refuses a file of another lineage, naming what differs.
    pub fn check(&self, path: &Path) -> Result<()> {
        let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
        for (key, expected) in &self.facts {
            let found = file.text(key).unwrap_or("nothing");
            if found != expected {
                let path = path.display();
                return Err(format!("{path} was trained with {key} {found}, not {expected}").into());
            }
        }
        Ok(())
    }
}

/// 64 bits of FNV-1a over the bytes of a file: enough to tell versions of a file apart, not to withstand malice. Of weights
/// only the values count: the order of the header changes whenever the same weights are written again.
fn fingerprint(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let header = match bytes.first_chunk::<8>() {
        Some(length) if path.extension().is_some_and(|extension| extension == "safetensors") => {
            usize::try_from(u64::from_le_bytes(*length))?.saturating_add(8)
        }
        _ => 0,
    };
    let values = bytes.get(header..).ok_or_else(|| format!("{} is cut short", path.display()))?;
    let hash = values
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use ediffi_core::weights::save;
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn another_lineage_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (t5, weights) = (folder.path().join("t5.json"), folder.path().join("w.safetensors"));
        std::fs::write(&t5, "one").unwrap();
        let lineage = |batch: u64| Lineage::default().with("batch", batch).with_file("t5", &t5).unwrap();
        let one = [("w".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)))];
        save(&weights, &one, lineage(16).notes()).unwrap();
        lineage(16).check(&weights).unwrap();
        let error = lineage(8).check(&weights).unwrap_err().to_string();
        assert!(error.contains("w.safetensors was trained with batch 16, not 8"), "{error}");
        std::fs::write(&t5, "two").unwrap();
        assert!(lineage(16).check(&weights).unwrap_err().to_string().contains("with t5 "));
        save(&weights, &one, HashMap::new()).unwrap();
        assert!(lineage(16).check(&weights).unwrap_err().to_string().contains("with batch nothing"));
    }

    /// The header has other notes, and says them in another order.
    #[test]
    fn weights_that_are_written_again_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let write = |value: f64, notes: Lineage| {
            let one = [("w".to_owned(), Tensor::full([4], value, (Kind::Float, Device::Cpu)))];
            save(&path, &one, notes.notes()).unwrap();
            fingerprint(&path).unwrap()
        };
        let first = write(1.0, Lineage::default());
        assert_eq!(write(1.0, Lineage::default().with("batch", 1).with("seed", 2)), first);
        assert_ne!(write(2.0, Lineage::default()), first);
        std::fs::write(&path, [9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert!(fingerprint(&path).unwrap_err().to_string().contains("cut short"));
    }

    /// The published test vectors of FNV-1a.
    #[test]
    fn fingerprints_are_fnv() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for (text, hash) in [("", "cbf29ce484222325"), ("foobar", "85944171f73967e8")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(fingerprint(&path).unwrap(), hash);
        }
    }
}
