//! Safetensors files that stay open, and tensors read out of them.
//!
//! They are read and not mapped: a file that another program cuts short is an error then, where a page of a map without a file behind
//! it would end the process. What was read is in memory for no longer than it takes to convert it, piece by piece.
#![allow(unsafe_code, reason = "viewing bytes as a tensor is a foreign call")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::brief::{brief, told_json};
use crate::{Error, Result, interrupt};

/// Bytes that are read at a time. What was read is converted while it is in the cache of a core.
pub(super) const PIECE: usize = 1 << 20;

/// Bytes of the length before the header.
const LENGTH: usize = 8;

/// The longest header, as in the crate that parses it.
const LONGEST_HEADER: u64 = 100_000_000;

/// One safetensors file: open, with its header.
#[derive(Debug)]
pub(crate) struct StoredFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl StoredFile {
    /// Opens `path` and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::ReadFile { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let wrong = |source| {
            let path = path.to_owned();
            if is_pointer(&path) {
                return Error::WeightsPointer(path);
            }
            Error::WeightsFormat { path, source: short(source) }
        };
        let mut head = Vec::with_capacity(LENGTH);
        (&file).take(LENGTH as u64).read_to_end(&mut head).map_err(io)?;
        let header = head.first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes));
        if header <= LONGEST_HEADER {
            // No more is allocated than the file has.
            Read::by_ref(&mut file).take(header).read_to_end(&mut head).map_err(io)?;
        }
        // Of the header alone it says that all is well but the length of the file.
        match expect_sizes(&head).and_then(|()| SafeTensors::read_metadata(&head)) {
            Ok(_) | Err(SafeTensorError::MetadataIncompleteBuffer) => {}
            Err(source) => return Err(wrong(source)),
        }
        let json = head.get(LENGTH..).unwrap_or_default();
        let metadata: Metadata = serde_json::from_slice(json)
            .map_err(|source| wrong(SafeTensorError::InvalidHeaderDeserialization(source)))?;
        let data_start = head.len() as u64;
        if data_start + metadata.data_len() as u64 != length {
            return Err(wrong(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self { path: path.to_owned(), file, metadata, data_start })
    }

    /// Name and description of every tensor.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        self.metadata.tensors().into_iter()
    }

    /// Free text stored in the header.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Copies one tensor, once, to `device` in `kind`, or in the kind it is stored in.
    ///
    /// # Errors
    /// A file that was cut short; [`Error::Cancelled`](crate::Error::Cancelled) between two pieces.
    pub(crate) fn tensor(&self, info: &TensorInfo, device: Device, kind: Option<Kind>) -> Result<Tensor> {
        let stored = self.stored(info)?;
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let target = Tensor::f_empty(&shape, (kind.unwrap_or(stored), device))?;
        let flat = target.f_view([target.numel() as i64])?;
        let element = stored.elt_size_in_bytes();
        let (begin, end) = info.data_offsets;
        // Of 64-bit numbers, so that it is aligned for any kind.
        let mut piece = vec![0_u64; (end - begin).min(PIECE).div_ceil(size_of::<u64>())];
        let length = piece.len() * size_of::<u64>();
        for start in (begin..end).step_by(PIECE) {
            interrupt::check()?;
            let bytes = (end - start).min(PIECE);
            // SAFETY: the bytes are those of the piece, which has room for `length`; all values of all bytes are numbers.
            let room = unsafe { std::slice::from_raw_parts_mut(piece.as_mut_ptr().cast::<u8>(), length) };
            let room = room.get_mut(..bytes).unwrap_or_default();
            self.read(start, room)?;
            let (first, count) = (((start - begin) / element) as i64, (bytes / element) as i64);
            // SAFETY: the view is over `bytes` initialised bytes, aligned for the kind, that nobody changes while it lives: it is dropped
            // at the end of this turn, and nothing shares its storage, as its numbers are copied out.
            let view = unsafe { Tensor::f_from_blob(room.as_ptr(), &[count], &[1], stored, Device::Cpu)? };
            flat.f_narrow(0, first, count)?.f_copy_(&view)?;
        }
        Ok(target)
    }

    fn stored(&self, info: &TensorInfo) -> Result<Kind> {
        let unknown = || Error::WeightsDtype { path: self.path.clone(), dtype: format!("{:?}", info.dtype) };
        kind_of(info.dtype).ok_or_else(unknown)
    }

    /// Reads bytes of a tensor, from byte `start` of all tensors on.
    ///
    /// # Errors
    /// A file that was cut short.
    pub(crate) fn read(&self, start: usize, bytes: &mut [u8]) -> Result<()> {
        read_at(&self.file, bytes, self.data_start + start as u64).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => Error::WeightsTruncated(self.path.clone()),
            _ => Error::ReadFile { path: self.path.clone(), source },
        })
    }
}

/// Reads as many bytes as `bytes` is long, from `offset` on, wherever the file stands: several threads may read it.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => (bytes, offset) = (bytes.split_at_mut(read).1, offset + read as u64),
        }
    }
    Ok(())
}

/// The kind of a stored dtype that weights come in.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// The free texts and the tensors of a file that is in memory.
///
/// # Errors
/// Bytes that are no safetensors file, or one that is cut short.
pub fn parse(bytes: &[u8]) -> std::result::Result<(HashMap<String, String>, SafeTensors<'_>), SafeTensorError> {
    expect_sizes(bytes).map_err(short)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(short)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(short)?;
    Ok((header.metadata().clone().unwrap_or_default(), tensors))
}

/// Refuses a header whose tensors have so many bytes in all that the length of the file overflows, which the crate that parses it adds
/// without a look; and shapes whose product overflows on the way to nothing, as that of [2^62, 2, 0] does.
fn expect_sizes(bytes: &[u8]) -> std::result::Result<(), SafeTensorError> {
    let header = bytes.first_chunk().map_or(0, |&length| u64::from_le_bytes(length));
    let end = usize::try_from(header).ok().filter(|_| header <= LONGEST_HEADER).map_or(0, |header| LENGTH + header);
    let json = bytes.get(LENGTH..end).unwrap_or_default();
    // What else is wrong is that crate's to say.
    let Ok(metadata) = serde_json::from_slice::<Metadata>(json) else { return Ok(()) };
    let product = |shape: &[usize]| {
        shape.iter().try_fold(1_i64, |product, &side| product.checked_mul(i64::try_from(side.max(1)).ok()?))
    };
    let fits = |info: &&TensorInfo| product(&info.shape).is_some();
    if i64::try_from(metadata.data_len()).is_err() || !metadata.tensors().values().all(fits) {
        return Err(SafeTensorError::ValidationOverflow);
    }
    Ok(())
}

/// An error whose message does not grow with the names in the header.
fn short(error: SafeTensorError) -> SafeTensorError {
    match error {
        SafeTensorError::InvalidOffset(name) => SafeTensorError::InvalidOffset(brief(&name).into_owned()),
        SafeTensorError::TensorNotFound(name) => SafeTensorError::TensorNotFound(brief(&name).into_owned()),
        SafeTensorError::InvalidHeaderDeserialization(source) => {
            SafeTensorError::InvalidHeaderDeserialization(told_json(source))
        }
        other => other,
    }
}

/// How a pointer of git-lfs begins.
const POINTER: &[u8] = b"version https://git-lfs";

/// Whether a file is a pointer of git-lfs: what a clone without git-lfs has in place of the file.
pub(super) fn is_pointer(path: &Path) -> bool {
    let mut start = [0; POINTER.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == POINTER
}
