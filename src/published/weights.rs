//! Finding the weights of a part of a published folder, and saying what to do where there are none that can be read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ediffi_core::Error::{ReadFile, WeightsPointer};
use ediffi_core::weights::find_called;

use super::unusable::unusable;
use crate::Result;

/// The name of the variant that diffusers and transformers give to weights in half precision.
pub(crate) const HALF: &str = "fp16";

/// The weights called `stem` in `folder`: a safetensors file or the index of several. `half`: the variant in half precision
/// is wanted, if there is one; otherwise it serves where there are several and none in full precision. `advice`: what to do where there is
/// none, before the name of the folder to download.
pub(crate) fn find(folder: &Path, stem: &str, half: bool, advice: &str) -> Result<PathBuf> {
    let found = match half.then(|| find_called(folder, stem, Some(HALF))) {
        Some(found @ (Ok(_) | Err(WeightsPointer { .. }))) => found,
        _ => find_called(folder, stem, None).or_else(|error| match find_called(folder, stem, Some(HALF)) {
            found @ Ok(_) if !matches!(error, WeightsPointer { .. }) => found,
            _ => Err(error),
        }),
    };
    found.map_err(|error| match error {
        ReadFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            let part = folder.file_name().unwrap_or_default().display();
            unusable(
                folder,
                format!(
                    "there is no {stem}.safetensors, nor its half-precision variant or index. {advice} the folder `{part}`"
                ),
            )
        }
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], half: bool) -> std::result::Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let path = find(folder.path(), "unet", half, "download").map_err(|error| error.to_string())?;
        Ok(path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn either_precision_serves_where_the_other_is_not() {
        let (full, half, other) = ("unet.safetensors", "unet.fp16.safetensors", "unet.non_ema.safetensors");
        assert_eq!(found(&[full, half, other], false).unwrap(), full);
        assert_eq!(found(&[full, half, other], true).unwrap(), half);
        assert_eq!(found(&[full, other], true).unwrap(), full);
        assert_eq!(found(&[half, other], false).unwrap(), half);
        assert_eq!(found(&[half, other], true).unwrap(), half);
        let error = found(&[other, "unet.bf16.safetensors"], false).unwrap_err();
        assert!(error.contains("unet.safetensors"), "{error}");
    }
}
