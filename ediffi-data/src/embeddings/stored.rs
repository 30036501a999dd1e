//! How the rows of a shard are stored: one behind another in one tensor of each name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ediffi_core::guard::guarded;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Kind, Tensor};

use super::manifest::{FORMAT, Kept};
use crate::error::file_error;
use crate::file::part;
use crate::{Error, Result};

/// What the name of a tensor ends with that says where each row ends.
pub(super) const ENDS: &str = ".ends";

/// Bytes of the length before the header.
const LENGTH: u64 = 8;

/// The longest header that is read: there are two tensors for each name.
const LONGEST_HEADER: u64 = 1 << 20;

/// The tensors of all rows of one name as they are stored. Vectors are stacked: [rows, width]. Of others the first dimension runs on
/// through the rows, [tokens of all rows, width], and a second tensor says where each ends.
pub(super) fn join(name: &str, rows: &[Tensor]) -> Result<Vec<(String, Tensor)>, String> {
    let first = rows.first().ok_or("there are no rows")?;
    let (kind, size) = (first.kind(), first.size());
    let behind = |size: &[i64]| size.get(1..).unwrap_or_default().to_vec();
    let fits = |row: &&Tensor| {
        let found = row.size();
        row.kind() == kind
            && found.len() == size.len()
            && if size.len() == 1 { found == size } else { behind(&found) == behind(&size) }
    };
    if size.is_empty() {
        return Err("it is one number".to_owned());
    }
    if let Some(other) = rows.iter().find(|row| !fits(row)) {
        return Err(format!("a row is {:?} {:?}, another {kind:?} {size:?}", other.kind(), other.size()));
    }
    dtype_of(kind).ok_or_else(|| format!("{kind:?} is not stored"))?;
    let join = || match size.len() {
        1 => Tensor::f_stack(rows, 0),
        _ => Tensor::f_cat(rows, 0),
    };
    let joined = guarded(|| Ok::<_, ediffi_core::Error>(join()?)).map_err(|error| error.to_string())?;
    let mut stored = vec![(name.to_owned(), joined)];
    if size.len() > 1 {
        let mut end = 0;
        let ends: Vec<i64> =
            rows.iter().map(|row| (end += row.size().first().copied().unwrap_or_default(), end).1).collect();
        let ends = Tensor::f_from_slice(&ends).map_err(|error| error.to_string())?;
        stored.push((format!("{name}{ENDS}"), ends));
    }
    Ok(stored)
}

/// A shard of which it is known where everything lies.
#[derive(Debug)]
pub(super) struct Stored {
    path: PathBuf,
    /// Bytes of the file.
    length: u64,
    tensors: BTreeMap<String, Rows>,
}

/// The rows of one name.
#[derive(Debug, PartialEq, Eq)]
struct Rows {
    kind: Kind,
    /// The first byte in the file.
    start: u64,
    /// The sizes behind the first.
    behind: Vec<i64>,
    /// Bytes of these.
    bytes: u64,
    /// Where each row ends, in the first size. None for vectors.
    ends: Option<Vec<u64>>,
}

impl Stored {
    /// Reads the header of a shard, and where rows end.
    pub(super) fn open(path: &Path, number: usize, kept: &Kept) -> Result<Self> {
        let wrong = |reason: String| Error::Embeddings { path: path.to_owned(), reason };
        let io = file_error(path);
        let mut file = File::open(path).map_err(&io)?;
        let length = file.metadata().map_err(&io)?.len();
        let mut head = [0; LENGTH as usize];
        file.read_exact(&mut head).map_err(&io)?;
        let header = u64::from_le_bytes(head);
        if header > LONGEST_HEADER || header > length {
            return Err(wrong("it is no safetensors file, or cut short".to_owned()));
        }
        let json = part(&file, LENGTH, header).map_err(&io)?;
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        let text = |key: &str| metadata.metadata().as_ref()?.get(key).cloned();
        let samples = kept.samples_of(number);
        let first = samples.start.to_string();
        let expected =
            [("format", FORMAT), ("data", kept.data.as_str()), ("encoder", kept.encoder.as_str()), ("first", &first)];
        for (key, expected) in expected {
            let found = text(key).unwrap_or_default();
            if found != expected {
                return Err(wrong(format!("it is of another folder: its `{key}` is `{found}`, not `{expected}`")));
            }
        }
        let base = LENGTH + header;
        let infos = metadata.tensors();
        let mut tensors = BTreeMap::new();
        for (name, &info) in &infos {
            if name.ends_with(ENDS) {
                continue;
            }
            let ends =
                infos.get(&format!("{name}{ENDS}")).map(|ends| ends_of(&file, base, length, ends, samples.len()));
            let ends = ends.transpose().map_err(|reason| wrong(format!("`{name}{ENDS}`: {reason}")))?;
            let rows = Rows::new(info, base, length, samples.len(), ends);
            tensors.insert(name.clone(), rows.map_err(|reason| wrong(format!("`{name}`: {reason}")))?);
        }
        Ok(Self { path: path.to_owned(), length, tensors })
    }

    /// The names of its tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether it has the same names, kinds and sizes as another.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let form = |(name, rows): (&String, &Rows)| (name.clone(), rows.kind, rows.behind.clone(), rows.ends.is_some());
        self.tensors.iter().map(form).eq(other.tensors.iter().map(form))
    }

    /// One row of a tensor.
    pub(super) fn tensor(&self, name: &str, row: usize) -> Result<Tensor> {
        let wrong = |reason: String| Error::Embeddings { path: self.path.clone(), reason };
        let rows = self.tensors.get(name).ok_or_else(|| {
            wrong(format!("it has no `{name}`, only {}", self.names().collect::<Vec<_>>().join(", ")))
        })?;
        let (from, to) = rows.range(row).ok_or_else(|| wrong(format!("it has no row {row}")))?;
        let io = file_error(&self.path);
        let file = File::open(&self.path).map_err(&io)?;
        if file.metadata().map_err(&io)?.len() != self.length {
            return Err(wrong("it was written to since it was opened".to_owned()));
        }
        // Inside of the file: that was checked when it was opened.
        let bytes = part(&file, rows.start + from * rows.bytes, (to - from) * rows.bytes).map_err(&io)?;
        let first = rows.ends.is_some().then_some((to - from) as i64);
        let size: Vec<i64> = first.into_iter().chain(rows.behind.iter().copied()).collect();
        Ok(guarded(|| Ok::<_, ediffi_core::Error>(Tensor::f_from_data_size(&bytes, &size, rows.kind)?))?)
    }
}

impl Rows {
    fn new(info: &TensorInfo, base: u64, length: u64, count: usize, ends: Option<Vec<u64>>) -> Result<Self, String> {
        let (start, _) = place_of(info, base, length)?;
        let (&first, behind) = info.shape.split_first().ok_or("it is one number")?;
        let total = ends.as_ref().map_or(Some(count as u64), |ends| ends.last().copied());
        if total != Some(first as u64) {
            return Err(format!("it has {first} in place of {total:?}"));
        }
        // The whole tensor lies in the file, so no product of its sizes is too large.
        let bytes = behind.iter().product::<usize>() as u64 * kind_size(info.dtype)?;
        let behind = behind.iter().map(|&side| side as i64).collect();
        Ok(Self { kind: kind_of(info.dtype).ok_or("its dtype is not read")?, start, behind, bytes, ends })
    }

    /// Where a row begins and ends, in the first size.
    fn range(&self, row: usize) -> Option<(u64, u64)> {
        match &self.ends {
            None => Some((row as u64, row as u64 + 1)),
            Some(ends) => {
                let from = row.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
                Some((from, *ends.get(row)?))
            }
        }
    }
}

/// First byte and number of bytes of a tensor that lies in the file as its shape says.
fn place_of(info: &TensorInfo, base: u64, length: u64) -> Result<(u64, u64), String> {
    let (begin, end) = info.data_offsets;
    // Sides of nothing count as one, so that no product overflows on the way to nothing.
    let most =
        info.shape.iter().try_fold(kind_size(info.dtype)?, |product, &side| product.checked_mul(side.max(1) as u64));
    let size = if info.shape.contains(&0) { Some(0) } else { most };
    let bytes = end.checked_sub(begin).map(|bytes| bytes as u64);
    let start = base.checked_add(begin as u64);
    let inside = start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes)).is_some_and(|end| end <= length);
    match (start, bytes) {
        (Some(start), Some(bytes)) if inside && most.is_some() && size == Some(bytes) => Ok((start, bytes)),
        _ => Err("it does not lie in the file as its shape says".to_owned()),
    }
}

/// The numbers that say where rows end: they do not fall.
fn ends_of(file: &File, base: u64, length: u64, info: &TensorInfo, count: usize) -> Result<Vec<u64>, String> {
    if info.dtype != Dtype::I64 || info.shape != [count] {
        return Err(format!("it is {:?} {:?}, expected I64 [{count}]", info.dtype, info.shape));
    }
    let (start, bytes) = place_of(info, base, length)?;
    let bytes = part(file, start, bytes).map_err(|error| error.to_string())?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let ends: Vec<u64> = numbers.iter().map(|&number| u64::from_le_bytes(number)).collect();
    if ends.is_sorted() { Ok(ends) } else { Err("a row ends before it begins".to_owned()) }
}

/// Bytes of a number.
fn kind_size(dtype: Dtype) -> Result<u64, &'static str> {
    kind_of(dtype).map(|kind| kind.elt_size_in_bytes() as u64).ok_or("its dtype is not read")
}

/// The kinds that are stored.
const KINDS: [(Dtype, Kind); 5] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::U8, Kind::Uint8),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.into_iter().find(|&(known, _)| known == dtype).map(|(_, kind)| kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.into_iter().find(|&(_, known)| known == kind).map(|(dtype, _)| dtype)
}
