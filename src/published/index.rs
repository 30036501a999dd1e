//! `model_index.json`: what a folder of diffusers holds.

use std::path::{Path, PathBuf};

use ediffi_core::brief::brief;
use ediffi_core::files::read_json;
use ediffi_core::published::unknown_key;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::unusable::unusable;
use crate::{Error, Result};

/// Its name within the folder.
pub(crate) const INDEX_FILE: &str = "model_index.json";

/// The file, of which a family of models takes what it knows.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// The class of the pipeline in diffusers.
    pub(crate) class: String,
    others: Map<String, Value>,
}

/// A part of the folder, and the class of Python that it is of.
#[cfg(feature = "hub")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) library: &'a str,
    pub(crate) class: &'a str,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Index {
    /// Reads the file of a folder.
    ///
    /// # Errors
    /// A folder without it; [`Error::Json`] for one that cannot be understood.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::NoFolder(folder.to_owned()));
        }
        let path = folder.join(INDEX_FILE);
        if !path.is_file() {
            let reason =
                format!("it has no {INDEX_FILE}: the folder of the whole model is wanted, as it was downloaded");
            return Err(unusable(folder, reason));
        }
        let Keys { class, others } = read_json(&path)?;
        Ok(Self { path, class, others })
    }

    /// A key that is true or false.
    ///
    /// # Errors
    /// [`Error::Manifest`] for another value.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.others.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "it is neither true nor false".to_owned())),
        }
    }

    /// A key that is a number.
    ///
    /// # Errors
    /// [`Error::Manifest`] for another value.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f64>> {
        match self.others.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "it is no number".to_owned())),
            },
        }
    }

    /// Whether the folder has a part that is named here, and not as nulls.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.others.get(part).and_then(|stated| stated.get(1)).is_some_and(|class| !class.is_null())
    }

    /// The parts that the folder has.
    #[cfg(feature = "hub")]
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.others.iter().filter_map(|(name, stated)| match stated.as_array()?.as_slice() {
            [library, class] => Some(Part { name, library: library.as_str()?, class: class.as_str()? }),
            _ => None,
        })
    }

    /// Checks the parts, each with the classes of Python that do what is done here, and that no other key matters.
    ///
    /// # Errors
    /// [`Error::Manifest`] for a part of another class, and for a key that nobody knows.
    pub(crate) fn check(&self, parts: &[(&str, &[&str])], without_effect: &[&str]) -> Result<()> {
        let mut others = self.others.clone();
        for (part, classes) in parts {
            let stated = others.remove(*part);
            // The library and its class: nulls where the folder has no such part.
            match stated.as_ref().and_then(|stated| stated.get(1)).filter(|class| !class.is_null()) {
                Some(class) if !class.as_str().is_some_and(|class| classes.contains(&class)) => {
                    return Err(self.wrong(part, format!("{class} is not supported, only {}", classes.join(", "))));
                }
                _ => {}
            }
        }
        // Nulls stand for a part that the folder does not have.
        others.retain(|_, stated| !stated.as_array().is_some_and(|stated| stated.iter().all(Value::is_null)));
        match unknown_key(&others, without_effect) {
            None => Ok(()),
            Some(key) => Err(self.wrong(key, "this library does not know it".to_owned())),
        }
    }

    pub(crate) fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Manifest { path: self.path.clone(), key: brief(key).into_owned(), reason }
    }
}
