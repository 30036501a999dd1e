//! Where the model is that a program draws with which was not told one.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use ediffi_core::runtime::{DeviceChoice, Precision};

use crate::manifest::MANIFEST_FILE;
use crate::{Error, Result};

/// The environment variable that names a model.
pub const MODEL_VARIABLE: &str = "EDIFFI_MODEL";
/// Where a checkout has the shipped model.
const IN_CHECKOUT: &str = "models/icons";
/// What a name on the hub begins with, so that it is not taken for a folder.
const HUB: &str = "hub:";

/// The model that `EDIFFI_MODEL` names, or else the shipped one, where the program runs in a checkout of ediffi. The published
/// crates hold no weights.
///
/// The variable names a folder with a `pipeline.json`, such as a copy of `models/icons`. With the feature `hub` it may also name a
/// repository that holds such files, as `hub:owner/name`: see `Pipeline::from_hub`.
///
/// ```no_run
/// let pipeline = ediffi::Pipeline::open(ediffi::icons()?)?;
/// # Ok::<(), ediffi::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoModel`], which says what to set; with the feature `hub` those of `hub::download`.
pub fn icons() -> Result<PathBuf> {
    chosen(std::env::var_os(MODEL_VARIABLE), Path::new(IN_CHECKOUT))
}

fn chosen(variable: Option<OsString>, checkout: &Path) -> Result<PathBuf> {
    let Some(value) = variable.filter(|value| !value.is_empty()) else {
        return if checkout.join(MANIFEST_FILE).is_file() {
            Ok(checkout.to_owned())
        } else {
            Err(Error::NoModel(" is not set, and this folder is no checkout of ediffi".to_owned()))
        };
    };
    let folder = located(&value, DeviceChoice::Auto, Precision::Auto)?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Error::NoModel(format!("={}: there is no such folder", folder.display())))
    }
}

/// The folder of a model that somebody names: the folder itself, or with the feature `hub` that of `hub:owner/name`, or
/// `hub:owner/name@revision`, whose files are downloaded as they suit this device and precision (`hub::HubPipeline`). A folder need not be
/// there.
///
/// # Errors
/// Those of the download; [`Error::WithoutHub`] for a program without the feature.
pub fn located(named: impl AsRef<OsStr>, device: DeviceChoice, precision: Precision) -> Result<PathBuf> {
    let named = named.as_ref();
    match named.to_str().and_then(|named| named.strip_prefix(HUB)) {
        Some(name) => from_hub(name, device, precision),
        None => Ok(PathBuf::from(named)),
    }
}

#[cfg(feature = "hub")]
fn from_hub(name: &str, device: DeviceChoice, precision: Precision) -> Result<PathBuf> {
    crate::hub::HubPipeline::new(name).device(device).precision(precision).download()
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str, _device: DeviceChoice, _precision: Precision) -> Result<PathBuf> {
    Err(Error::WithoutHub(format!("{HUB}{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_taken_before_the_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join(IN_CHECKOUT);
        assert_eq!(chosen(Some(folder.path().into()), &checkout).unwrap(), folder.path());
        assert_eq!(chosen(None, &checkout).unwrap(), checkout);
        assert_eq!(chosen(Some("".into()), &checkout).unwrap(), checkout);
    }

    #[test]
    fn what_is_not_there_is_said_with_the_name_of_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        for (variable, words) in
            [(None, "is not set".to_owned()), (Some(missing.clone().into()), missing.display().to_string())]
        {
            let error = chosen(variable, folder.path()).unwrap_err();
            assert!(matches!(error, Error::NoModel(_)), "{error}");
            assert!(error.to_string().contains(MODEL_VARIABLE) && error.to_string().contains(&words), "{error}");
        }
    }

    #[test]
    #[cfg(not(feature = "hub"))]
    fn a_name_on_the_hub_needs_the_feature() {
        let error = chosen(Some("hub:owner/name".into()), Path::new("")).unwrap_err().to_string();
        assert!(error.contains("hub:owner/name") && error.contains("feature `hub`"), "{error}");
    }
}
