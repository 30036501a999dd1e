//! Encoding all captions once.

use std::path::Path;

use ediffi_core::conditioning::Conditioning;
use ediffi_data::embeddings::{Kept, Writer};
use ediffi_data::error::is_of_the_system;
use tch::{Device, Kind, Tensor};

use crate::data::NAMES;
use crate::observer::{Event, Observer};
use crate::options::Outcome;
use crate::workshop::Workshop;
use crate::{Error, Result};

/// Samples in a file.
const ROWS: usize = 256;

/// Encodes what is not in `into` yet.
pub(crate) fn captions(workshop: &Workshop<'_>, into: &Path, observer: &mut dyn Observer) -> Result<Outcome> {
    let all = workshop.dataset.len();
    let kept = Kept { data: workshop.data.clone(), encoder: workshop.encoder_name()?, samples: all, rows: ROWS };
    let mut writer = Writer::open(into, &kept)?;
    let texts = workshop.texts()?;
    while let Some(range) = writer.pending() {
        let (mut rows, done) = (Vec::with_capacity(range.len()), range.end);
        for index in range {
            let caption = match workshop.dataset.caption(index) {
                // Embeddings are kept: a disk that fails for once must not leave an empty caption in them.
                Err(error) if is_of_the_system(&error) => return Err(error.into()),
                // A sample that cannot be read is never trained on. Its place is kept.
                Err(error) => {
                    tracing::warn!(%error, "a caption cannot be read");
                    String::new()
                }
                Ok(caption) => caption,
            };
            let told = texts.lock().map_err(|_| Error::Poisoned)?.alone(&caption)?;
            rows.push(row(workshop, &told)?);
        }
        writer.write(rows)?;
        if observer.event(&Event::Encoded { done, all }).is_break() {
            return Ok(Outcome::Stopped);
        }
    }
    Ok(Outcome::Trained)
}

/// The tensors of one caption, tokens without the padding.
fn row(workshop: &Workshop<'_>, told: &Conditioning) -> Result<Vec<(String, Tensor)>> {
    let mut row = Vec::new();
    for name in NAMES {
        let Some(shape) = workshop.needs.shape(name, 1) else { continue };
        let given = told.named().find(|(given, _)| *given == name).map(|(_, tensor)| tensor.shallow_clone());
        let tensor = match (given, shape.as_slice()) {
            (Some(tensor), _) => tensor.f_squeeze_dim(0)?,
            (None, [_, _, width]) => Tensor::f_zeros([0, *width], (Kind::Float, Device::Cpu))?,
            (None, _) => Tensor::f_zeros(shape.get(1..).unwrap_or_default(), (Kind::Float, Device::Cpu))?,
        };
        row.push((name.to_owned(), if tensor.dim() == 2 { trimmed(&tensor)? } else { tensor }));
    }
    Ok(row)
}

/// Without the zeros at the end.
fn trimmed(tokens: &Tensor) -> Result<Tensor> {
    let some = tokens.f_ne(0.0)?.f_any_dim(1, false)?;
    let length = Vec::<bool>::try_from(some)?.iter().rposition(|some| *some).map_or(0, |last| last + 1);
    Ok(tokens.f_narrow(0, 0, i64::try_from(length).unwrap_or(0))?.f_contiguous()?)
}
