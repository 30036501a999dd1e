//! A file of LoRA, opened: its header is read and checked, its matrices are not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use tch::{Device, Kind, Tensor};

use super::change::Change;
use super::keys::{self, Half, Key, Module};
use super::places::Places;
use super::scaling::{METADATA, Scaling};
use super::{Lora, LoraPart};
use crate::brief::brief;
use crate::weights::folder::find_called;
use crate::weights::params::Names;
use crate::weights::sample::sample;
use crate::weights::stored::{StoredFile, kind_of};
use crate::{Error, Result};

/// How many names a message lists.
const SHOWN: usize = 4;

/// A file of LoRA whose header was read. Every name in it is known, and the matrices of every layer fit each other.
#[derive(Debug)]
pub struct LoraFile {
    path: PathBuf,
    scale: f64,
    file: Arc<StoredFile>,
    layers: BTreeMap<(LoraPart, Module), Layer>,
}

/// The change of one layer.
#[derive(Debug)]
struct Layer {
    up: TensorInfo,
    down: TensorInfo,
    /// alpha / rank
    factor: f64,
}

/// The tensors of one layer, as far as they were found.
#[derive(Debug, Default)]
struct Parts<'a> {
    up: Option<&'a TensorInfo>,
    down: Option<&'a TensorInfo>,
    alpha: Option<&'a TensorInfo>,
}

impl LoraFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`Error::Lora`] for a scale that is not finite, for names that are not those of a LoRA, for another kind of adapter, which it names, and for
    /// matrices that do not fit each other; [`Error::WeightsPickled`] for a file of pickled Python, and those of every file of weights.
    pub fn open(lora: &Lora) -> Result<Self> {
        let path = located(&lora.path)?;
        let wrong = |reason: String| Error::Lora { path: path.clone(), reason };
        if !lora.scale.is_finite() {
            return Err(wrong(format!("its scale is {}, which is not finite", lora.scale)));
        }
        let file = Arc::new(StoredFile::open(&path)?);
        let infos: BTreeMap<String, &TensorInfo> = file.infos().collect();
        let mut found: BTreeMap<(LoraPart, Module), Parts<'_>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, info) in &infos {
            match keys::parse(name) {
                Err(Some(what)) => {
                    return Err(wrong(format!("`{}` is of {what}, which is not supported", brief(name))));
                }
                Err(None) => unknown.push(name.as_str()),
                Ok(Key { part, module, half }) => {
                    let parts = found.entry((part, module)).or_default();
                    let place = match half {
                        Half::Up => &mut parts.up,
                        Half::Down => &mut parts.down,
                        Half::Alpha => &mut parts.alpha,
                    };
                    if place.replace(*info).is_some() {
                        return Err(wrong(format!("`{}` says again what another tensor says", brief(name))));
                    }
                }
            }
        }
        if !unknown.is_empty() {
            return Err(wrong(format!("these names are not those of a LoRA: {}", list(&unknown))));
        }
        if found.is_empty() {
            return Err(wrong("it holds no LoRA".to_owned()));
        }
        let of_peft = infos.keys().any(|name| name.starts_with(keys::PEFT));
        let scaling = match file.text(METADATA) {
            Some(text) => Scaling::of_header(&path, text)?,
            // Alpha is in a file of its own there, and a guess would be another picture.
            None if of_peft && found.values().any(|parts| parts.alpha.is_none()) => Scaling::beside(&path)?,
            None => Scaling::default(),
        };
        let mut layers = BTreeMap::new();
        for ((part, module), parts) in found {
            let layer = layer(&file, &parts, |rank| scaling.factor(part, rank));
            let layer = layer?.map_err(|reason| wrong(format!("`{}`: {reason}", brief(module.name()))))?;
            if !(lora.network_only && part != LoraPart::Network) {
                layers.insert((part, module), layer);
            }
        }
        if layers.is_empty() {
            return Err(wrong("it holds nothing for the network that denoises".to_owned()));
        }
        drop(infos);
        Ok(Self { path, scale: lora.scale, file, layers })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it changes.
    #[must_use]
    pub fn parts(&self) -> BTreeSet<LoraPart> {
        self.layers.keys().map(|(part, _)| *part).collect()
    }

    /// Passes to `update` what tells this LoRA from others: its scale, and what [`WeightsFile::sample`](crate::weights::WeightsFile::sample)
    /// passes of its tensors.
    ///
    /// # Errors
    /// A file that is cut short; [`Error::Cancelled`].
    pub fn sample(&self, mut update: impl FnMut(&[u8])) -> Result<()> {
        update(format!("LoRA {:?}\n", self.scale).as_bytes());
        for ((part, module), Layer { up, down, factor }) in &self.layers {
            update(format!("{part:?} {factor:?}\n").as_bytes());
            for (half, info) in [("up", up), ("down", down)] {
                sample((&self.file, info), &format!("{} {half}", module.name()), false, &mut update)?;
            }
        }
        Ok(())
    }

    /// What it changes of the weights of `part`, whose names and shapes these are, by their names. At scale 0 that is nothing, but every layer
    /// has to have a place all the same.
    pub(in crate::weights) fn changes<'a>(
        &self,
        part: LoraPart,
        tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
        names: Names,
    ) -> Result<BTreeMap<String, Change>> {
        let wrong = |reason: String| Error::Lora { path: self.path.clone(), reason };
        let places = Places::new(tensors, names);
        let (mut changes, mut lost, mut other) = (BTreeMap::new(), Vec::new(), None);
        for ((_, module), Layer { up, down, factor }) in self.layers.iter().filter(|((own, _), _)| *own == part) {
            let Some((name, shape)) = places.find(module) else {
                lost.push(module.name());
                continue;
            };
            let own: Vec<usize> = up.shape.iter().take(1).chain(down.shape.iter().skip(1)).copied().collect();
            if shape.first() != own.first() || product(shape) != product(&own) {
                other.get_or_insert_with(|| {
                    format!("`{}` has shape {own:?} there, and {shape:?} in these weights", brief(module.name()))
                });
                continue;
            }
            let (file, factor) = (Arc::clone(&self.file), self.scale * factor);
            let change = Change { file, up: up.clone(), down: down.clone(), factor };
            if changes.insert(name.to_owned(), change).is_some() {
                return Err(wrong(format!("it changes `{}` twice", brief(name))));
            }
        }
        if !lost.is_empty() {
            let lost = list(&lost);
            let what = part.prefix();
            other = Some(format!("its {what} has layers that have no place here: {lost}"));
        }
        if let Some(reason) = other {
            return Err(wrong(format!("it was made for another base: {reason}")));
        }
        changes.retain(|_, change| change.factor != 0.0);
        Ok(changes)
    }
}

/// The matrices of a layer, if they are of one rank. `by_rank` is alpha / rank where no tensor says alpha.
fn layer(
    file: &StoredFile,
    parts: &Parts<'_>,
    by_rank: impl FnOnce(usize) -> f64,
) -> Result<std::result::Result<Layer, String>> {
    let (Some(up), Some(down)) = (parts.up, parts.down) else {
        let half = if parts.up.is_none() { "up" } else { "down" };
        return Ok(Err(format!("the matrix `{half}` is missing")));
    };
    let is_float = |info: &TensorInfo| {
        kind_of(info.dtype).is_some_and(|kind| matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double))
    };
    if let Some(other) = [Some(up), Some(down), parts.alpha].into_iter().flatten().find(|info| !is_float(info)) {
        return Ok(Err(format!("dtype {:?} is not one of weights", other.dtype)));
    }
    let rank = down.shape.first().copied().unwrap_or(0);
    let matrices = up.shape.len() >= 2 && down.shape.len() >= 2 && rank > 0;
    if !matrices || product(up.shape.get(1..).unwrap_or_default()) != Some(rank) {
        return Ok(Err(format!("its matrices {:?} and {:?} are not of one rank", up.shape, down.shape)));
    }
    let factor = match parts.alpha {
        None => by_rank(rank),
        Some(alpha) if product(&alpha.shape) != Some(1) => {
            return Ok(Err(format!("alpha has shape {:?} and is no number", alpha.shape)));
        }
        Some(alpha) => number(&file.tensor(alpha, Device::Cpu, Some(Kind::Double))?)? / rank as f64,
    };
    if !factor.is_finite() {
        return Ok(Err("alpha is not finite".to_owned()));
    }
    Ok(Ok(Layer { up: up.clone(), down: down.clone(), factor }))
}

fn number(tensor: &Tensor) -> Result<f64> {
    Ok(f64::try_from(tensor.f_view([1])?.f_sum(Kind::Double)?)?)
}

fn product(sides: &[usize]) -> Option<usize> {
    sides.iter().try_fold(1_usize, |product, side| product.checked_mul(*side))
}

/// The file itself, or that in a folder as diffusers saves it.
fn located(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return find_called(path, "pytorch_lora_weights", None);
    }
    let pickled =
        path.extension().is_some_and(|extension| ["bin", "ckpt", "pt", "pth"].iter().any(|end| extension == *end));
    if pickled && path.is_file() {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let expected = name(&path.with_extension("safetensors"));
        return Err(Error::WeightsPickled { folder, file: name(path), expected });
    }
    Ok(path.to_owned())
}

/// The first few of some names.
fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", brief(name))).collect();
    let rest = names.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
