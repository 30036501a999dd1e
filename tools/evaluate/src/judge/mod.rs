//! The judge: a small frozen network that looks at a picture and says what it shows.
//!
//! It is trained on renders that the generator never sees, checked on others, and shipped with its accuracy in the header
//! of its file: [`Judge::open`] refuses one that has not shown at least [`NEEDED`] % on held-out renders.

pub mod architecture;
pub mod check;
pub mod convolutions;
pub mod decode;
pub mod network;
pub mod scenes;
pub mod spoil;
pub mod targets;
pub mod train;
pub mod transformer;
mod verdict;

use std::path::Path;

use ediffi_core::weights::WeightsFile;
use ediffi_train::lineage::fingerprint;
use ediffi_train::pixels::from_rgb;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use architecture::{Architecture, Network};
use network::reduced;
pub use verdict::{Detection, Verdict};
pub(crate) use verdict::{matched, right};

/// The judge of this repository, from its root.
pub const DEFAULT_PATH: &str = "tools/evaluate/judge/v1.safetensors";
/// The percentage of objects, styles and relations that a judge has to recognise before it is used.
pub const NEEDED: f64 = 95.0;

/// Pictures looked at together.
const BATCH: i64 = 64;

/// The judge.
#[derive(Debug)]
pub struct Judge {
    network: Network,
    /// Which network it has.
    pub architecture: Architecture,
    /// What tells its weights from others.
    pub fingerprint: String,
    /// What it got right when it was checked.
    pub accuracy: Option<Accuracy>,
}

/// What a judge got right on held-out renders, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Objects that it found, with the right concept.
    pub recall: f64,
    /// Detections that were right.
    pub precision: f64,
    /// Styles.
    pub style: f64,
    /// Relations of two objects.
    pub relation: f64,
    /// Renders that it was checked on.
    pub renders: usize,
}

impl Judge {
    /// Opens a judge that has shown its accuracy. Refused is one of another format, one that changed since it was checked, and one that was
    /// never checked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let judge = Self::unproven(path)?;
        let wrong = |reason: &str| Error::NoJudge { path: path.to_owned(), reason: reason.to_owned() };
        let accuracy = judge.accuracy.ok_or_else(|| wrong("it was never checked"))?;
        let shares = [
            ("objects", accuracy.recall),
            ("detections", accuracy.precision),
            ("styles", accuracy.style),
            ("relations", accuracy.relation),
        ];
        match shares.into_iter().find(|(_, share)| share.is_nan() || *share < NEEDED) {
            Some((what, found)) => Err(Error::Unreliable { path: path.to_owned(), what, found, needed: NEEDED }),
            None => Ok(judge),
        }
    }

    /// Opens a judge whatever its accuracy, to check it. Refused is one of another format, or changed since it was checked.
    pub fn unproven(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::NoJudge { path: path.to_owned(), reason };
        let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
        let format = file.text("format").unwrap_or("none");
        let known = Architecture::ALL.into_iter().find(|architecture| architecture.format() == format);
        let architecture = known.ok_or_else(|| wrong(format!("its format is {format}, which none has")))?;
        let fingerprint = fingerprint(path)?;
        if let Some(stamped) = file.text("fingerprint").filter(|stamped| *stamped != fingerprint) {
            return Err(wrong(format!("its weights are {fingerprint}, and {stamped} was checked")));
        }
        let accuracy = match file.text("accuracy") {
            Some(text) => Some(serde_json::from_str(text).map_err(|error| wrong(format!("its accuracy: {error}")))?),
            None => None,
        };
        let network = file.build(Device::Cpu, Kind::Float, |scope| Network::new(architecture, scope))?;
        Ok(Self { network, architecture, fingerprint, accuracy })
    }

    /// Looks at pictures of any size; those that are not 64×64 are reduced to it by averaging.
    pub fn look(&self, pictures: &[RgbImage]) -> Result<Vec<Verdict>> {
        let small = pictures.iter().map(small).collect::<Result<Vec<_>>>()?;
        if small.is_empty() { Ok(Vec::new()) } else { self.look_at(&Tensor::f_cat(&small, 0)?) }
    }

    /// Looks at pictures that are tensors already, a few at a time.
    ///
    /// # Shapes
    /// `pictures`: [n, 3, 64, 64] in [-1, 1]
    pub fn look_at(&self, pictures: &Tensor) -> Result<Vec<Verdict>> {
        let _no_grad = tch::no_grad_guard();
        let mut verdicts = Vec::new();
        for part in pictures.f_split(BATCH, 0)? {
            verdicts.extend(decode::decode(&self.network.forward(&part.f_clamp(-1.0, 1.0)?)?)?);
        }
        Ok(verdicts)
    }
}

/// A picture at the judge's size, [1, 3, 64, 64].
fn small(picture: &RgbImage) -> Result<Tensor> {
    reduced(from_rgb(&[picture.as_raw()], picture.height().into(), picture.width().into())?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ediffi_core::weights::{Fresh, Scope, save};

    use super::*;

    /// An untrained judge in a file whose header says these things.
    fn untrained(path: &Path, architecture: Architecture, notes: &[(&str, &str)]) {
        let mut fresh = Fresh::new(1, Device::Cpu);
        Network::new(architecture, Scope::root(&mut fresh)).unwrap();
        let tensors: Vec<_> =
            fresh.into_named().into_iter().map(|(name, x)| (name, x.to_kind(Kind::BFloat16))).collect();
        let notes: HashMap<_, _> = notes.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        save(path, &tensors, notes).unwrap();
    }

    fn accuracy(relation: f64) -> String {
        format!(r#"{{"recall":99,"precision":98,"style":97,"relation":{relation},"renders":10}}"#)
    }

    #[test]
    fn only_a_judge_that_is_right_often_enough_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("judge.safetensors");
        const FIRST: Architecture = Architecture::Convolutions;
        untrained(&path, FIRST, &[("format", FIRST.format())]);
        let fingerprint = Judge::unproven(&path).unwrap().fingerprint;
        let refused = |notes: &[(&str, &str)]| {
            untrained(&path, FIRST, notes);
            Judge::open(&path).unwrap_err().to_string()
        };
        let format = ("format", FIRST.format());
        assert!(refused(&[format]).contains("judge.safetensors` is no judge of this version: it was never checked"));
        assert!(refused(&[("format", "other")]).contains("its format is other"));
        let stamp = ("fingerprint", fingerprint.as_str());
        assert!(refused(&[format, stamp, ("accuracy", &accuracy(94.9))]).contains("94.9 % of relations, and 95 %"));
        assert!(refused(&[format, ("fingerprint", "0"), ("accuracy", &accuracy(99.0))]).contains("and 0 was checked"));
        assert!(refused(&[format, stamp, ("accuracy", "[]")]).contains("its accuracy"));
        untrained(&path, FIRST, &[format, stamp, ("accuracy", &accuracy(95.0))]);
        assert_eq!(Judge::open(&path).unwrap().accuracy.unwrap().relation, 95.0);
        assert!(
            Judge::open(folder.path().join("none.safetensors")).unwrap_err().to_string().contains("none.safetensors")
        );
    }

    #[test]
    fn a_checked_judge_keeps_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from.safetensors"), folder.path().join("to.safetensors"));
        // The second one, whose architecture its file says.
        untrained(&from, Architecture::Transformer, &[("format", Architecture::Transformer.format()), ("steps", "7")]);
        let right = crate::bootstrap::share(&[(1.0, 1.0)]);
        let shares =
            check::Facts { recall: right, precision: right, style: right, relation: right, ..Default::default() };
        let report = check::Report { kind: String::new(), renders: 40, shares };
        check::stamp(&Judge::unproven(&from).unwrap(), &from, &to, &report).unwrap();
        let judge = Judge::open(&to).unwrap();
        assert_eq!(judge.fingerprint, Judge::unproven(&from).unwrap().fingerprint);
        assert_eq!(judge.architecture, Architecture::Transformer);
        assert_eq!(judge.accuracy.map(|accuracy| (accuracy.recall, accuracy.renders)), Some((100.0, 40)));
    }

    #[test]
    fn larger_pictures_are_averaged_to_the_judge_s_size() {
        let small = RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 4) as u8, (y * 4) as u8, ((x ^ y) * 4) as u8]));
        let large = RgbImage::from_fn(256, 256, |x, y| *small.get_pixel(x / 4, y / 4));
        let apart = (super::small(&small).unwrap() - super::small(&large).unwrap()).abs().max().double_value(&[]);
        assert!(apart < 1e-6, "{apart}");
        assert_eq!(super::small(&RgbImage::new(100, 70)).unwrap().size(), [1, 3, 64, 64]);
    }
}
