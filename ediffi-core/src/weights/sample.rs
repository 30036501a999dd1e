//! What tells the tensors of one file from those of another, without reading all of them.

use safetensors::tensor::TensorInfo;

use super::stored::{PIECE, StoredFile};
use crate::{Result, interrupt};

/// How many samples are taken of a large tensor, and how many bytes each has.
const SAMPLES: usize = 17;
const SAMPLE: usize = 256;

/// Passes name, kind, shape and bytes of a tensor to `update`: all bytes of a small one and of a `whole` one, else the first and the last and
/// 15 places between, equally far apart.
///
/// # Errors
/// A file that is cut short; [`Error::Cancelled`](crate::Error::Cancelled).
pub(super) fn sample(
    (file, info): (&StoredFile, &TensorInfo),
    name: &str,
    whole: bool,
    update: &mut impl FnMut(&[u8]),
) -> Result<()> {
    update(format!("{name} {:?} {:?}\n", info.dtype, info.shape).as_bytes());
    let (begin, end) = info.data_offsets;
    let (length, mut bytes) = (end - begin, Vec::new());
    let mut pass = |start: usize, count: usize| -> Result<()> {
        interrupt::check()?;
        bytes.resize(count, 0);
        file.read(begin + start, &mut bytes)?;
        update(&bytes);
        Ok(())
    };
    if whole || length <= SAMPLES * SAMPLE {
        let mut starts = (0..length).step_by(PIECE);
        return starts.try_for_each(|start| pass(start, PIECE.min(length - start)));
    }
    let last = length - SAMPLE;
    let mut starts = (0..SAMPLES - 1).map(|sample| last / (SAMPLES - 1) * sample).chain([last]);
    starts.try_for_each(|start| pass(start, SAMPLE))
}
