//! Building a network from safetensors files, with everything that is wrong reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;
use tch::{Device, Kind, Tensor};

use super::mapped::{MappedFile, kind_of};
use super::params::{Params, Role, Scope, Spec};
use super::table::Table;
use crate::{Error, Result, ShapeMismatch};

/// Maps a name in the file to the name that the network uses; `None` for a tensor the network has no use for.
pub type Names = fn(&str) -> Option<String>;

/// One network's weights: a safetensors file, or the shards of one.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    shards: Vec<MappedFile>,
    /// Network name → shard and the tensor's description there.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

impl WeightsFile {
    /// Opens `path`: a `.safetensors` file, an index (`.safetensors.index.json`) of shards beside it, or a folder that
    /// holds `model.safetensors` or its index.
    ///
    /// # Errors
    /// A file that is missing, unreadable or no safetensors file, named.
    pub fn open(path: &Path, names: Names) -> Result<Self> {
        let path = if path.is_dir() { in_folder(path)? } else { path.to_owned() };
        let files = if path.extension().is_some_and(|e| e == "json") { shards_of(&path)? } else { vec![path.clone()] };
        let shards = files.iter().map(|file| MappedFile::open(file)).collect::<Result<Vec<_>>>()?;
        let mut tensors = BTreeMap::new();
        for (shard, file) in shards.iter().enumerate() {
            for (stored, info) in file.infos() {
                if let Some(name) = names(&stored) {
                    tensors.insert(name, (shard, info.clone()));
                }
            }
        }
        Ok(Self { path, shards, tensors })
    }

    /// Free text stored in the header under `key`.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.shards.iter().find_map(|shard| shard.text(key))
    }

    /// Names and shapes against what the network asks for.
    fn check(&self, table: &Table) -> Result<()> {
        let mut missing = Vec::new();
        let mut mismatched = Vec::new();
        let mut asked = BTreeSet::new();
        for spec in table.specs() {
            asked.insert(spec.name.as_str());
            match self.tensors.get(&spec.name) {
                None => missing.push(spec.name.clone()),
                Some((_, info)) => {
                    let found: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
                    let float = kind_of(info.dtype)
                        .is_some_and(|k| matches!(k, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double));
                    if found != spec.shape || !float {
                        mismatched.push(ShapeMismatch {
                            name: spec.name.clone(),
                            expected: spec.shape.clone(),
                            found,
                            dtype: format!("{:?}", info.dtype),
                        });
                    }
                }
            }
        }
        let unexpected: Vec<String> =
            self.tensors.keys().filter(|name| !asked.contains(name.as_str())).cloned().collect();
        if missing.is_empty() && unexpected.is_empty() && mismatched.is_empty() {
            Ok(())
        } else {
            Err(Error::Weights { path: self.path.clone(), missing, unexpected, mismatched })
        }
    }

    /// Builds a network from the checked file.
    ///
    /// # Errors
    /// [`Error::Weights`] with every missing, unexpected and mismatched tensor, or a tensor that cannot be read.
    pub fn build<T>(&self, device: Device, kind: Kind, build: impl Fn(Scope<'_>) -> Result<T>) -> Result<T> {
        self.check(&Table::of(&build)?)?;
        let mut loader = Loader { file: self, device, kind };
        build(Scope::root(&mut loader))
    }
}

/// Reads a network from `path` (see [`WeightsFile::open`]) onto `device` in the precision `kind`.
///
/// # Errors
/// As [`WeightsFile::open`] and [`WeightsFile::build`].
pub fn load<T>(
    path: &Path,
    names: Names,
    device: Device,
    kind: Kind,
    build: impl Fn(Scope<'_>) -> Result<T>,
) -> Result<T> {
    WeightsFile::open(path, names)?.build(device, kind, build)
}

struct Loader<'a> {
    file: &'a WeightsFile,
    device: Device,
    kind: Kind,
}

impl Params for Loader<'_> {
    fn get(&mut self, spec: &Spec) -> Result<Tensor> {
        let (shard, info) = self.file.tensors.get(&spec.name).ok_or_else(|| Error::Weights {
            path: self.file.path.clone(),
            missing: vec![spec.name.clone()],
            unexpected: Vec::new(),
            mismatched: Vec::new(),
        })?;
        let kind = match spec.role {
            Role::Weight => self.kind,
            Role::Norm => Kind::Float,
        };
        let file =
            self.file.shards.get(*shard).ok_or_else(|| Error::WeightsTruncated { path: self.file.path.clone() })?;
        tracing::trace!(file = %file.path().display(), tensor = spec.name, "copying");
        file.tensor(info, self.device, kind)
    }
}

fn in_folder(folder: &Path) -> Result<PathBuf> {
    ["model.safetensors", "model.safetensors.index.json"]
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::ReadFile {
            path: folder.join("model.safetensors"),
            source: std::io::ErrorKind::NotFound.into(),
        })
}

/// The files that an index names, each beside it.
fn shards_of(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|source| Error::ReadFile { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|source| Error::Json { path: index.to_owned(), source })?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            // A shard is a plain file name: an index must not lead out of its folder.
            if Path::new(&name).components().count() == 1 && !name.starts_with('.') {
                Ok(folder.join(name))
            } else {
                Err(Error::PathOutside { folder: folder.to_owned(), path: PathBuf::from(name) })
            }
        })
        .collect()
}
