//! Finding the weights of a part of a published folder, and saying what to do where there are none that can be read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ediffi_core::Error::{ReadFile, WeightsPointer};
use ediffi_core::weights::find_called;

use super::unusable;
use crate::Result;

/// The name of the variant that diffusers and transformers give to weights in half precision.
pub(super) const HALF: &str = "fp16";

/// The weights called `stem` in `folder`: a safetensors file or the index of several. `half`: the variant in half precision
/// is wanted, if there is one.
pub(super) fn find(folder: &Path, stem: &str, half: bool) -> Result<PathBuf> {
    let found = match half.then(|| find_called(folder, stem, Some(HALF))) {
        Some(found @ (Ok(_) | Err(WeightsPointer { .. }))) => found,
        _ => find_called(folder, stem, None),
    };
    found.map_err(|error| match error {
        ReadFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            let part = folder.file_name().unwrap_or_default().display();
            unusable(
                folder,
                format!(
                    "there is no {stem}.safetensors, nor its half-precision variant or index. DeepFloyd's files are given \
                     out when their licence has been accepted on the page of the model: accept it, log in, and download \
                     the folder `{part}`"
                ),
            )
        }
        other => other.into(),
    })
}
