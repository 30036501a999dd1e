//! Writing a model folder: what is replaced, what stays, and weights in half the size.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use ediffi_core::files::{make_folder_of, read_bytes, write_with_folders};
use ediffi_core::unet::{UNet, UNetConfig};
use ediffi_core::weights::{self, Lora, LoraFile, LoraPart, Spec, Table, WeightsFile};
use tch::{Device, Kind, Tensor};

use crate::error::file_error;
use crate::{Error, Result};

/// Refuses to replace a folder that holds something else than a model, such as a folder of the user's. A model has folders of the names
/// `known`, and files at the top.
///
/// # Errors
/// [`Error::NotAModel`] naming what is there.
pub fn expect_model(out: &Path, known: &[&str]) -> Result<()> {
    let not_a_model = |reason: String| Err(Error::NotAModel { folder: out.to_owned(), reason });
    let is_known = |name: &OsStr| known.iter().any(|known| *known == name);
    // A folder that is not there holds nothing.
    let entries = fs::read_dir(out).into_iter().flatten().collect::<std::io::Result<Vec<_>>>();
    let entries = entries.map_err(file_error(out))?;
    if let Some(foreign) = entries.iter().find(|entry| entry.path().is_dir() && !is_known(&entry.file_name())) {
        return not_a_model(format!("it holds {}", foreign.path().display()));
    }
    if !entries.is_empty() && !out.join(ediffi::MANIFEST_FILE).is_file() {
        return not_a_model("it is not empty and no model".to_owned());
    }
    Ok(())
}

/// Copies files at the top of the old folder that the new one does not have.
///
/// # Errors
/// A file that cannot be read or written.
pub fn keep(old: &Path, new: &Path) -> Result<()> {
    // A folder that is not there holds nothing.
    for entry in fs::read_dir(old).into_iter().flatten() {
        let entry = entry.map_err(file_error(old))?;
        let to = new.join(entry.file_name());
        if entry.path().is_file() && !to.exists() {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Six significant digits, so that a manifest reads well. Neighbours are rounded alike and still tile.
#[must_use]
pub fn digits(sigma: f64) -> f64 {
    if sigma == 0.0 || !sigma.is_finite() {
        return sigma;
    }
    let scale = 10_f64.powi(5 - sigma.abs().log10().floor() as i32);
    (sigma * scale).round() / scale
}

/// Averaged weights in half the size, with all that the header says of them.
///
/// # Errors
/// A file that cannot be read or written.
pub fn halve(from: &Path, to: &Path) -> Result<()> {
    let tensors = Tensor::read_safetensors(from)?
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.f_to_kind(Kind::BFloat16)?)))
        .collect::<Result<Vec<_>>>()?;
    make_folder_of(to)?;
    Ok(weights::save(to, &tensors, header(from)?)?)
}

/// The weights of a network with a LoRA merged into them, in half the size, with all that the header of the LoRA says.
///
/// # Errors
/// A LoRA of another network; a file that cannot be read or written.
pub(crate) fn merge((base, dimensions): (&Path, &UNetConfig), lora: &Path, to: &Path) -> Result<()> {
    let mut file = WeightsFile::open(base, |name| Some(name.to_owned()))?;
    file.change(&LoraFile::open(&Lora::new(lora))?, LoraPart::Network)?;
    let table = Table::of(|scope| UNet::new(scope, dimensions, Kind::Float))?;
    let tensors = file.build(Device::Cpu, Kind::Float, |mut scope| {
        let mut get = |Spec { name, shape, init, role }: &Spec| {
            Ok((name.clone(), scope.get(name, shape, *init, *role)?.f_to_kind(Kind::BFloat16)?))
        };
        table.specs().iter().map(&mut get).collect::<ediffi_core::Result<Vec<_>>>()
    })?;
    make_folder_of(to)?;
    Ok(weights::save(to, &tensors, header(lora)?)?)
}

/// The texts in the header of a file.
fn header(path: &Path) -> Result<HashMap<String, String>> {
    let bytes = read_bytes(path)?;
    let unreadable = |source| ediffi_core::Error::WeightsFormat { path: path.to_owned(), source };
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Copies a file, with the folders of its new place.
///
/// # Errors
/// A file that cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    Ok(write_with_folders(to, &read_bytes(from)?)?)
}

#[cfg(test)]
mod tests {
    use ediffi_core::folders;

    use super::*;

    #[test]
    fn a_readme_stays_and_an_old_model_goes() {
        let within = tempfile::tempdir().unwrap();
        let out = within.path().join("model");
        fs::create_dir_all(out.join("old-stage")).unwrap();
        for (file, text) in [("README.md", "read me"), ("pipeline.json", "old"), ("old-stage/a.safetensors", "old")] {
            fs::write(out.join(file), text).unwrap();
        }
        let write = |new: &Path| -> Result<()> {
            fs::write(new.join("pipeline.json"), "new").map_err(file_error(new))?;
            keep(&out, new)
        };
        folders::replace(&out, write).unwrap();
        let read = |file: &str| fs::read_to_string(out.join(file)).ok();
        assert_eq!((read("README.md").as_deref(), read("pipeline.json").as_deref()), (Some("read me"), Some("new")));
        assert!(!out.join("old-stage").exists());
    }

    #[test]
    fn only_a_model_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let expect = || expect_model(&out, &["base"]).map_err(|error| error.to_string());
        expect().unwrap();
        fs::create_dir(&out).unwrap();
        expect().unwrap();
        fs::write(out.join("README.md"), "").unwrap();
        assert!(expect().unwrap_err().contains("no model"));
        fs::write(out.join("pipeline.json"), "").unwrap();
        fs::create_dir(out.join("base")).unwrap();
        expect().unwrap();
        fs::create_dir(out.join(".git")).unwrap();
        assert!(expect().unwrap_err().contains(".git"));
    }

    #[test]
    fn sigmas_keep_six_digits() {
        assert_eq!(
            [0.580_312_345, 3.835_444_4, 9.609_593_2, 0.075_742_241_9].map(digits),
            [0.580_312, 3.835_44, 9.609_59, 0.075_742_2]
        );
        assert_eq!((digits(0.0), digits(f64::INFINITY)), (0.0, f64::INFINITY));
    }
}
