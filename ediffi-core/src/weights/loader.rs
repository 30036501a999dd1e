//! Building a network from safetensors files, with everything that is wrong reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use tch::{Device, Kind, Tensor};

use super::folder;
use super::lent::Lent;
use super::lora::{Change, LoraFile, LoraPart};
use super::original::{Original, View};
use super::params::{Names, Params, Role, Scope, Spec};
use super::sample::sample;
use super::stored::{StoredFile, kind_of};
use super::table::Table;
use crate::{Error, Result, ShapeMismatch, interrupt};

/// One network's weights: a safetensors file, or the shards of one.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    shards: Vec<Arc<StoredFile>>,
    /// Network name → shard and the tensor's description there.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    names: Names,
    /// Those that lie in the file the other way round.
    transposed: BTreeSet<String>,
    /// What is added to tensors when they are loaded, one after the other.
    changes: BTreeMap<String, Vec<Change>>,
}

impl WeightsFile {
    /// Opens `path`: a `.safetensors` file, an index (`.safetensors.index.json`) of shards beside it, or a folder that
    /// holds one of them under a published name (see [`find`](super::find)).
    ///
    /// If two stored names map to the same name, the one that comes last in the alphabet is read.
    ///
    /// # Errors
    /// [`Error::ReadFile`], [`Error::Json`], [`Error::PathOutside`], [`Error::WeightsFormat`] or [`Error::WeightsPointer`],
    /// naming the file.
    pub fn open(path: &Path, names: Names) -> Result<Self> {
        let path = if path.is_dir() { folder::find(path, None)? } else { path.to_owned() };
        let is_index = path.extension().is_some_and(|extension| extension == "json");
        let files = if is_index { folder::shards(&path, names)? } else { vec![path.clone()] };
        let shards = files.iter().map(|file| Ok(Arc::new(StoredFile::open(file)?))).collect::<Result<Vec<_>>>()?;
        let mut tensors = BTreeMap::new();
        let stored: BTreeMap<String, (usize, &TensorInfo)> = shards
            .iter()
            .enumerate()
            .flat_map(|(shard, file)| file.infos().map(move |(stored, info)| (stored, (shard, info))))
            .collect();
        for (stored, (shard, info)) in stored {
            if let Some(name) = names(&stored) {
                tensors.insert(name, (shard, info.clone()));
            }
        }
        Ok(Self { path, shards, tensors, names, transposed: BTreeSet::new(), changes: BTreeMap::new() })
    }

    /// Opens a part of a checkpoint of one file in the [original layout](Original), as if it was in a folder of its own: `names` maps the names
    /// that it has there.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::Weights`] for a tensor whose shape is not that of its place.
    pub fn original(path: &Path, part: Original, names: Names) -> Result<Self> {
        let file = StoredFile::open(path)?;
        let (mut tensors, mut transposed, mut mismatched) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let infos: BTreeMap<String, &TensorInfo> = file.infos().collect();
        let stored: Vec<String> = infos.keys().cloned().collect();
        for (own, name, view) in part.renamed(&stored) {
            let Some((name, info)) = names(&name).zip(infos.get(own)) else { continue };
            let Some(info) = view.of(info) else {
                let found = info.shape.iter().map(|&side| side as i64).collect();
                let (name, dtype) = (own.to_owned(), format!("{:?}", info.dtype));
                mismatched.push(ShapeMismatch { name, expected: Vec::new(), found, dtype });
                continue;
            };
            if view == View::Transposed {
                transposed.insert(name.clone());
            }
            tensors.insert(name, (0, info));
        }
        let path = path.to_owned();
        if !mismatched.is_empty() {
            return Err(Error::Weights { path, missing: Vec::new(), unexpected: Vec::new(), mismatched });
        }
        Ok(Self { path, shards: vec![Arc::new(file)], tensors, names, transposed, changes: BTreeMap::new() })
    }

    /// With the weights of another file, whose names stand below `prefix` here: a part of the network that is stored by itself.
    #[must_use]
    pub fn with_part(mut self, prefix: &str, part: Self) -> Self {
        let first = self.shards.len();
        let below = |name: String| format!("{prefix}.{name}");
        self.shards.extend(part.shards);
        let tensors = part.tensors.into_iter();
        self.tensors.extend(tensors.map(|(name, (shard, info))| (below(name), (first + shard, info))));
        self.changes.extend(part.changes.into_iter().map(|(name, changes)| (below(name), changes)));
        self
    }

    /// Adds to these weights what a LoRA has for `part`, whose weights they are. It is read when the weights are. Several are added one after the
    /// other.
    ///
    /// # Errors
    /// [`Error::Lora`] for a LoRA of another base, naming the layers.
    pub fn change(&mut self, lora: &LoraFile, part: LoraPart) -> Result<()> {
        let changes = lora.changes(part, self.shapes(), self.names)?;
        for (name, change) in changes {
            self.changes.entry(name).or_default().push(change);
        }
        Ok(())
    }

    /// Whether it holds a tensor that the network calls `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Name and shape of every tensor, by the network's names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (_, info))| (name.as_str(), info.shape.as_slice()))
    }

    /// Passes to `update` what tells these weights from others: name, kind, shape and bytes of every tensor, as they are stored, without
    /// [changes](Self::change). The order does not depend on how the tensors are spread over files.
    ///
    /// A large matrix is sampled: its first and last bytes and 15 places between, equally far apart. That is enough where
    /// training changes the whole matrix. It is not for a table, of which training may change a few rows: tensors that
    /// `whole` names are passed completely, and so are small ones.
    ///
    /// # Errors
    /// A file that is cut short; [`Error::Cancelled`].
    pub fn sample(&self, whole: impl Fn(&str) -> bool, mut update: impl FnMut(&[u8])) -> Result<()> {
        for name in self.tensors.keys() {
            let (file, info) = self.place(name)?;
            sample((file, info), name, whole(name), &mut update)?;
        }
        Ok(())
    }

    /// The file that holds a tensor, and its description there.
    fn place(&self, name: &str) -> Result<(&Arc<StoredFile>, &TensorInfo)> {
        let place = self.tensors.get(name).and_then(|(shard, info)| Some((self.shards.get(*shard)?, info)));
        place.ok_or_else(|| Error::Weights {
            path: self.path.clone(),
            missing: vec![name.to_owned()],
            unexpected: Vec::new(),
            mismatched: Vec::new(),
        })
    }

    /// Free text stored in the header under `key`.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.shards.iter().find_map(|shard| shard.text(key))
    }

    /// Compares names, shapes and dtypes with what a network asks for. No tensor is read.
    ///
    /// # Errors
    /// [`Error::Weights`] with every missing, unexpected and mismatched tensor.
    pub fn check(&self, table: &Table) -> Result<()> {
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

    /// Checks the file against what `build` asks for, and then builds the network from it, on `device` in the precision
    /// `kind`.
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

impl Loader<'_> {
    /// The kind that a parameter is wanted in; `None` for that of the file.
    fn kind(&self, role: Role) -> Option<Kind> {
        match role {
            Role::Weight | Role::Kernel => Some(self.kind),
            Role::F32 => Some(Kind::Float),
            Role::Stored => None,
        }
    }
}

impl Params for Loader<'_> {
    fn get(&mut self, spec: &Spec) -> Result<Tensor> {
        interrupt::check()?;
        let (file, info) = self.file.place(&spec.name)?;
        let read = |kind| {
            let tensor = |info: &TensorInfo| file.tensor(info, self.device, kind);
            if !self.file.transposed.contains(&spec.name) {
                return tensor(info);
            }
            let shape = info.shape.iter().rev().copied().collect();
            Ok(tensor(&TensorInfo { shape, ..info.clone() })?.f_transpose(0, 1)?.f_contiguous()?)
        };
        let Some(changes) = self.file.changes.get(&spec.name) else {
            return read(self.kind(spec.role));
        };
        let mut tensor = read(Some(Kind::Float))?;
        for change in changes {
            tensor = change.apply(&tensor)?;
        }
        // The kind of the file may be a narrow one: what is to stay as stored keeps the numbers of the sum.
        Ok(tensor.f_to_kind(self.kind(spec.role).unwrap_or(Kind::Float))?)
    }

    /// A tensor that need not be converted stays in the file.
    fn lend(&mut self, spec: &Spec) -> Result<Lent> {
        let (file, info) = self.file.place(&spec.name)?;
        let as_stored = self.kind(spec.role).is_none_or(|kind| kind_of(info.dtype) == Some(kind));
        let unchanged = !self.file.changes.contains_key(&spec.name) && !self.file.transposed.contains(&spec.name);
        if self.device == Device::Cpu && as_stored && unchanged {
            Ok(Lent::of_file(file, info))
        } else {
            Ok(self.get(spec)?.into())
        }
    }

    fn is_fixed(&self) -> bool {
        true
    }
}
